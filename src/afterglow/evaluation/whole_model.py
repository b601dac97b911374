"""Numbers of an evaluation that belong to the whole model and to no plant: Z_U, the denoising gap, the number of neighbors."""

from typing import Any

import numpy as np
import pandas as pd

from afterglow.analysis.emergence_table import NEIGHBORS
from afterglow.analysis.summary import ALL_SEEDS
from afterglow.evaluation.ground_truth import NUM_NEIGHBORS
from afterglow.functional.statistics import mann_whitney_z
from afterglow.generations import Generations
from afterglow.kinds import KINDS
from afterglow.neighbors.gallery import Gallery
from afterglow.neighbors.search import nearest

MAX_HELDOUT = 256  # held-out images whose distances are computed
MIN_SAMPLES = 8  # on each side, for the normal approximation
WHOLE_MODEL = {kind: -1 - place for place, kind in enumerate(KINDS)}  # plant_id of a number of all generations of a kind


def copying_rows(generations: Generations, gallery: Gallery, heldout: Any) -> pd.DataFrame:
    """Rows z_u: Z_U of the distances to the nearest training image, for each kind of generations (docs/methods.md#z-u).

    Args:
        generations: kinds with fewer than MIN_SAMPLES generations have no row.
        gallery: the training images.
        heldout: images that were never trained on, uint8 [N, C, H, W]; fewer than MIN_SAMPLES give no row.
    """
    if len(heldout) < MIN_SAMPLES:
        return pd.DataFrame()
    reference, distances = (
        nearest(images, gallery.pixels, 1, device=gallery.device)[1][:, 0].numpy() for images in (heldout[:MAX_HELDOUT], generations.images)
    )
    kinds = pd.Series(distances).groupby(list(generations.kind), sort=False)
    values = {kind: mann_whitney_z(own.to_numpy(), reference) for kind, own in kinds if len(own) >= MIN_SAMPLES}
    about = {"caption": "", "seed": ALL_SEEDS, "measure": "z_u"}
    return pd.DataFrame([about | {"plant_id": WHOLE_MODEL[kind], "kind": kind, "value": value} for kind, value in values.items()])


def denoising_gap_rows(losses: pd.DataFrame) -> pd.DataFrame:
    """Rows denoising_gap and denoising_gap.t=N: mean denoising loss of held-out minus that of training images, at each noise level.

    losses: as `denoising_loss_rows` returns them. docs/methods.md#denoising-gap
    """
    own = losses[losses["measure"].str.startswith("denoising_loss")] if len(losses) else losses
    if not len(own) or own["kind"].nunique() < 2:
        return pd.DataFrame()
    means = own.groupby(["measure", "kind"])["value"].mean().unstack()
    gaps = (means["heldout"] - means["control"]).rename("value").reset_index()
    gaps["measure"] = gaps["measure"].str.replace("loss", "gap")
    return gaps.assign(plant_id=WHOLE_MODEL["control"], kind="control", caption="", seed=ALL_SEEDS)


def neighbor_rows(gallery: Gallery) -> pd.DataFrame:
    """One row: the number of other clusters that calibrate a distance, NUM_NEIGHBORS or all of a smaller set.

    Templates of local plants, which are further clusters in their own masks, are not counted.
    """
    count = min(NUM_NEIGHBORS, len(np.unique(gallery.clusters)) - 1)
    about = {"plant_id": WHOLE_MODEL["control"], "kind": "control", "caption": "", "seed": ALL_SEEDS}
    return pd.DataFrame([about | {"measure": NEIGHBORS, "value": float(count)}])
