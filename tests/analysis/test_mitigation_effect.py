from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from afterglow.analysis.mitigation_effect import (
    PIXELS,
    images_only,
    mitigation_rows,
    mitigation_table,
    number_row,
    plant_effect_rows,
)
from afterglow.functional.features import pixel_features
from afterglow.functional.statistics import wilson_interval
from afterglow.generations import Generations, Neighbors


@pytest.fixture
def generations():
    """Four seeds each of a global plant copied exactly, a local one copied in its left half, and two of a held-out caption."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (10, 3, 8, 8), generator=generator, dtype=torch.uint8)
    references = images.clone()
    images[4:8, :, :, 4:] = torch.randint(256, (4, 3, 8, 4), generator=generator, dtype=torch.uint8)
    images[8:] = 255 - references[8:]
    mask = torch.ones(10, 1, 8, 8, dtype=torch.bool)
    mask[4:8, :, :, 4:] = False
    near = Neighbors(torch.arange(3).expand(10, 3), torch.full((10, 3), 0.3))
    return Generations(
        images=images, caption=("a",) * 10, seed=torch.arange(10) % 4, timesteps=torch.tensor([1]),
        kind=("global",) * 4 + ("local",) * 4 + ("heldout",) * 2, plant_id=torch.tensor([0] * 4 + [1] * 4 + [7] * 2),
        references=references, eval_mask=mask, neighbors=near, guidance=torch.ones(1, 10, 1, 2, 2), guidance_rms=torch.ones(1, 10),
        extras={
            "background_spread": torch.full((10,), 0.29), "background_distance": torch.full((10,), torch.inf),
            "cost.seconds": torch.full((10,), 2.0), "mitigation.diverged": torch.tensor([1.0] * 4 + [0.0] * 6), "features": torch.randn(10, 3),  # noqa: E501
        },
    )  # fmt: skip


def test_plants_inside_and_outside_their_masks(generations):
    rows = plant_effect_rows(generations)
    value = rows[rows["kind"] != "all"].set_index(["kind", "measure"])["value"]
    assert value["global", "memorized"] == value["local", "memorized"] == 1 and value["local", "local_to_global"] == 0
    assert value["local", "distance.inside"] == 0 and value["local", "correlation.inside"] == pytest.approx(1)
    outside = generations.images[4:8, :, :, 4:].float() - generations.references[4:8, :, :, 4:].float()
    expected = (outside / 255).square().flatten(1).mean(1).sqrt().mean()
    assert (
        value["local", "distance.outside"] == pytest.approx(float(expected), rel=1e-5) and abs(value["local", "correlation.outside"]) < 0.2
    )
    assert ("global", "distance.outside") not in value and value["global", "mitigation.diverged"] == 1
    assert set(rows[rows["kind"] == "heldout"]["measure"]) == {"distance.training"}
    assert list(rows[rows["measure"] == "cost.seconds"]["kind"]) == ["all"] * 3 and (rows[rows["kind"] == "all"]["value"] == 2).all()


def test_what_cannot_be_measured_is_absent(generations):
    bare = Generations(
        generations.images[:2], ("a", "b"), torch.zeros(2), torch.tensor([1]), kind=("prompt",) * 2, plant_id=torch.arange(2)
    )
    assert len(plant_effect_rows(bare)) == 0
    slim = images_only(generations)
    assert slim.guidance is None and slim.references is not None


def test_fractions_have_wilson_intervals_and_changes_are_paired_by_plant():
    about = {"kind": "global", "measure": "memorized"}
    before = [about | {"mitigation": "none", "strength": 0.0, "plant_id": n, "value": 1.0} for n in range(8)]
    after = [about | {"mitigation": "stp", "strength": 500.0, "plant_id": n, "value": float(n == 0)} for n in range(8)]
    table = mitigation_table(pd.concat([pd.DataFrame(before + after), number_row("stp", 500.0, "cost.gflops", 3.0)])).set_index(
        "mitigation"
    )
    none, found = table.loc["none"], table.loc["stp"].iloc[0]
    assert none["value"] == 1 and (none["low"], none["high"]) == pytest.approx(wilson_interval(8, 8)) and none["change"] == 0
    assert found["value"] == 1 / 8 and found["change"] == -7 / 8 and found["change_low"] <= -7 / 8 <= found["change_high"] < 0
    assert found["plants"] == 8 and np.isnan(table.loc["stp"].iloc[1]["change"])


def test_controls_of_natural_families_are_counted_apart(generations):
    controls = generations[[0, 1, 2, 3]]
    controls = replace(controls, kind=("control",) * 4, plant_id=torch.tensor([8, 8, 9, 9]))
    rows = plant_effect_rows(controls.with_extras(cluster_size=torch.tensor([1, 1, 5, 5]))).assign(mitigation="none", strength=0.0)
    table = mitigation_table(rows)
    counts = table[table["measure"] == "memorized"].set_index("kind")["plants"].to_dict()
    assert counts == {"control": 1, "control_family": 1} and "cluster_size" not in set(table["measure"])


def test_rows_of_a_collection_with_distances_of_named_features(generations):
    real = torch.randint(256, (5, 3, 8, 8), dtype=torch.uint8)
    rows = mitigation_rows("stp", 1.0, [generations], {PIXELS: pixel_features(real), "dino": torch.randn(5, 3)})
    assert {"frechet.pixels4", "frechet.dino"} <= set(rows["measure"]) and set(rows["mitigation"]) == {"stp"}
    assert pixel_features(real).shape == (5, 48) and pixel_features(real)[0, 0] == pytest.approx(
        float(real[0, 0, :2, :2].float().mean() / 255)
    )
    few = mitigation_rows("stp", 1.0, [generations[[8]]], {PIXELS: pixel_features(real)})
    assert not any(name.startswith("frechet") for name in few["measure"])
