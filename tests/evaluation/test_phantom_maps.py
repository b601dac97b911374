"""Maps of generations that copy nothing, inside the regions of phantoms, on the closed-form optimal denoiser."""

import numpy as np
import torch

from afterglow.analysis.summary import plant_means
from afterglow.evaluation.build_requests import copyable_targets
from afterglow.evaluation.evaluate import evaluate
from afterglow.evaluation.phantom_maps import NUM_NEAREST, phantom_map_rows
from afterglow.evaluation.requests import UnconditionalRequest
from afterglow.functional.localization import map_auc
from afterglow.measures.maps import centered_gaussian
from afterglow.models.optimal import OptimalDenoiser
from afterglow.planting.datamodule import PlantedDataModule
from afterglow.planting.plants import PlantingConfig
from afterglow.planting.targets import unconditional_targets
from afterglow.sampling.loop import Sampler


def planted_data() -> PlantedDataModule:
    options = {"num_decoys": 0, "num_tints": 0, "num_decoy_images": 0, "num_heldout": 16, "shapes": ("quadrant", "rectangle", "blob")}
    planting = PlantingConfig(num_global=1, num_local=3, num_backgrounds=30, num_backgrounds_per_plant=4, copies=(20,), **options)
    module = PlantedDataModule(set_size=40, planting=planting)
    module.setup()
    return module


def check_nearest_clusters(result, gallery):
    """Each generation without a match has the cluster of the training image with the smallest squared difference."""
    rows = result.measurements[result.measurements["measure"] == "nearest_cluster"]
    own = [row for row, kind in enumerate(result.generations.kind) if kind == "unprompted"]
    images = result.generations.images[own].double().flatten(1)
    nearest = torch.cdist(images, torch.from_numpy(np.array(gallery.pixels)).double().flatten(1)).argmin(1)
    assert rows["plant_id"].tolist() == result.generations.plant_id[own].tolist() and (rows["kind"] == "unprompted").all()
    assert rows["value"].tolist() == np.asarray(gallery.clusters)[nearest.numpy()].tolist()
    assert "nearest_cluster" not in set(plant_means(result.measurements)["measure"])


def test_maps_are_compared_with_the_regions_of_phantoms():
    data = planted_data()
    model = OptimalDenoiser(data.samples.images(data.samples.keys(range(data.samples.epoch_length))).numpy())
    candidates, gallery, patterns = copyable_targets(data.planted), data.planted.gallery(), ("memorized", "centered_gaussian", "luminance")
    targets = unconditional_targets(data.planted, 48)
    request = UnconditionalRequest(targets=targets, candidates=candidates, gallery=gallery, append=True)
    result = evaluate(model, request, Sampler(steps=12), patterns)
    generations = result.generations
    check_nearest_clusters(result, gallery)
    rows = phantom_map_rows(generations, candidates, gallery, patterns)
    phantoms = {target.plant_id: target for target in candidates if target.kind == "phantom" and not target.mask.all()}
    assert set(rows["kind"]) == {"phantom"} and set(rows["plant_id"]) == set(phantoms) and len(phantoms) == 3
    assert (rows.groupby(["plant_id", "measure"]).size() == NUM_NEAREST).all() and rows["measure"].nunique() == 2
    for number, target in phantoms.items():  # the center of the image is known without a generation
        expected = map_auc(centered_gaussian(generations[:1]), torch.from_numpy(target.mask)[None])
        found = rows[(rows["plant_id"] == number) & (rows["measure"] == "auc.centered_gaussian")]["value"]
        np.testing.assert_allclose(found, expected.item(), atol=1e-6)
    copied = generations[[row for row, kind in enumerate(generations.kind) if kind != "unprompted"]].seed.tolist()
    assert copied and not set(rows["seed"]) & set(copied)
    assert phantom_map_rows(generations, candidates, gallery, ("memorized",)).empty
