"""The committed page follows from the committed rows, and its statistics agree with a slow computation."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

FINDINGS = Path(__file__).parents[2] / "docs" / "findings"


@pytest.fixture(scope="module")
def make(load_finding):
    return load_finding("localization")


def test_page_equals_the_committed_page(make) -> None:
    assert make.page() == (FINDINGS / "localization.md").read_text(encoding="utf-8")


def test_committed_runs_are_small() -> None:
    for run in filter(Path.is_dir, (FINDINGS / "localization").iterdir()):
        if (run / "config.yaml").exists():
            assert sum(file.stat().st_size for file in run.iterdir()) < 300_000
            assert {file.name for file in run.iterdir()} == {"config.yaml", "measurements.parquet", "emergence.json"}


def rows() -> pd.DataFrame:
    """One run with two local plants and two tints, two seeds each; map b is .1 better on local plants."""
    table = []
    for plant, kind in enumerate(("local", "local", "tint", "tint")):
        for seed in (0, 1):
            for name, value in (("a", 0.5 + 0.1 * plant), ("b", 0.6 + 0.1 * plant)):
                row = {"run": "r", "plant_id": plant, "kind": kind, "seed": seed, "measure": f"auc.{name}"}
                table.append(row | {"value": value + 0.02 * seed})
                if kind == "local":
                    table.append(row | {"measure": f"iou.{name}", "value": 0.3})
    return pd.DataFrame(table)


def test_differences_are_paired_by_plant(make) -> None:
    maps = make.map_rows(rows())
    assert len(maps) == 16 and maps["iou"].notna().sum() == 8
    difference = make.map_difference(maps, "b", "a")
    assert (difference.value, difference.low, difference.high) == pytest.approx((0.1, 0.1, 0.1))
    difference = make.kind_difference(maps, "a", "tint")
    assert difference.value == pytest.approx(np.mean([0.51, 0.61]) - np.mean([0.71, 0.81]))
    assert difference.low <= difference.value <= difference.high and make.verdict(difference) == "lower"


def test_split_by_size_compares_the_area_with_the_limit(make) -> None:
    areas = pd.Series({("r", 0): 0.2, ("r", 1): 0.4})
    areas.index.names = ["run", "plant_id"]
    split = make.split_by_size(make.map_rows(rows()), areas)
    assert dict(zip(split["plant_id"], split["kind"], strict=True)) == {0: "small", 1: "large"}
