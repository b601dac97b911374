"""The numbers of experiment E7 on rows whose result a loop or another library gives."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau

SCRIPT = Path(__file__).parents[2] / "scripts" / "coverage.py"


@pytest.fixture(scope="module")
def coverage() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(SCRIPT)))


@pytest.fixture
def table() -> pd.DataFrame:
    """Two groups of plants, of 4 and 16 copies; emergence without ties in either group."""
    random = np.random.default_rng(0)
    return pd.DataFrame({"copies": [4] * 5 + [16] * 6, "sparsity": random.normal(size=11), "calibrated": random.permutation(11) * 10.0})


def test_emergence_is_the_first_step_from_which_half_of_the_seeds_stay_below_the_limit(coverage) -> None:
    courses = {0: [2, 0.5, 2, 0.5, 0.5], 1: [2, 2, 2, 2, 2], 2: [0.5] * 5, 3: [2, 2, 2, 2, 0.5]}
    rows = [  # seed 1 is never below the limit
        {"plant_id": plant, "kind": "global", "step": step, "seed": seed, "measure": "calibrated_l2", "value": value + seed}
        for plant, course in courses.items() for step, value in enumerate(course) for seed in (0, 1)
    ]  # fmt: skip
    rows += [{"plant_id": 0, "kind": "global", "step": 0, "seed": -1, "measure": "calibrated_l2", "value": 0.0}]  # of all seeds: no sample
    assert coverage.emergence(pd.DataFrame(rows), "calibrated").to_dict() == {0: 3, 1: np.inf, 2: 0, 3: 4}


def test_concordance_counts_pairs_of_plants_with_the_same_number_of_copies(coverage, table) -> None:
    total = pairs = 0
    for i in range(len(table)):
        for j in range(i):
            if table["copies"][i] == table["copies"][j]:
                pairs += 1
                total += int(np.sign((table["sparsity"][i] - table["sparsity"][j]) * (table["calibrated"][i] - table["calibrated"][j])))
    assert coverage.concordance(table, "sparsity", "calibrated") == (total, pairs) and pairs == 10 + 15
    of_one = table[table["copies"] == 4]
    assert coverage.tau([of_one], "sparsity", "calibrated") == pytest.approx(kendalltau(of_one["sparsity"], of_one["calibrated"]).statistic)
    censored = of_one.assign(calibrated=np.inf)  # neither of two plants that never emerge is later
    assert coverage.concordance(censored, "sparsity", "calibrated") == (0, 10)


def test_shuffling_leaves_no_association(coverage, table, monkeypatch) -> None:
    monkeypatch.setitem(coverage.shuffled_taus.__globals__, "NUM_SHUFFLES", 50)
    sorted_table = table.assign(calibrated=table["sparsity"].rank())
    assert coverage.tau([sorted_table], "sparsity", "calibrated") == 1
    means = coverage.shuffled_taus([[sorted_table]], "calibrated")
    assert len(means) == 50 and abs(means.mean()) < 4 * means.std() / len(means) ** 0.5 and means.max() < 1


def test_neighborhoods_equal_a_loop_over_the_training_images(coverage) -> None:
    """Sparsity: mean distance to the nearest images, one of each cluster, none of the plant's own."""
    from afterglow.datasets.sources import load_images
    from afterglow.planting.planner import plant_images
    from afterglow.planting.plants import PlantingConfig

    images = load_images("openmoji", resolution=8, channels=3)
    options = PlantingConfig(num_global=2, num_local=0, num_decoys=0, num_tints=0, num_backgrounds=0, num_decoy_images=0, num_heldout=2)
    planted = plant_images(images, options, set_size=120, seed=0)
    found = coverage.neighborhoods(planted)
    for plant, row in zip(planted.of_kind("global"), found.itertuples(), strict=True):
        own = planted.pixels[plant.members[0]] / 255.0
        nearest: dict[int, float] = {}
        for other in planted.controls.tolist():
            cluster = int(planted.clusters[other])
            if cluster != plant.cluster:
                distance = float(np.sqrt(((planted.pixels[other] / 255.0 - own) ** 2).mean()))
                nearest[cluster] = min(distance, nearest.get(cluster, np.inf))
        for place in planted.of_kind("global"):
            if place.cluster != plant.cluster:
                distance = float(np.sqrt(((planted.pixels[place.members[0]] / 255.0 - own) ** 2).mean()))
                nearest[place.cluster] = min(distance, nearest.get(place.cluster, np.inf))
        assert row.sparsity == pytest.approx(np.mean(sorted(nearest.values())[: coverage.NUM_NEIGHBORS]), rel=1e-4)
        assert row.copies == plant.copies
