"""Files that appear whole or not at all, arrays kept on disk by content, and arrays larger than memory."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

KEY_BYTES = 16
UNFINISHED = ".unfinished"  # suffix of temporary files
MAX_IN_MEMORY = 2**30  # bytes; larger arrays stay on disk


def cache_folder() -> Path:
    """Return the folder of downloads and rendered images: AFTERGLOW_CACHE, or `afterglow` in the user's cache directory."""
    user_cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("AFTERGLOW_CACHE") or Path(user_cache) / "afterglow")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, whose file or folder takes the name `path` at the end.

    If the block raises or the process dies, `path` stays as it was. A folder can only take a name that is free.

    Args:
        path: the final file or folder; missing parent folders are created.

    Raises:
        OSError: the disk is full or fails; it names `path`.
    """
    unfinished = path.with_name(f"{path.name}.{os.getpid()}{UNFINISHED}")
    try:
        with errors_naming(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield unfinished
            if unfinished.is_file():
                _fsync(unfinished)
            os.replace(unfinished, path)
            _fsync(path.parent)
    finally:
        if unfinished.is_dir():
            shutil.rmtree(unfinished)
        unfinished.unlink(missing_ok=True)


@contextmanager
def errors_naming(path: Path) -> Iterator[None]:
    """Let an OSError that names no file, or a temporary one, name `path`."""
    try:
        yield
    except OSError as error:
        if error.filename is not None and UNFINISHED not in str(error.filename):
            raise
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def _fsync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_unfinished(folder: Path) -> None:
    """Remove the temporary files and folders that killed processes left in a folder."""
    for path in folder.rglob(f"*{UNFINISHED}"):
        process = path.name.removesuffix(UNFINISHED).rpartition(".")[2]
        if process.isdecimal() and not _is_alive(int(process)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def content_key(*parts: bytes | str | np.ndarray) -> bytes:
    """Return a key of KEY_BYTES bytes that changes with every byte of its parts, and with the shape and type of arrays."""
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        data = np.ascontiguousarray(raw) if isinstance(raw, np.ndarray) else raw
        head = f"{data.dtype}{data.shape}" if isinstance(data, np.ndarray) else f"bytes{len(data)}"
        digest.update(head.encode())
        digest.update(data.tobytes() if isinstance(data, np.ndarray) else data)
    return digest.digest()


def allocate(shape: tuple[int, ...], dtype: Any = np.uint8) -> np.ndarray:
    """Return an empty array: in memory, or in an unnamed file of the cache folder if it is larger than MAX_IN_MEMORY."""
    if np.prod(shape) * np.dtype(dtype).itemsize <= MAX_IN_MEMORY:
        return np.empty(shape, dtype=dtype)
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=cache_folder()) as file:  # its space is free again when the process ends
        return np.memmap(file, dtype=dtype, mode="w+", shape=shape)


class LazyRows:
    """Selected rows of an array or memory map, indexed like an array [N, ...]; rows are read when they are indexed.

    Args:
        base: array, memory map, or anything that is indexed alike.
        rows: int [N], the rows of `base`.
    """

    def __init__(self, base: Any, rows: np.ndarray) -> None:
        self.base, self.rows = base, np.asarray(rows, dtype=np.int64)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the selected rows together."""
        return len(self.rows), *self.base.shape[1:]

    @property
    def dtype(self) -> np.dtype:
        """Type of the values."""
        return self.base.dtype

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return self.base.ndim

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        return np.asarray(self.base[self.rows[index]])


def take_rows(array: Any, rows: np.ndarray) -> Any:
    """Return rows of an array [N, ...]: a copy up to MAX_IN_MEMORY bytes, else `LazyRows`. rows: int [M]."""
    size = len(rows) * int(np.prod(array.shape[1:])) * array.dtype.itemsize
    if size <= MAX_IN_MEMORY:
        return array[rows]
    return LazyRows(array.base, array.rows[rows]) if isinstance(array, LazyRows) else LazyRows(array, rows)


class ArrayCache:
    """Arrays of equal shape by item, kept in memory-mapped files of a folder, which any number of processes may fill.

    On disk an array is found by the content that it was computed from, so that it is computed once and never outdated.

    Args:
        folder: folder of the files; it may be missing.
        keys: content key of each item.
    """

    def __init__(self, folder: Path, keys: Mapping[Any, bytes]) -> None:
        self.folder, self.keys = folder, dict[Hashable, bytes](keys)
        self._places: dict[bytes, tuple[str, int]] = {}  # content key => file and row
        self._arrays: dict[str, np.ndarray] = {}
        self.reload()

    def reload(self) -> None:
        """Open the files that other processes have written meanwhile."""
        for file in sorted(self.folder.glob("*.keys")):
            if file.stem in self._arrays:
                continue
            self._arrays[file.stem] = np.load(file.with_suffix(".npy"), mmap_mode="r")
            keys = file.read_bytes()
            for row in range(len(keys) // KEY_BYTES):
                self._places.setdefault(keys[row * KEY_BYTES : (row + 1) * KEY_BYTES], (file.stem, row))

    def __contains__(self, item: Hashable) -> bool:
        return item in self.keys

    def __getitem__(self, item: Hashable) -> np.ndarray:
        name, row = self._places[self.keys[item]]
        return self._arrays[name][row]

    def __getstate__(self) -> dict:
        return {"folder": self.folder, "keys": self.keys}  # worker processes open the files again

    def __setstate__(self, state: dict) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def fill(
        self,
        compute: Callable[[list[Any]], np.ndarray],
        *,
        rank: int = 0,
        world_size: int = 1,
        chunk_size: int = 64,
        description: str = "",
    ) -> None:
        """Compute the arrays that are missing on disk.

        Args:
            compute: gives an array with one row for each item of a list.
            rank: number of this process; it computes every `world_size`-th chunk.
            world_size: number of processes that fill the cache together.
            chunk_size: number of items that are computed and written together.
            description: label of the progress bar.
        """
        missing = list({key: item for item, key in self.keys.items() if key not in self._places}.items())
        chunks = [missing[start : start + chunk_size] for start in range(0, len(missing), chunk_size)][rank::world_size]
        for chunk in tqdm(chunks, desc=description, unit="chunk", disable=rank > 0 or not chunks):
            self._write([key for key, _ in chunk], compute([item for _, item in chunk]))

    def _write(self, keys: Sequence[bytes], values: np.ndarray) -> None:
        """Write the values of new keys; the file of keys comes last, because only it makes the values visible."""
        stem = self.folder / content_key(*keys).hex()
        with atomic_path(stem.with_suffix(".npy")) as path, path.open("wb") as file:
            np.save(file, values)
        with atomic_path(stem.with_suffix(".keys")) as path:
            path.write_bytes(b"".join(keys))
        self.reload()

    def stack(self) -> np.ndarray:
        """Return the arrays of all items in order, [N, ...]; on disk if they are large."""
        first = self[next(iter(self.keys))]
        result = allocate((len(self.keys), *first.shape), first.dtype)
        for row, item in enumerate(self.keys):
            result[row] = self[item]
        return result
