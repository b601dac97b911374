"""Arrays on disk by the content they were made from, so that what is slow to make is made once and never stale."""

import hashlib
import os
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

KEY_BYTES = 16


def cache_folder() -> Path:
    """Where downloads and rendered images are kept: AFTERGLOW_CACHE, or `afterglow` in the user's cache directory."""
    user_cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("AFTERGLOW_CACHE") or Path(user_cache) / "afterglow")


def content_key(*parts: bytes | str | np.ndarray) -> bytes:
    """A key that changes with every byte of what it is made of, and with its shape."""
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        data = np.ascontiguousarray(raw) if isinstance(raw, np.ndarray) else raw
        head = f"{data.dtype}{data.shape}" if isinstance(data, np.ndarray) else f"bytes{len(data)}"
        digest.update(head.encode())
        digest.update(data.tobytes() if isinstance(data, np.ndarray) else data)
    return digest.digest()


class ArrayCache:
    """Equally shaped arrays by key, in memory-mapped files of a folder: written whole or not at all, by any number of processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.places: dict[bytes, tuple[str, int]] = {}
        self.arrays: dict[str, np.ndarray] = {}
        self.reload()

    def reload(self) -> None:
        """Take in what other processes have written."""
        for file in sorted(self.folder.glob("*.keys")):
            if file.stem in self.arrays:
                continue
            self.arrays[file.stem] = np.load(file.with_suffix(".npy"), mmap_mode="r")
            keys = file.read_bytes()
            for row in range(len(keys) // KEY_BYTES):
                self.places.setdefault(keys[row * KEY_BYTES : (row + 1) * KEY_BYTES], (file.stem, row))

    def __contains__(self, key: bytes) -> bool:
        return key in self.places

    def __getitem__(self, key: bytes) -> np.ndarray:
        name, row = self.places[key]
        return self.arrays[name][row]

    def __getstate__(self) -> dict:
        return {"folder": self.folder}  # for worker processes: files are opened again, not copied

    def __setstate__(self, state: dict) -> None:
        self.__init__(state["folder"])  # type: ignore[misc]

    def add(self, keys: Sequence[bytes], values: np.ndarray) -> None:
        """Write the values of new keys; the keys come last, so that a kill leaves nothing half there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        stem = self.folder / content_key(*keys).hex()
        for ending, data in ((".npy", values), (".keys", b"".join(keys))):
            unfinished = stem.with_suffix(f".{os.getpid()}.unfinished")
            with unfinished.open("wb") as file:
                np.save(file, data) if isinstance(data, np.ndarray) else file.write(data)
            os.replace(unfinished, stem.with_suffix(ending))
        self.reload()

    def fill(
        self,
        items: Iterable[tuple[bytes, Hashable]],
        make: Callable[[list[Hashable]], np.ndarray],
        *,
        share: tuple[int, int] = (0, 1),
        chunk: int = 64,
        what: str = "",
    ) -> None:
        """Make what is missing, a chunk at a time; `share` = (first, stride) of the chunks are this process's.

        items: (key, what `make` is given for it). make: a list of those => an array with a row for each.
        """
        missing = list({key: item for key, item in items if key not in self}.items())
        chunks = [missing[start : start + chunk] for start in range(0, len(missing), chunk)][share[0] :: share[1]]
        for part in tqdm(chunks, desc=what, unit="chunk", disable=share[0] > 0 or not chunks):
            self.add([key for key, _ in part], make([item for _, item in part]))


class KeyedArrays:
    """What a store holds, by names of things instead of their content's keys."""

    def __init__(self, store: ArrayCache, keys: Mapping[Hashable, bytes]) -> None:
        self.store, self.keys = store, keys

    def __contains__(self, name: Hashable) -> bool:
        return name in self.keys

    def __getitem__(self, name: Hashable) -> np.ndarray:
        return self.store[self.keys[name]]


class CachedArray:
    """What a store holds of a list of keys, indexed like an array [N, ...]; only what it is indexed with is read."""

    def __init__(self, store: ArrayCache, keys: Sequence[bytes]) -> None:
        self.store, self.keys = store, keys

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.keys), *self.store[self.keys[0]].shape

    @property
    def dtype(self) -> np.dtype:
        return self.store[self.keys[0]].dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """rows: a number, or an array of them."""
        if np.ndim(rows) == 0:
            return self.store[self.keys[int(rows)]]
        return np.stack([self.store[self.keys[row]] for row in np.asarray(rows).tolist()])
