"""Runs beside their twins without a remedy, made by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from afterglow.report.remedy_twins import read_twins, twins_figure, twins_text


def test_what_a_remedy_delays_and_costs(tmp_path: Path, write_run) -> None:
    factors = {"none": 1.0, "drop": 2.0}  # of the exposures after which local plants emerge
    folders = [write_run(tmp_path / f"remedies-{name}-{seed}", seed=seed, factor=f) for seed in (0, 1) for name, f in factors.items()]
    twins = read_twins(folders)
    assert twins.remedies == ["none", "drop"] and twins.seeds("drop") == [0, 1]
    late, same = twins.delay("drop", "local"), twins.delay("drop", "global")
    assert late is not None and late.value == pytest.approx(np.log(2), abs=0.1)
    assert same is not None and same.value == pytest.approx(0, abs=0.02)
    assert twins.heldout("drop").value == pytest.approx(1.0)
    text = twins_text(twins)
    assert "drop" in text and "1.00x [1.00, 1.00]" in text
    assert [axes.get_title() for axes in twins_figure(twins).axes][:2] == ["global: share memorized", "local: share memorized"]


def test_a_training_that_its_remedy_ended_has_no_delay(tmp_path: Path, write_run) -> None:
    whole, stopped = (write_run(tmp_path / f"remedies-{name}-0") for name in ("none", "stop"))
    rows = pd.read_parquet(stopped / "probes.parquet")
    steps = sorted(rows["step"].unique())
    rows[rows["step"] <= steps[-5]].to_parquet(stopped / "probes.parquet")
    twins = read_twins([whole, stopped])
    assert (twins.ended("stop"), twins.ended("none", "stop")) == ([steps[-5]], [steps[-1]])
    assert twins.last("stop", "global") == (2, 2) and twins.delay("stop", "global") is None
    assert twins.heldout("stop").low > 1  # the loss of an unfinished training


def test_a_run_without_a_twin_is_named(tmp_path: Path, write_run) -> None:
    with pytest.raises(ValueError, match="'remedies-drop-0' has no twin"):
        read_twins([write_run(tmp_path / "remedies-drop-0", seed=0)])
    with pytest.raises(ValueError, match="is not called remedies-NAME-SEED"):
        read_twins([write_run(tmp_path / "other-0", seed=0)])
