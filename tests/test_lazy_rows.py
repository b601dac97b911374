import numpy as np
import pytest

from afterglow import lazy_rows
from afterglow.lazy_rows import LazyRows, rows_of

ARRAY = np.arange(40, dtype=np.uint8).reshape(10, 2, 2)
CHOSEN = np.array([7, 1, 1, 4])


def test_a_view_is_indexed_as_the_copy_would_be():
    view, copy = LazyRows(ARRAY, CHOSEN), ARRAY[CHOSEN]
    assert view.shape == copy.shape and view.dtype == copy.dtype and view.ndim == 3 and len(view) == 4
    for index in (0, -1, slice(1, 3), [2, 0], np.array([3]), np.array([True, False, False, True])):
        assert np.array_equal(view[index], copy[index])
    assert np.array_equal(np.stack(list(view)), copy)


def test_few_rows_are_copied_and_many_are_not(monkeypatch: pytest.MonkeyPatch):
    assert isinstance(rows_of(ARRAY, CHOSEN), np.ndarray)
    monkeypatch.setattr(lazy_rows, "COPIED", 3)
    view = rows_of(rows_of(ARRAY, CHOSEN), np.array([2, 0]))
    assert isinstance(view, LazyRows) and view.base is ARRAY and np.array_equal(view[:], ARRAY[[1, 7]])
