"""measurements.parquet: the measurements of all evaluations, complete after an interruption at any moment."""

from pathlib import Path

import numpy as np
import pandas as pd

from afterglow.analysis.summary import MEASUREMENT_COLUMNS, read_measurements
from afterglow.cache import atomic_path


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
        parts = [part for part in (self.table, rows[MEASUREMENT_COLUMNS]) if len(part)]
        self.table = pd.concat(parts, ignore_index=True)
        if not write:
            return
        # single precision, its bytes in streams of their own: half the size
        names, encoding = [name for name in MEASUREMENT_COLUMNS if name != "value"], {"value": "BYTE_STREAM_SPLIT"}
        table = self.table.astype({"value": np.float32})
        with atomic_path(self.path) as path:
            table.to_parquet(path, compression="zstd", index=False, use_dictionary=names, column_encoding=encoding)
