"""Many runs as tables, against what they were written from."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml

from afterglow.reports.runs import read_runs


def test_read_runs_recovers_the_settings_of_the_runs(tmp_path, write_run):
    found = read_runs([write_run(tmp_path / f"r{n}", n=n) for n in (100, 400)])
    assert found.runs["n"].tolist() == [100, 400] and found.runs["width"].tolist() == [32, 32]
    epoch = 100 + 2 * (40 + 80)
    local = found.plants[(found.plants["run"] == "r100") & (found.plants["kind"] == "local")]
    assert local["copies"].tolist() == [40, 80] and local["rate"].tolist() == pytest.approx([32 * 40 / epoch, 32 * 80 / epoch])
    assert ((local["lower"] * local["rate"] <= 100) & (local["upper"] * local["rate"] > 100)).all()
    assert np.isinf(found.plants[found.plants["kind"] == "phantom"]["upper"]).all()
    run = found.runs.iloc[0]
    assert run["tau_mem_lower"] < 400 <= run["tau_mem_upper"] and run["tau_mem_lower"] < run["tau_mem"] <= run["tau_mem_upper"]
    assert found.notes == () and np.isnan(run["tau_gen"])  # its loss has no plateau
    assert run["overfitting"] == np.inf and np.isnan(run["calibrated"])


def test_read_runs_leaves_out_plants_without_exposures(tmp_path, write_run):
    """As de-duplication may leave one: nothing could be said of when it emerges."""
    folder = write_run(tmp_path / "run")
    about = folder / "plants" / "metadata.jsonl"
    plants = [json.loads(line) for line in about.read_text().splitlines()]
    about.write_text("".join(json.dumps(plant | {"copies": 0 if plant["plant_id"] == 4 else plant["copies"]}) + "\n" for plant in plants))
    found = read_runs([folder])
    assert set(found.plants["plant_id"]) == {0, 1, 2, 3, 5, 6, 7}
    assert np.isfinite(np.log(found.plants[found.plants["kind"] != "phantom"]["rate"])).all()


def test_read_runs_of_different_definitions_raises(tmp_path, write_run):
    one = write_run(tmp_path / "one")
    other = write_run(tmp_path / "other", seeds=1)
    with pytest.raises(ValueError, match="other' and '.*one' differ in monitor.seeds"):
        read_runs([one, other])
    rows = pd.read_parquet(one / "measurements.parquet")
    captured = write_run(tmp_path / "extracted")
    pd.concat([rows, rows.tail(1).assign(measure="extracted")]).to_parquet(captured / "measurements.parquet")
    with pytest.raises(ValueError, match="extracted' and '.*one' differ in definition"):
        read_runs([one, captured])


def test_read_runs_notes_runs_that_ended_early(tmp_path, write_run):
    with pytest.raises(ValueError, match="The run folder '.*nothing' does not exist"):
        read_runs([tmp_path / "nothing"])
    run = write_run(tmp_path / "torn")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["trainer"]["max_steps"] = 10_000
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    found = read_runs([run])
    assert len(found.notes) == 1 and "`torn` was interrupted" in found.notes[0]
    config["monitor"] = (config.get("monitor") or {}) | {"early_stop": {"monitor": "memorized"}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    (note,) = read_runs([run]).notes
    assert "`torn` had early stopping" in note and "of 10000" in note
    with pytest.raises(ValueError, match="Two runs are called 'torn'"):
        read_runs([run, run])
