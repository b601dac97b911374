"""measurements.parquet: every number of every probe, whole after a kill at any moment."""

import os
from pathlib import Path

import numpy as np
import pandas as pd

from afterglow.analysis.summary import COLUMNS, read_measurements


class MeasurementTable:
    """The tidy table of one run; each probe replaces the file in one move."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.table = read_measurements(path) if path.exists() else pd.DataFrame(columns=COLUMNS)

    def forget_after(self, step: int) -> None:
        """Drop probes that a resumed training will make again."""
        self.table = self.table[self.table["step"] <= step].reset_index(drop=True)

    def has(self, step: int) -> bool:
        return bool((self.table["step"] == step).any())

    def add(self, rows: pd.DataFrame, *, write: bool = True) -> None:
        """Of several processes one writes. Raises OSError where the disk is full; the old file stays as it was."""
        parts = [part for part in (self.table, rows[COLUMNS]) if len(part)]
        self.table = pd.concat(parts, ignore_index=True)
        if not write:
            return
        unfinished = self.path.with_name(f"{self.path.name}.unfinished")
        try:
            # single precision, its bytes in streams of their own: half the size
            named, streams = [name for name in COLUMNS if name != "value"], {"value": "BYTE_STREAM_SPLIT"}
            table = self.table.astype({"value": np.float32})
            table.to_parquet(unfinished, compression="zstd", index=False, use_dictionary=named, column_encoding=streams)
            os.replace(unfinished, self.path)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            raise OSError(error.errno, error.strerror or str(error), str(self.path)) from error
