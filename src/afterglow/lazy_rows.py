"""Some rows of a set that may be larger than memory, in an order of their own, without a copy."""

from typing import Any

import numpy as np

COPIED = 2**30  # bytes up to which rows are simply copied


class LazyRows:
    """Looks like an array [N, ...]; only what it is indexed with is read. base: an array, a memory map, or anything indexed alike."""

    def __init__(self, base: Any, rows: np.ndarray) -> None:
        self.base, self.rows = base, np.asarray(rows, dtype=np.int64)

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.rows), *self.base.shape[1:]

    @property
    def dtype(self) -> np.dtype:
        return self.base.dtype

    @property
    def ndim(self) -> int:
        return self.base.ndim

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        return np.asarray(self.base[self.rows[index]])


def rows_of(array: Any, rows: np.ndarray) -> Any:
    """The rows of an array: a copy where they are few, else a view that copies only what is asked of it."""
    size = len(rows) * int(np.prod(array.shape[1:])) * array.dtype.itemsize
    if size <= COPIED:
        return array[rows]
    return LazyRows(array.base, array.rows[rows]) if isinstance(array, LazyRows) else LazyRows(array, rows)
