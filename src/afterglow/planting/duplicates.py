"""Duplicates among images, found from the images alone: which of them stay in a training set, and which one each other repeats.

Carlini et al. 2023 (arXiv:2301.13188, section 7.1) and Somepalli et al. 2023 (arXiv:2305.20086) remove duplicates before training.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from afterglow.cache import content_key
from afterglow.functional.distances import masked_rms
from afterglow.functional.pixels import to_unit
from afterglow.neighbors.clusters import NEAR_DUPLICATE_DISTANCE, PAIRS, connected, near_duplicate_pairs
from afterglow.neighbors.search import iter_chunks

COPY_COSINE = 0.5  # of SSCD embeddings: the published rule for a copy
# Of an image: a compromise, chosen on images with nothing planted. METHODS' .05 for families is too little where images are flat and
# of one palette: of 500 of OpenMoji 31 stay, at .15 107, at .25 188, at .4 284 (docs/guides/own-data.md).
SHARED_REGION = 0.25
AGREEING = 2  # gray levels by which pixels that agree may differ in any channel
TELLING = 0.1 * 255  # gray levels by which a pixel differs from the median of the set there, or agreement with it says nothing
ROWS = 64  # images that look for an earlier duplicate together
TILE = 2**20  # values of pairs that are compared together: they stay in the cache


@dataclass(frozen=True)
class Duplicates:
    """What was found among N images, in their order.

    stays: int64 [N], the image that stays for each one: itself or an earlier one. likeness: float32 [N], what the method measures
    between the two (RMS distance, cosine, share of the image); NaN where an image stays.
    """

    representative: np.ndarray
    similarity: np.ndarray

    @property
    def kept(self) -> np.ndarray:
        """Whether an image stays, bool [N]."""
        return self.representative == np.arange(len(self.representative))

    @property
    def num_clusters(self) -> int:
        """How many of those that stay are repeated by others."""
        return len(np.unique(self.representative[~self.kept]))

    def then(self, found: "Duplicates", *, same: float) -> "Duplicates":
        """Together with what another method found among those that stayed; `same` is what it measures between equal images."""
        rows = np.flatnonzero(self.kept)
        place = np.searchsorted(rows, self.representative)
        similarity = np.where(found.kept[place], np.float32(same), found.similarity[place])
        similarity[rows[found.kept]] = np.nan
        return Duplicates(rows[found.representative[place]], similarity)


def exact(pixels: np.ndarray) -> Duplicates:
    """Equal images; the first stays. pixels: uint8 [N, C, H, W]. The likeness is the distance: 0."""
    first: dict[bytes, int] = {}
    representative = np.array([first.setdefault(content_key(image), row) for row, image in enumerate(pixels)], dtype=np.int64)
    return Duplicates(representative, np.where(representative == np.arange(len(representative)), np.float32(np.nan), np.float32(0)))


def near(pixels: np.ndarray, limit: float = NEAR_DUPLICATE_DISTANCE) -> Duplicates:
    """Images that are connected by whole-image RMS distances under a limit, as groups are made; the first of each group stays.

    pixels: uint8 [N, C, H, W]; limit in [0, 1] pixels. The likeness is the distance to the image that stays, which a chain of twins
    may take beyond the limit. Equal images are joined first, so that many copies are not many pairs.
    """
    _check(limit)
    equal = exact(pixels)
    distinct = pixels[equal.kept]
    if len(distinct) < 2:
        return equal
    first, second, _ = near_duplicate_pairs(distinct, limit)
    _, heads, clusters = np.unique(connected(len(distinct), first, second), return_index=True, return_inverse=True)
    representative, similarity, full = heads[clusters], np.full(len(distinct), np.nan, dtype=np.float32), torch.ones(1, *pixels.shape[-2:])
    dropped = np.flatnonzero(representative != np.arange(len(representative)))
    for start in range(0, len(dropped), PAIRS):
        some = dropped[start : start + PAIRS]
        similarity[some] = masked_rms(to_unit(distinct[some]), to_unit(distinct[representative[some]]), full).numpy()
    return equal.then(Duplicates(representative, similarity), same=0.0)


def embedded(embeddings: np.ndarray, limit: float = COPY_COSINE) -> Duplicates:
    """Images whose embedding lies at a cosine of `limit` or more to that of an earlier one that stays. embeddings: float32 [N, D].

    Greedy and not by components: at .5 chains of copies join images that have nothing in common, and here whatever is dropped has
    a copy of itself that stays. The likeness is the cosine to the nearest image that stays.
    """
    _check(limit)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    return _greedy(len(unit), lambda rows, others: unit[rows] @ unit[others].T, limit)


def regional(pixels: np.ndarray, limit: float = SHARED_REGION) -> Duplicates:
    """Images that agree with an earlier one that stays on a region of at least `limit` of the image, wherever and of whatever shape.

    pixels: uint8 [N, C, H, W]. As in natural families (METHODS section 4), pixels agree to 2/255 in all channels, and count where both
    differ by more than .1 from the median of the set (each distinct image once), so that a common background is no duplicate.
    Equal images are duplicates whatever they show. Greedy and not by components, which would chain whatever shares a smiley's yellow.
    The likeness is the share of the image that agrees with the one that stays. Memory beside the images is that of a few tiles.
    """
    _check(limit)
    equal = exact(pixels)
    distinct = pixels[equal.kept]
    if len(distinct) < 2:
        return equal
    levels, telling = distinct.reshape(*distinct.shape[:2], -1), _telling(distinct)

    def shares(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        found = np.empty((len(rows), len(others)), dtype=np.float32)
        step = max(1, int((TILE / levels[0].size) ** 0.5))
        for i in range(0, len(rows), step):
            mine = rows[i : i + step]
            a, telling_a = levels[mine].astype(np.int16), telling[mine]
            for j in range(0, len(others), step):
                theirs = others[j : j + step]
                found[i : i + step, j : j + step] = _agreeing(a, levels[theirs].astype(np.int16), telling_a, telling[theirs])
        return found / levels.shape[-1]

    return equal.then(_greedy(len(distinct), shares, limit), same=1.0)


def _telling(pixels: np.ndarray) -> np.ndarray:
    """Pixels that differ from the median of the set at that place, bool [N, H * W]."""
    median = np.median(pixels, axis=0).astype(np.float32)
    parts = [(np.abs(pixels[piece] - median) > TELLING).any(1).reshape(-1, median[0].size) for piece in iter_chunks(pixels)]
    return np.concatenate(parts)


def _agreeing(a: np.ndarray, b: np.ndarray, telling_a: np.ndarray, telling_b: np.ndarray) -> np.ndarray:
    """Number of telling pixels in which images agree, [A, B]. a, b: int16 [A, C, P], [B, C, P]; telling: bool [A, P], [B, P]."""
    agree = telling_a[:, None] & telling_b[None]
    for channel in range(a.shape[1]):  # one at a time: three times less to hold in the cache
        apart = a[:, None, channel] - b[None, :, channel]
        agree &= np.abs(apart, out=apart) <= AGREEING
    return agree.view(np.uint8).sum(-1, dtype=np.uint32)


def _greedy(count: int, measure: Callable[[np.ndarray, np.ndarray], np.ndarray], limit: float) -> Duplicates:
    """In order, a thing is dropped where it is at `limit` or above to one that stays. measure: (rows [R], others [K]) => float [R, K]."""
    representative, similarity, kept = np.arange(count), np.full(count, np.nan, dtype=np.float32), np.zeros(0, dtype=np.int64)
    for start in tqdm(range(0, count, ROWS), desc="duplicates", unit="chunk"):
        rows = np.arange(start, min(start + ROWS, count))
        known = np.concatenate([kept, rows])
        staying = np.arange(len(known)) < len(kept)
        for place, values in enumerate(measure(rows, known)):
            nearest = np.where(staying, values, -np.inf).argmax()
            if staying[nearest] and values[nearest] >= limit:
                representative[rows[place]], similarity[rows[place]] = known[nearest], values[nearest]
            else:
                staying[len(kept) + place] = True
        kept = known[staying]
    return Duplicates(representative, similarity)


def _check(limit: float) -> None:
    if not 0 < limit < 1:
        raise ValueError(f"The limit of duplicates lies between 0 and 1, and it is {limit}.")
