import pickle
from pathlib import Path

import numpy as np
import pytest

from afterglow import cache
from afterglow.cache import ArrayCache, LazyRows, allocate, atomic_path, content_key, take_rows

ARRAY = np.arange(40, dtype=np.uint8).reshape(10, 2, 2)
CHOSEN = np.array([7, 1, 1, 4])


def squares(items: list) -> np.ndarray:
    return np.stack([np.full((2, 2), item**2, dtype=np.float16) for item in items])


def keys(count: int) -> dict:
    return {number: content_key(str(number)) for number in range(count)}


def test_content_key_changes_with_content_shape_and_type() -> None:
    one = np.arange(6, dtype=np.uint8)
    distinct = {
        content_key(one),
        content_key(one.reshape(2, 3)),
        content_key(one.astype(np.int16)),
        content_key(one[::-1]),
        content_key("a", "b"),
    }
    assert len(distinct | {content_key("ab")}) == 6 and content_key(one) == content_key(one.copy())


def test_atomic_path_replaces_a_file_only_at_the_end(tmp_path: Path) -> None:
    file = tmp_path / "folder/table.txt"
    with atomic_path(file) as path:
        path.write_text("first")
        assert not file.exists()
    with pytest.raises(KeyboardInterrupt), atomic_path(file) as path:
        path.write_text("half")
        raise KeyboardInterrupt
    assert file.read_text() == "first" and list(file.parent.iterdir()) == [file]


def test_atomic_path_of_a_folder_leaves_nothing_of_an_incomplete_one(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "whole") as path:
        path.mkdir()
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "torn") as path:
        path.mkdir()
        (path / "half").write_text("")
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


def test_array_cache_computes_each_array_once_and_reads_it_back(tmp_path: Path) -> None:
    computed: list = []

    def compute(items: list) -> np.ndarray:
        computed.extend(items)
        return squares(items)

    ArrayCache(tmp_path, keys(5)).fill(compute, chunk_size=2)
    ArrayCache(tmp_path, keys(7)).fill(compute, chunk_size=2)
    assert computed == list(range(7))
    again = ArrayCache(tmp_path, keys(7))
    assert all((again[number] == number**2).all() for number in range(7)) and 6 in again and 7 not in again


def test_array_cache_processes_fill_their_parts(tmp_path: Path) -> None:
    ArrayCache(tmp_path, keys(8)).fill(squares, chunk_size=2, rank=1, world_size=2)
    first = ArrayCache(tmp_path, keys(8))
    assert len(first._places) == 4
    first.fill(squares, chunk_size=2)
    assert all((first[number] == number**2).all() for number in range(8))


def test_array_cache_ignores_what_a_killed_process_left(tmp_path: Path) -> None:
    arrays = ArrayCache(tmp_path, keys(4))
    ArrayCache(tmp_path, keys(2)).fill(squares)
    (tmp_path / "torn.npy").write_bytes(b"half")  # its keys were not yet written
    assert len(ArrayCache(tmp_path, keys(2))._places) == 2

    def dies(items: list) -> np.ndarray:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        arrays.fill(dies)
    assert len(ArrayCache(tmp_path, keys(4))._places) == 2


def test_array_cache_is_opened_again_by_worker_processes(tmp_path: Path) -> None:
    arrays = ArrayCache(tmp_path, {"two": content_key("2")})
    ArrayCache(tmp_path, keys(3)).fill(squares)
    copy = pickle.loads(pickle.dumps(arrays))
    assert (copy["two"] == 4).all() and "two" in copy and "three" not in copy


@pytest.mark.parametrize("limit", [2**30, 3])
def test_array_cache_stack_is_in_the_order_of_its_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(cache, "MAX_IN_MEMORY", limit)
    monkeypatch.setenv("AFTERGLOW_CACHE", str(tmp_path / "unnamed"))
    arrays = ArrayCache(tmp_path, {name: content_key(str(name)) for name in (3, 0, 2)})
    arrays.fill(squares)
    stacked = arrays.stack()
    assert isinstance(stacked, np.memmap) == (limit == 3) and stacked.dtype == np.float16
    assert np.array_equal(stacked, squares([3, 0, 2]))


def test_allocate_uses_the_disk_for_large_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFTERGLOW_CACHE", str(tmp_path / "cache"))
    assert not isinstance(allocate((2, 2)), np.memmap)
    monkeypatch.setattr(cache, "MAX_IN_MEMORY", 7)
    large = allocate((2, 2), np.float16)
    assert isinstance(large, np.memmap) and large.shape == (2, 2) and large.dtype == np.float16
    assert list((tmp_path / "cache").iterdir()) == []  # the file has no name


def test_lazy_rows_are_indexed_as_a_copy() -> None:
    view, copy = LazyRows(ARRAY, CHOSEN), ARRAY[CHOSEN]
    assert view.shape == copy.shape and view.dtype == copy.dtype and view.ndim == 3 and len(view) == 4
    for index in (0, -1, slice(1, 3), [2, 0], np.array([3]), np.array([True, False, False, True])):
        assert np.array_equal(view[index], copy[index])
    assert np.array_equal(np.stack(list(view)), copy)


def test_take_rows_copies_few_rows_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(take_rows(ARRAY, CHOSEN), np.ndarray)
    monkeypatch.setattr(cache, "MAX_IN_MEMORY", 3)
    view = take_rows(take_rows(ARRAY, CHOSEN), np.array([2, 0]))
    assert isinstance(view, LazyRows) and view.base is ARRAY and np.array_equal(view[:], ARRAY[[1, 7]])
