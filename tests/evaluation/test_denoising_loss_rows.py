"""The rows of losses and advantages, on a model whose errors are known."""

import pytest
import torch

from afterglow.analysis.summary import ALL_SEEDS
from afterglow.datasets.openmoji import load_openmoji
from afterglow.evaluation.denoising_loss_rows import NUM_TIMES, denoising_loss_rows
from afterglow.models.optimal import OptimalDenoiser
from afterglow.planting.planner import plant_images
from afterglow.planting.plants import PlantingConfig


@pytest.fixture(scope="module")
def planted():
    options = {
        "num_global": 2,
        "num_local": 2,
        "num_decoys": 1,
        "num_tints": 1,
        "copies": (4,),
        "num_backgrounds": 20,
        "num_decoy_images": 20,
    }
    return plant_images(load_openmoji(16), PlantingConfig(**options, num_heldout=12), set_size=40)


def test_the_optimal_denoiser_of_some_images_knows_these_and_no_others(planted):
    known = [p for p in planted.of_kind("global")]
    model = OptimalDenoiser(planted.pixels[[p.members[0] for p in known]])
    rows = denoising_loss_rows(model, planted, batch_size=7)
    inside = rows[rows["measure"] == "denoising_log_ratio.inside"].set_index("plant_id")["value"]
    assert (inside[[p.plant_id for p in known]] > 3).all()  # the error is all but nothing: e^3 times less
    phantoms = [p.plant_id for p in planted.of_kind("phantom")]
    assert inside[phantoms].abs().max() < 1 and set(inside.index) >= set(phantoms)
    assert (rows["seed"] == ALL_SEEDS).all() and rows["value"].notna().all()


def test_every_time_has_a_row_and_the_mean_stands_beside_them(planted):
    rows = denoising_loss_rows(OptimalDenoiser(planted.pixels[:3]), planted, batch_size=64)
    for name, kinds in (
        ("denoising_loss", {"heldout", "control"}),
        ("denoising_log_ratio.inside", {"global", "local", "phantom", "control"}),
    ):
        some = rows[rows["measure"].str.startswith(name)]
        assert set(some["kind"]) == kinds
        each = some[some["measure"] != name].groupby("plant_id")["value"]
        assert (each.count() == NUM_TIMES).all()
        means = some[some["measure"] == name].set_index("plant_id")["value"]
        assert torch.allclose(torch.tensor(each.mean()[means.index].to_numpy()), torch.tensor(means.to_numpy()), rtol=1e-4, atol=1e-4)
    outside = rows[rows["measure"] == "denoising_log_ratio.outside"]
    assert set(outside["kind"]) == {"local", "phantom"} and len(outside) == 4  # only regions have an outside


def test_a_set_without_held_out_images_has_losses_of_its_own_images_alone():
    nothing = dict.fromkeys(("num_global", "num_local", "num_decoys", "num_tints", "num_backgrounds", "num_decoy_images", "num_heldout"), 0)
    bare = plant_images(load_openmoji(16), PlantingConfig(**nothing), set_size=12)
    rows = denoising_loss_rows(OptimalDenoiser(bare.pixels), bare, batch_size=64)
    assert set(rows["measure"].str.partition("=")[0]) == {"denoising_loss", "denoising_loss.t"} and set(rows["kind"]) == {"control"}
