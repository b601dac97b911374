"""The committed page comes out of the committed rows, and what it says is what these hold."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from afterglow.callbacks.early_stop import EarlyStop
from afterglow.reports import emergence_figures
from afterglow.reports.emergence_page import STOPS, controls_text, emergence_page, fired_at, keep_emergence, stops_text

FINDINGS = Path(__file__).parents[2] / "docs" / "findings"


def test_the_committed_page_comes_out_of_the_committed_rows(monkeypatch):
    monkeypatch.setattr(emergence_figures, "NUM_BANDS", 2)  # of the figures, which are not compared
    text, figures = emergence_page(FINDINGS / "emergence")
    assert text == (FINDINGS / "emergence.md").read_text(encoding="utf-8")
    assert all((FINDINGS / "emergence" / f"{name}.png").is_file() for name in figures)


def test_what_is_kept_of_a_run_is_small_and_says_the_same(tmp_path, write_run):
    run = write_run(tmp_path / "runs" / "halves-1", half=0)
    with pytest.raises(ValueError, match="is no finished run"):
        keep_emergence(run, tmp_path / "kept")
    (run / "emergence.json").write_text("{}")
    assert keep_emergence(run, tmp_path / "kept") < 60_000
    rows, kept = (pd.read_parquet(folder / "measurements.parquet") for folder in (run, tmp_path / "kept" / "halves-1"))
    assert len(kept) == len(rows) and set(kept["measure"]) == set(rows["measure"])
    for folder in (FINDINGS / "emergence").glob("*/measurements.parquet"):
        assert sum(file.stat().st_size for file in folder.parent.rglob("*") if file.is_file()) < 100_000


def test_the_indicator_fires_when_it_stays_above_phantoms():
    values = {10: (0.1, 0.5), 20: (0.9, 0.1), 30: (0.1, 0.2), 40: (0.8, 0.1), 50: (0.9, 0.0)}
    rows = pd.DataFrame(
        [
            {"step": step, "kind": kind, "value": value}
            for step, pair in values.items()
            for kind, value in zip(("local", "phantom"), pair, strict=True)
        ]
    )
    assert fired_at(rows, "local") == 40  # at 20 it had not stayed
    assert np.isinf(fired_at(rows.assign(value=0.0), "local"))


def test_a_limit_is_passed_so_many_probes_before_a_plant_is_memorized(tmp_path):
    assert next(iter(STOPS.values())) == EarlyStop().threshold
    about = {"epoch": 0.0, "seconds": 0.0, "caption": "a", "seed": -1}
    rows = []
    for step in range(5):  # a plant passes 1/2 ln 2 at step 1 and ln 2 at step 4, a phantom the first at step 2; memorized at step 3
        for kind, value in (("global", 0.15 * step + 0.2), ("phantom", 0.15 * step + 0.1)):
            rows.append(about | {"step": step, "plant_id": 0, "kind": kind, "measure": "denoising_log_ratio.inside", "value": value})
        rows.append(about | {"step": step, "plant_id": 0, "kind": "global", "measure": "plant_memorized", "value": float(step > 2)})
    pd.DataFrame(rows).to_parquet(tmp_path / "measurements.parquet")
    half, whole = (line.split("|")[2:5] for line in stops_text([tmp_path]).splitlines()[2:])
    assert [cell.strip() for cell in half] == ["1 of 1", "2 to 2", "1 of 1"]
    assert [cell.strip() for cell in whole] == ["0 of 1", "-1 to -1", "0 of 1"]


def test_controls_are_counted_from_the_kept_tables(tmp_path):
    (tmp_path / "own").mkdir()
    table = pd.DataFrame({"generation": range(4), "calibrated_l2": [0.5, 0.9, 1.2, 2.0], "ratio": [0.1, 0.5, np.nan, 0.9]})
    table.to_parquet(tmp_path / "own" / "extract.parquet")
    plants = pd.DataFrame({"plant_id": [0, 1, 2], "kind": ["global", "local", "phantom"], "generations": [3, 0, 0]})
    plants.to_parquet(tmp_path / "own" / "plants.parquet")
    text = controls_text(tmp_path)
    assert "2 of 4 (15% to 85%)" in text and "1 of 4" in text and "1 of 1 " in text and text.count("0 of 1") == 2
