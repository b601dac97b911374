import pickle
from pathlib import Path

import numpy as np
import pytest

from afterglow.cache import ArrayCache, CachedArray, KeyedArrays, content_key


def squares(some: list) -> np.ndarray:
    return np.stack([np.full((2, 2), item**2, dtype=np.float16) for item in some])


def items(count: int) -> list:
    return [(content_key(str(number)), number) for number in range(count)]


def test_a_key_changes_with_content_shape_and_kind():
    one = np.arange(6, dtype=np.uint8)
    keys = {
        content_key(one),
        content_key(one.reshape(2, 3)),
        content_key(one.astype(np.int16)),
        content_key(one[::-1]),
        content_key("a", "b"),
    }
    assert len(keys | {content_key("ab")}) == 6 and content_key(one) == content_key(one.copy())


def test_each_thing_is_made_once_and_read_back(tmp_path: Path):
    made: list = []

    def make(some: list) -> np.ndarray:
        made.extend(some)
        return squares(some)

    store = ArrayCache(tmp_path)
    store.fill(items(5), make, chunk=2)
    ArrayCache(tmp_path).fill(items(7), make, chunk=2)
    assert made == list(range(7))
    again = ArrayCache(tmp_path)
    assert all((again[key] == number**2).all() for key, number in items(7)) and content_key("8") not in again


def test_processes_share_the_work(tmp_path: Path):
    for first in (0, 1):
        ArrayCache(tmp_path / "s").fill(items(8), squares, chunk=2, share=(first, 2)) if first else ArrayCache(tmp_path / "s")
    store = ArrayCache(tmp_path / "s")
    assert sum(key in store for key, _ in items(8)) == 4
    store.fill(items(8), squares, chunk=2)
    assert all(key in store for key, _ in items(8))


def test_what_was_being_written_at_a_kill_is_not_there(tmp_path: Path):
    store = ArrayCache(tmp_path)
    store.fill(items(2), squares)
    (tmp_path / "torn.npy").write_bytes(b"half")  # its keys were not yet written
    assert len(ArrayCache(tmp_path).places) == 2

    def dies(some: list) -> np.ndarray:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.fill(items(4), dies)
    assert len(ArrayCache(tmp_path).places) == 2


def test_worker_processes_open_the_files_themselves(tmp_path: Path):
    ArrayCache(tmp_path).fill(items(3), squares)
    named = KeyedArrays(ArrayCache(tmp_path), {"two": content_key("2")})
    copy = pickle.loads(pickle.dumps(named))
    assert (copy["two"] == 4).all() and "two" in copy and "three" not in copy


def test_a_list_of_keys_is_indexed_like_an_array(tmp_path: Path):
    store = ArrayCache(tmp_path)
    store.fill(items(4), squares)
    listed = CachedArray(store, [content_key(str(number)) for number in (3, 0, 2)])
    expected = np.stack([np.full((2, 2), value, dtype=np.float16) for value in (9, 0, 4)])
    assert listed.shape == expected.shape and listed.dtype == expected.dtype and listed.ndim == 3
    assert np.array_equal(listed[np.array([0, 2])], expected[[0, 2]]) and np.array_equal(listed[1], expected[1])
