"""Runs beside their twins without a mitigation, made by hand."""

import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from afterglow.reports.paired_runs import beside, named, read_twins, twins_figure, twins_text


def test_what_a_remedy_delays_and_costs(tmp_path: Path, write_run) -> None:
    factors = {"none": 1.0, "drop": 2.0}  # of the exposures after which local plants emerge
    folders = [write_run(tmp_path / f"mitigations-{name}-{seed}", seed=seed, factor=f) for seed in (0, 1) for name, f in factors.items()]
    twins = read_twins(named(folders))
    assert twins.mitigations == ["none", "drop"] and twins.seeds("drop") == [0, 1]
    late, same = twins.delay("drop", "local"), twins.delay("drop", "global")
    assert late is not None and late.value == pytest.approx(np.log(2), abs=0.1)
    assert same is not None and same.value == pytest.approx(0, abs=0.02)
    assert twins.heldout("drop").value == pytest.approx(1.0)
    text = twins_text(twins)
    assert "drop" in text and "1.00x [1.00, 1.00]" in text
    assert [axes.get_title() for axes in twins_figure(twins).axes][:2] == ["global: share memorized", "local: share memorized"]


def test_a_training_that_its_remedy_ended_has_no_delay(tmp_path: Path, write_run) -> None:
    whole, stopped = (write_run(tmp_path / f"mitigations-{name}-0") for name in ("none", "stop"))
    rows = pd.read_parquet(stopped / "measurements.parquet")
    steps = sorted(rows["step"].unique())
    rows[rows["step"] <= steps[-5]].to_parquet(stopped / "measurements.parquet")
    twins = read_twins(named([whole, stopped]))
    assert (twins.ended("stop"), twins.ended("none", "stop")) == ([steps[-5]], [steps[-1]])
    assert twins.last("stop", "global") == (2, 2) and twins.delay("stop", "global") is None
    assert twins.heldout("stop").low > 1  # the loss of an unfinished training


def test_a_run_without_a_twin_is_named(tmp_path: Path, write_run) -> None:
    with pytest.raises(ValueError, match="mitigations-drop-0' has no twin"):
        read_twins(named([write_run(tmp_path / "mitigations-drop-0", seed=0)]))
    with pytest.raises(ValueError, match="is not called mitigations-NAME-SEED"):
        named([write_run(tmp_path / "other-0", seed=0)])


def test_the_command_prints_and_writes_the_table_and_the_curves(tmp_path: Path, write_run, monkeypatch, capsys) -> None:
    plain, dropped = write_run(tmp_path / "plain"), write_run(tmp_path / "dropped", factor=2.0)
    out = tmp_path / "out"
    monkeypatch.setattr("sys.argv", ["remedy_twins.py", "--without", str(plain), "--treated", str(dropped), "--out", str(out)])
    runpy.run_path(str(Path(__file__).parents[2] / "analysis/remedy_twins.py"), run_name="__main__")
    table = (out / "mitigations.md").read_text()
    assert table in capsys.readouterr().out and "| dropped | 1" in table
    assert sorted(path.name for path in out.iterdir()) == ["mitigations.md", "training.png", "training.svg"]
    numbers = read_twins(beside([plain], [dropped])).numbers()
    assert numbers["mitigations/dropped/local_memorized"] == 1 and numbers["mitigations/dropped/heldout_loss_ratio"] == pytest.approx(1)


def test_any_runs_are_paired_by_their_seeds(tmp_path: Path, write_run) -> None:
    plain, again = (write_run(tmp_path / f"run{seed}", seed=seed) for seed in (0, 1))
    dropped = write_run(tmp_path / "drop-0", seed=0, factor=2.0)
    runs = beside([plain, again], [dropped])
    assert runs == {("none", 0): plain, ("none", 1): again, ("drop", 0): dropped}
    late = read_twins(runs).delay("drop", "local")
    assert late is not None and late.value == pytest.approx(np.log(2), abs=0.1)
    with pytest.raises(ValueError, match="'.*drop-0' has no twin: of the runs without a mitigation none has seed 0"):
        read_twins(beside([again], [dropped]))
    with pytest.raises(ValueError, match="are both without a mitigation, and of seed 0"):
        beside([plain, plain], [])
    with pytest.raises(ValueError, match="There is no run in '.*nowhere': config.yaml is missing"):
        beside([tmp_path / "nowhere"], [])
