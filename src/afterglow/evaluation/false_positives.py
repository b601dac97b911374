"""False positives of a model without text: the test of whole copies on held-out images (docs/methods.md#extraction)."""

import pandas as pd
import torch

from afterglow.analysis.summary import ALL_SEEDS
from afterglow.evaluation.ground_truth import attach_ground_truth
from afterglow.evaluation.measurements import measure_generations
from afterglow.generations import Generations
from afterglow.neighbors.clusters import NEAR_DUPLICATE_DISTANCE
from afterglow.neighbors.gallery import Gallery
from afterglow.planting.plants import PlantedSet
from afterglow.planting.targets import unconditional_targets

MAX_UNSEEN = 1000  # real images that are tested beside the generations


def false_positive_rows(planted: PlantedSet, gallery: Gallery) -> pd.DataFrame:
    """unseen.calibrated_l2, unseen.nn_ratio and unseen.memorized of at most MAX_UNSEEN held-out images, as if they were generated.

    Near-duplicates of training images are left out.

    Args:
        planted: the training set (of a latent model: as reconstructed by its autoencoder).
        gallery: its images.
    """
    rows = torch.as_tensor(planted.heldout[:MAX_UNSEEN])
    if not len(rows):
        return pd.DataFrame()
    images = torch.from_numpy(planted.pixels[rows.numpy()])
    as_generated = Generations(images, ("",) * len(rows), torch.arange(len(rows)), torch.arange(1), provenance={})
    compared = attach_ground_truth(as_generated, unconditional_targets(planted, len(rows)), gallery)
    assert compared.neighbors is not None and compared.plant_id is not None
    unseen = (compared.neighbors.distances[:, 0] >= NEAR_DUPLICATE_DISTANCE).nonzero()[:, 0]
    if not len(unseen):
        return pd.DataFrame()
    own = dict(zip(compared.plant_id.tolist(), (len(planted.plants) + rows).tolist(), strict=True))
    found = measure_generations(compared[unseen], ("calibrated_l2", "nn_ratio")).measurements
    found = found[found["measure"].isin(("memorized", "calibrated_l2", "nn_ratio"))]
    return found.assign(measure="unseen." + found["measure"], kind="heldout", plant_id=found["plant_id"].map(own), seed=ALL_SEEDS)
