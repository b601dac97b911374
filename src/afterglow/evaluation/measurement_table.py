"""measurements.parquet: the measurements of all evaluations of a run, complete after an interruption at any moment."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pandas as pd

from afterglow.analysis.summary import MEASUREMENT_COLUMNS, read_measurements
from afterglow.cache import atomic_path
from afterglow.errors import AfterglowError
from afterglow.evaluation.measurements import measure_generations
from afterglow.generations import Generations


class MeasurementTable:
    """The tidy table of one run; each evaluation replaces the file atomically."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.table = read_measurements(path, MEASUREMENT_COLUMNS) if path.exists() else pd.DataFrame(columns=MEASUREMENT_COLUMNS)

    def drop_after(self, step: int) -> None:
        """Drop the rows of later steps, which a resumed training repeats."""
        self.table = self.table[self.table["step"] <= step].reset_index(drop=True)

    def has(self, step: int) -> bool:
        """Whether the step was evaluated."""
        return bool((self.table["step"] == step).any())

    def add(self, rows: pd.DataFrame, *, write: bool = True) -> None:
        """Add the rows of an evaluation; only one process writes. Raises OSError on a full disk, which leaves the old file unchanged."""
        self.table = pd.concat([part for part in (self.table, rows[MEASUREMENT_COLUMNS]) if len(part)], ignore_index=True)
        if not write:
            return
        # single precision, its bytes in streams of their own: half the size
        names, encoding = [name for name in MEASUREMENT_COLUMNS if name != "value"], {"value": "BYTE_STREAM_SPLIT"}
        table = self.table.astype({"value": np.float32})
        with atomic_path(self.path) as path:
            table.to_parquet(path, compression="zstd", index=False, use_dictionary=names, column_encoding=encoding)


def remeasure(run: Path, patterns: Sequence[str] = ("*",)) -> list[str]:
    """Measure the last generations of a run again and add the measures that its measurements.parquet lacks.

    Args:
        patterns: names of measures, with wildcards; those whose input was not captured stay absent.

    Returns:
        The names of the added measures.

    Raises:
        AfterglowError: if the run has no saved generations.
    """
    folders = {int(folder.name.partition("=")[2]): folder for folder in (run / "generations").glob("step=*[0-9]")}
    if not folders or not (run / "measurements.parquet").is_file():
        raise AfterglowError(f"'{run}' has no generations of a last evaluation: it is not a run, or its training has not ended.")
    rows, step = MeasurementTable(run / "measurements.parquet"), max(folders)
    last = rows.table[rows.table["step"] == step]
    measured = measure_generations(Generations.load(folders[step]), patterns).measurements
    requested = [name for name in measured["measure"].unique() if any(fnmatchcase(own, p) for own in _names(name) for p in patterns)]
    new = measured[measured["measure"].isin(set(requested) - set(last["measure"]))]
    if len(new):
        rows.add(new.assign(step=step, epoch=last["epoch"].iloc[0], seconds=last["seconds"].iloc[0]))
    return new["measure"].unique().tolist()


def _names(measure: str) -> tuple[str, ...]:
    """The name of a row, and that of the map that it evaluates."""
    return (measure, measure.partition(".")[2]) if measure.startswith(("auc.", "iou.")) else (measure,)
