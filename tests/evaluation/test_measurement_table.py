import numpy as np
import pandas as pd
import pytest

from afterglow.analysis.summary import MEASUREMENT_COLUMNS
from afterglow.evaluation.measurement_table import MeasurementTable


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


def test_probes_add_up_and_are_read_again(tmp_path):
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
