from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fast_training import ENDS, FAST

from afterglow.analysis.summary import MEASUREMENT_COLUMNS
from afterglow.cli import main
from afterglow.evaluation.measurement_table import MeasurementTable, remeasure


def rows(step: int) -> pd.DataFrame:
    values = {
        "step": step,
        "epoch": 0.5,
        "seconds": 1.0,
        "plant_id": [0, 1],
        "kind": "global",
        "caption": "a",
        "seed": 0,
        "measure": "m",
        "value": 0.1,
    }
    return pd.DataFrame(values)


def test_evaluations_add_up_and_are_read_again(tmp_path):
    table = MeasurementTable(tmp_path / "measurements.parquet")
    for step in (0, 5):
        assert not table.has(step)
        table.add(rows(step))
    again = MeasurementTable(tmp_path / "measurements.parquet")
    assert again.has(5) and list(again.table.columns) == MEASUREMENT_COLUMNS and len(again.table) == 4
    assert (again.table["value"] == np.float32(0.1)).all()


def test_what_a_resumed_training_will_make_again_is_dropped(tmp_path):
    table = MeasurementTable(tmp_path / "measurements.parquet")
    for step in (0, 5, 9):
        table.add(rows(step))
    table.drop_after(5)
    table.add(rows(9))
    assert pd.read_parquet(tmp_path / "measurements.parquet")["step"].tolist() == [0, 0, 5, 5, 9, 9]


def test_a_process_that_does_not_write_remembers(tmp_path):
    table = MeasurementTable(tmp_path / "measurements.parquet")
    table.add(rows(0), write=False)
    assert table.has(0) and not (tmp_path / "measurements.parquet").exists()


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    table = MeasurementTable(tmp_path / "measurements.parquet")
    table.add(rows(0))
    monkeypatch.setattr(
        pd.DataFrame, "to_parquet", lambda self, path, **_: (path.write_bytes(b"half"), (_ for _ in ()).throw(OSError(28, "full")))[1]
    )
    with pytest.raises(OSError, match="full") as error:
        table.add(rows(5))
    assert error.value.filename.endswith("measurements.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["measurements.parquet"]
    assert pd.read_parquet(tmp_path / "measurements.parquet")["step"].tolist() == [0, 0]


def test_a_measure_that_a_run_did_not_ask_for_joins_its_last_evaluation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = "[calibrated_l2, memorized, score_difference.summed, luminance]"
    more_at_last = asked.replace("]", ", guidance_norm.all, local_contrast]")
    main(["train", *FAST, *ENDS[2:], "--name", "few", "--monitor.measures", asked])
    main(
        [
            "train",
            *FAST,
            *ENDS[2:],
            "--name",
            "more",
            "--monitor.measures",
            asked,
            "--monitor.final_measures",
            more_at_last,
        ],
    )
    few, more = Path("runs/few"), Path("runs/more")
    before = pd.read_parquet(few / "measurements.parquet")
    new = remeasure(few, ["guidance_norm.all", "local_contrast", "luminance"])
    assert set(new) == {"guidance_norm.all", "auc.local_contrast", "iou.local_contrast"}
    after, expected = (pd.read_parquet(run / "measurements.parquet") for run in (few, more))
    assert before.equals(after[: len(before)])
    keys = ["step", "plant_id", "seed", "measure"]
    for name in new:
        one, other = (table[table["measure"] == name].set_index(keys)["value"].sort_index() for table in (after, expected))
        pd.testing.assert_series_equal(one, other, rtol=1e-3)  # the folder holds halves
    assert remeasure(few, ["guidance_norm.all"]) == []


def test_a_folder_without_a_last_evaluation_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has no generations of a last evaluation"):
        remeasure(tmp_path)
