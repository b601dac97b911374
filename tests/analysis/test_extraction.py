import numpy as np
import pandas as pd
import pytest
import torch

from afterglow.analysis.extraction import (
    Fraction,
    calibrated_limit,
    distinct_curve,
    fractions,
    generation_rows,
    tile_calibrated_l2,
    tile_limit,
    write_generations,
)
from afterglow.generations import Generations, Neighbors


def generations(seeds):
    """Generations that are gray 10 levels from a black training image, 100 from all others."""
    count = len(seeds)
    near = torch.tensor([10 / 255, *[100 / 255] * 50]).expand(count, 51)
    return Generations(
        torch.full((count, 3, 4, 4), 10, dtype=torch.uint8),
        ("",) * count,
        torch.tensor(seeds),
        torch.arange(2),
        kind=("unprompted",) * count,
        shape=("whole",) * count,
        plant_id=torch.tensor(seeds),
        references=torch.zeros(count, 3, 4, 4, dtype=torch.uint8),
        eval_mask=torch.ones(count, 1, 4, 4, dtype=torch.bool),
        region=torch.ones(count, 1, 4, 4, dtype=torch.bool),
        neighbors=Neighbors(torch.arange(51).expand(count, 51), near),
        extras={
            "nearest_row": torch.tensor([4] * count),
            "tile_rows": torch.tensor([[4, 6]] * count),
            "tile_clusters": torch.tensor([[0, 3]] * count),
            "tile_distance": torch.tensor([[10 / 255, 2 / 255]] * count),
            "tile_other": torch.tensor([[100 / 255, 80 / 255]] * count),
            "tile_own_other": torch.tensor([[90 / 255, 50 / 255]] * count),
            "tile_contrast": torch.tensor([[60 / 255, 60 / 255]] * count),
            "similarity": torch.tensor(seeds) / 10,
            "similar_row": torch.tensor([4] * count),
        },
    )


def test_calibrated_distance_by_hand():
    terms = torch.tensor([0.1, 0.3, 0.2, 0.4])
    for order in ([0, 1, 2, 3], [0, 2, 1, 3], [0, 3, 1, 2]):  # the smallest of the three calibrates
        assert tile_calibrated_l2(*terms[order]).item() == pytest.approx(0.1 / (0.5 * 0.2))
    for blank in ([0.0, 0.001, 0.5, 0.5], [0.0, 0.5, 0.001, 0.5], [0.0, 0.5, 0.5, 0.001]):  # shared by two clusters, or of one color
        assert tile_calibrated_l2(*torch.tensor(blank)).isinf().item()
    assert tile_calibrated_l2(*torch.tensor([0.1, torch.inf, torch.inf, 0.4])).item() == pytest.approx(0.5)  # no other cluster


def test_limit_of_tiles_leaves_at_most_a_hundredth_of_the_choosing_half_below():
    draws = np.random.default_rng(1).uniform(0, 3, (400, 400))
    assert np.mean([(draw[1::2] < calibrated_limit(draw)).mean() for draw in draws]) == pytest.approx(2 / 201, rel=0.1)
    values = np.random.default_rng(0).uniform(0, 3, 500)
    limit = calibrated_limit(values)
    assert (values[::2] < limit).sum() == 1 and limit < 1
    assert limit == calibrated_limit(np.where(np.arange(500) % 2, 0.0, values))  # the half that tests plays no part
    assert calibrated_limit(np.full(40, 2.0)) == 1 and calibrated_limit(np.zeros(0)) == 1


def test_one_row_a_generation_and_the_file_is_made_part_by_part(tmp_path):
    row = generation_rows(generations([5]), 7).iloc[0]
    assert row["generation"] == 7 and row["seed"] == 5 and row["cluster"] == 0 and row["row"] == 4
    assert row["calibrated_l2"] == pytest.approx(0.2) and row["nn_ratio"] == pytest.approx(0.1)
    assert (
        row["tile"] == 1 and row["tile_calibrated_l2"] == pytest.approx(2 / (0.5 * 50)) and (row["tile_cluster"], row["tile_row"]) == (3, 6)
    )
    for number, seeds in enumerate(([0, 1, 2], [3, 4])):
        generations(seeds).save(tmp_path / f"part={number:05d}")
    table = write_generations(sorted(tmp_path.glob("part=*")), tmp_path / "extract.parquet")
    assert table["generation"].tolist() == table["seed"].tolist() == [0, 1, 2, 3, 4] and not list(tmp_path.glob("*.unfinished"))
    assert set(pd.read_parquet(tmp_path / "extract.parquet")) == {*table, "caption"}


def test_distinct_groups_are_counted_once():
    clusters, extracted = np.array([3, 3, 5, 8, 5, 3]), np.array([0, 1, 1, 0, 1, 1], bool)
    wanted = [len({g for g, e in zip(clusters[:n], extracted[:n], strict=True) if e}) for n in range(1, 7)]
    assert distinct_curve(clusters, extracted).tolist() == wanted == [0, 1, 2, 2, 2, 2]
    assert distinct_curve(clusters, np.zeros(6, bool)).tolist() == [0] * 6


def test_fractions_by_hand():
    table = pd.DataFrame(
        {
            "calibrated_l2": [0.5, 1.2, 2.0, 0.9],
            "cluster": [1, 2, 3, 1],
            "tile_calibrated_l2": [0.1, 0.2, 1.3, np.inf],
            "tile_cluster": [1, 2, 2, 9],
            "similarity": [0.99, 0.2, 0.3, 0.95],
            "nn_ratio": [0.2, 0.5, np.nan, 1 / 3],
            "plant": [7, -1, -1, 2],
        }
    )
    found = fractions(table, np.linspace(0, 1, 101))
    assert [part.key for part in found] == ["extracted", "extracted_loosely", "close", "similar"]  # no tiles without unseen images
    assert [(part.count, part.distinct, part.unseen) for part in found] == [
        (n, d, None) for n, d in zip((2, 3, 1, 1), (1, 2, 1, None), strict=False)
    ]
    assert "0.950" in found[-1].name and found[0].total == 4
    assert Fraction("x", "x", 0, 10).interval[1] > 0.2
    unseen = pd.concat([table] * 50, ignore_index=True).assign(similarity=0.1, tile_calibrated_l2=[0.15, 0.12, *[3.0] * 198])
    found = {part.key: part for part in fractions(table, np.linspace(0, 1, 101), {7: "local"}, unseen)}
    # every second row from row 0 chooses the limit .15, the others test it
    assert found["tile"].name.endswith("under 0.15") and (found["tile"].count, found["tile"].unseen) == (1, (1, 100))
    assert found["extracted"].unseen == (100, 200) and found["similar"].unseen == (0, 200)
    assert (found["captured_local"].count, found["captured_local"].unseen) == (1, (50, 200))


def test_tiles_have_no_limit_where_its_false_positive_rate_would_exceed_a_hundredth():
    values = pd.DataFrame({"tile_calibrated_l2": np.random.default_rng(0).uniform(0, 3, 197)})
    assert tile_limit(None) is None and tile_limit(values[:196]) is None  # 98 choose: 1/99 is more than 1 %
    assert tile_limit(values) == values["tile_calibrated_l2"][::2].min()
