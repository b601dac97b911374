"""Runs with a known delay beside baselines."""

import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from afterglow.reports.paired_runs import pair_by_seed, paired_runs_figure, paired_runs_text


def test_paired_runs_recover_delay_and_loss(tmp_path: Path, write_run) -> None:
    baselines = [write_run(tmp_path / f"run{seed}", seed=seed) for seed in (0, 1)]
    mitigated = [write_run(tmp_path / f"drop-{seed}", seed=seed, factor=2.0) for seed in (0, 1)]  # twice as many exposures
    paired = pair_by_seed(baselines, mitigated)
    assert paired.mitigations == ["none", "drop"] and paired.seeds("drop") == [0, 1]
    local, whole = paired.delay("drop", "local"), paired.delay("drop", "global")
    assert local is not None and local.value == pytest.approx(np.log(2), abs=0.1)
    assert whole is not None and whole.value == pytest.approx(0, abs=0.02)
    assert paired.heldout_loss_ratio("drop").value == pytest.approx(1.0) and paired.seed_loss_ratios("drop") == pytest.approx([1.0, 1.0])
    assert np.mean(paired.seed_delays("drop", "local")) == pytest.approx(local.value) and len(paired.seed_counts("drop", "local")) == 2
    text = paired_runs_text(paired)
    assert "| drop " in text and "1.00x [1.00, 1.00]" in text
    titles = [axes.get_title() for axes in paired_runs_figure(paired).axes]
    assert titles[:2] == ["global: memorized fraction", "local: memorized fraction"]


def test_delay_of_a_run_that_stopped_early_is_absent(tmp_path: Path, write_run) -> None:
    whole, stopped = write_run(tmp_path / "run"), write_run(tmp_path / "stop")
    rows = pd.read_parquet(stopped / "measurements.parquet")
    steps = sorted(rows["step"].unique())
    rows[rows["step"] <= steps[-5]].to_parquet(stopped / "measurements.parquet")
    paired = pair_by_seed([whole], [stopped])
    assert (paired.last_steps("stop"), paired.last_steps("none", "stop")) == ([steps[-5]], [steps[-1]])
    assert paired.last_counts("stop", "global") == (2, 2) and paired.delay("stop", "global") is None
    assert paired.heldout_loss_ratio("stop").low > 1  # the loss of an unfinished training


def test_command_prints_and_writes_table_and_curves(tmp_path: Path, write_run, monkeypatch, capsys) -> None:
    plain, dropped = write_run(tmp_path / "plain"), write_run(tmp_path / "dropped", factor=2.0)
    out = tmp_path / "out"
    monkeypatch.setattr("sys.argv", ["paired_runs.py", "--baseline", str(plain), "--mitigated", str(dropped), "--out", str(out)])
    runpy.run_path(str(Path(__file__).parents[2] / "analysis/paired_runs.py"), run_name="__main__")
    table = (out / "mitigations.md").read_text()
    assert table in capsys.readouterr().out and "| dropped    | 1 " in table
    assert sorted(path.name for path in out.iterdir()) == ["mitigations.md", "training.png", "training.svg"]
    numbers = pair_by_seed([plain], [dropped]).numbers()
    assert numbers["mitigation/dropped/local_memorized"] == 1 and numbers["mitigation/dropped/heldout_loss_ratio"] == pytest.approx(1)


def test_pair_by_seed_refuses_runs_without_a_pair(tmp_path: Path, write_run) -> None:
    plain, other = (write_run(tmp_path / f"run{seed}", seed=seed) for seed in (0, 1))
    dropped = write_run(tmp_path / "drop-0", seed=0, factor=2.0)
    with pytest.raises(ValueError, match="'.*drop-0' has no baseline: no run without a mitigation has seed 0"):
        pair_by_seed([other], [dropped])
    with pytest.raises(ValueError, match="are both 'none' with seed 0"):
        pair_by_seed([plain, plain], [])
    with pytest.raises(ValueError, match="nowhere' is not a run: config.yaml is missing"):
        pair_by_seed([tmp_path / "nowhere"], [])
