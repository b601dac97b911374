"""The finding's page: the committed one comes out of the committed rows, and its numbers are those of a slow reckoning."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from afterglow.reports.localization_page import keep_run, kind_difference, localization_page, map_rows, paired, runs_of

FINDINGS = Path(__file__).parents[2] / "docs" / "findings"


def test_the_committed_page_comes_out_of_the_committed_rows():
    assert localization_page(FINDINGS / "data") == (FINDINGS / "localization.md").read_text(encoding="utf-8")


def test_what_is_kept_of_a_run_is_small():
    for run in (FINDINGS / "data").iterdir():
        assert sum(file.stat().st_size for file in run.iterdir()) < 300_000
        assert {file.name for file in run.iterdir()} == {"config.yaml", "measurements.parquet", "emergence.json"}


def rows():
    """One run with two local plants and two tints, two seeds each; map b is .1 better on local plants."""
    found = []
    for plant, kind in enumerate(("local", "local", "tint", "tint")):
        for seed in (0, 1):
            for name, value in (("a", 0.5 + 0.1 * plant), ("b", 0.6 + 0.1 * plant)):
                about = {"run": "r", "plant_id": plant, "kind": kind, "seed": seed, "measure": f"auc.{name}"}
                found.append(about | {"value": value + 0.02 * seed})
                if kind == "local":
                    found.append(about | {"measure": f"iou.{name}", "value": 0.3})
    return pd.DataFrame(found)


def test_maps_are_compared_on_the_same_plants():
    located = map_rows(rows())
    assert len(located) == 16 and located["iou"].notna().sum() == 8
    value, low, high = paired(located, "b", "a")
    assert (value, low, high) == pytest.approx((0.1, 0.1, 0.1))
    value, low, high = kind_difference(located, "a", "tint")
    assert value == pytest.approx(np.mean([0.51, 0.61]) - np.mean([0.71, 0.81])) and low <= value <= high


def test_only_finished_runs_are_kept_and_no_run_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="is no finished run"):
        keep_run(tmp_path, tmp_path / "data")
    with pytest.raises(ValueError, match="No run was kept"):
        runs_of(tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    for name, size in (("config.yaml", 10), ("emergence.json", 10), ("measurements.parquet", 400_000)):
        (run / name).write_bytes(b"x" * size)
    with pytest.raises(ValueError, match="holds 400 kB of numbers"):
        keep_run(run, tmp_path / "data")
    (run / "measurements.parquet").write_bytes(b"x" * 1000)
    assert keep_run(run, tmp_path / "data") == 1020 and (tmp_path / "data/run/measurements.parquet").exists()
