import statistics

import pandas as pd
import pytest
import torch

from afterglow.generations import Generations
from afterglow.measures.tables import write_measurements
from afterglow.measures.update_norm import MIN_ORDINARY, ordinary_norms, update_deviation, with_update_region

NORMS = torch.rand(12, 5, generator=torch.Generator().manual_seed(0))
KIND = ("heldout",) * 10 + ("global", "phantom")


def expected(row, heldout):
    """The largest distance to the mean in standard deviations, by plain loops."""
    columns = [[float(NORMS[other, step]) for other in heldout] for step in range(5)]
    return max(abs(float(NORMS[row, step]) - statistics.mean(c)) / statistics.stdev(c) for step, c in enumerate(columns))


def test_update_deviation_is_the_largest_z_score_over_the_held_out_captions(make_generations):
    generations = make_generations(12, kind=KIND, extras={"update_norms": NORMS})
    found = update_deviation(with_update_region(generations, ordinary_norms([generations])))
    assert found.tolist() == pytest.approx([expected(row, range(10)) for row in range(12)], rel=1e-4)


def test_too_few_held_out_generations_give_no_number(make_generations):
    few = make_generations(12, kind=("heldout",) * (MIN_ORDINARY - 1) + ("local",) * (13 - MIN_ORDINARY), extras={"update_norms": NORMS})
    assert update_deviation(with_update_region(few, ordinary_norms([few]))).isnan().all()


def test_a_collection_takes_its_region_from_all_of_its_parts(make_generations, tmp_path):
    whole: Generations = make_generations(12, kind=KIND, extras={"update_norms": NORMS}, provenance={"layers": [], "sink": "bos"})
    for number, rows in enumerate((slice(8, 12), slice(0, 8))):  # the plants come first, without enough held-out captions beside them
        whole[rows].save(tmp_path / "runs" / f"part={number}")
    write_measurements([tmp_path / "runs"], tmp_path / "m.parquet", ["update_deviation"])
    rows = pd.read_parquet(tmp_path / "m.parquet")
    rows = rows[rows["measure"] == "update_deviation"].set_index("plant_id")["value"]
    assert rows.sort_index().tolist() == pytest.approx([expected(row, range(10)) for row in range(12)], rel=1e-4)
