"""Duplicates among images, found from the images alone: which images to keep, and which of them each other image repeats.

Carlini et al. 2023 (arXiv:2301.13188, section 7.1) and Somepalli et al. 2023 (arXiv:2305.20086) remove duplicates before training.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from afterglow.cache import content_key
from afterglow.errors import AfterglowError
from afterglow.functional.distances import masked_rms
from afterglow.functional.pixels import to_unit
from afterglow.neighbors.clusters import NEAR_DUPLICATE_DISTANCE, PAIRS, connected, near_duplicate_pairs
from afterglow.neighbors.search import iter_chunks

COPY_COSINE = 0.5  # of SSCD embeddings: the published rule for a copy
# Fraction of the image: a compromise, chosen on images without plants. The 0.05 of natural families is too little where images are
# flat and of one palette: of 500 images of OpenMoji 31 are kept, at 0.15 107, at 0.25 188, at 0.4 284
# (docs/guides/own-data.md#deduplicate).
SHARED_REGION = 0.25
AGREEMENT = 2  # gray levels by which agreeing pixels may differ in any channel
SALIENCE = 0.1 * 255  # gray levels by which a pixel must differ from the median of the set there; otherwise agreement means nothing
ROWS = 64  # images that are compared with the kept ones together
TILE = 2**20  # values of pairs that are compared together: they stay in the cache


@dataclass(frozen=True)
class Duplicates:
    """Duplicates among N images.

    Attributes:
        representative: int64 [N], the image that is kept for each one: itself or an earlier one.
        similarity: float32 [N], what the method measures between the two (RMS distance, cosine, fraction of the image); NaN for an
            image that is kept.
    """

    representative: np.ndarray
    similarity: np.ndarray

    @property
    def keep(self) -> np.ndarray:
        """Whether each image is kept, bool [N]."""
        return self.representative == np.arange(len(self.representative))

    @property
    def num_clusters(self) -> int:
        """Number of kept images that other images repeat."""
        return len(np.unique(self.representative[~self.keep]))

    def refine(self, duplicates: "Duplicates", *, same: float) -> "Duplicates":
        """Combine with the duplicates that another method finds among the kept images.

        The other method takes the kept images in their order; same: what it measures between equal images.
        """
        rows = np.flatnonzero(self.keep)
        place = np.searchsorted(rows, self.representative)
        similarity = np.where(duplicates.keep[place], np.float32(same), duplicates.similarity[place])
        similarity[rows[duplicates.keep]] = np.nan
        return Duplicates(rows[duplicates.representative[place]], similarity)


def exact(pixels: np.ndarray) -> Duplicates:
    """Find equal images and keep the first of them; the similarity is the distance 0. pixels: uint8 [N, C, H, W]."""
    first: dict[bytes, int] = {}
    representative = np.array([first.setdefault(content_key(image), row) for row, image in enumerate(pixels)], dtype=np.int64)
    return Duplicates(representative, np.where(representative == np.arange(len(representative)), np.float32(np.nan), np.float32(0)))


def near(pixels: np.ndarray, limit: float = NEAR_DUPLICATE_DISTANCE) -> Duplicates:
    """Find images that are connected by RMS distances below a limit, and keep the first of each component.

    The similarity is the distance to the kept image, which in a chain of near-duplicates may exceed the limit. Equal images are
    joined first, so that many copies are not many pairs.

    Args:
        pixels: uint8 [N, C, H, W].
        limit: RMS distance over the whole image, in [0, 1] pixels; AfterglowError unless it lies between 0 and 1.
    """
    _check(limit)
    equal = exact(pixels)
    distinct = pixels[equal.keep]
    if len(distinct) < 2:
        return equal
    first, second, _ = near_duplicate_pairs(distinct, limit)
    _, heads, clusters = np.unique(connected(len(distinct), first, second), return_index=True, return_inverse=True)
    representative, similarity, full = heads[clusters], np.full(len(distinct), np.nan, dtype=np.float32), torch.ones(1, *pixels.shape[-2:])
    dropped = np.flatnonzero(representative != np.arange(len(representative)))
    for start in range(0, len(dropped), PAIRS):
        rows = dropped[start : start + PAIRS]
        similarity[rows] = masked_rms(to_unit(distinct[rows]), to_unit(distinct[representative[rows]]), full).numpy()
    return equal.refine(Duplicates(representative, similarity), same=0.0)


def embedded(embeddings: np.ndarray, limit: float = COPY_COSINE) -> Duplicates:
    """Find images whose embedding has a cosine of at least `limit` to that of an earlier image that is kept.

    Greedy, not by components: at 0.5 chains of copies join images that have nothing in common, whereas here a copy of every dropped
    image is kept. The similarity is the cosine to the nearest kept image.

    Args:
        embeddings: float32 [N, D].
        limit: smallest cosine; AfterglowError unless it lies between 0 and 1.
    """
    _check(limit)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    return _greedy(len(unit), lambda rows, others: unit[rows] @ unit[others].T, limit)


def shared_region(pixels: np.ndarray, limit: float = SHARED_REGION) -> Duplicates:
    """Find images that agree with an earlier kept image in a region of any place and shape.

    As in natural families (docs/methods.md#planting), pixels agree if they differ by at most 2/255 in all channels, and count if both
    differ by more than 0.1 from the median of the set (each distinct image once), so that a common background is no duplicate. Equal
    images are always duplicates. Greedy, not by components, which would join all images with the yellow of a smiley. The similarity
    is the fraction of the image that agrees with the kept one. Beside the images only a few tiles are held in memory.

    Args:
        pixels: uint8 [N, C, H, W].
        limit: smallest fraction of the image; AfterglowError unless it lies between 0 and 1.
    """
    _check(limit)
    equal = exact(pixels)
    distinct = pixels[equal.keep]
    if len(distinct) < 2:
        return equal
    levels, salient = distinct.reshape(*distinct.shape[:2], -1), _salient(distinct)

    def fractions(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        result = np.empty((len(rows), len(others)), dtype=np.float32)
        step = max(1, int((TILE / levels[0].size) ** 0.5))
        for i in range(0, len(rows), step):
            a = rows[i : i + step]
            levels_a, salient_a = levels[a].astype(np.int16), salient[a]
            for j in range(0, len(others), step):
                b = others[j : j + step]
                result[i : i + step, j : j + step] = _num_agreeing(levels_a, levels[b].astype(np.int16), salient_a, salient[b])
        return result / levels.shape[-1]

    return equal.refine(_greedy(len(distinct), fractions, limit), same=1.0)


def _salient(pixels: np.ndarray) -> np.ndarray:
    """Pixels that differ from the median of the set at that place, bool [N, H * W]."""
    median = np.median(pixels, axis=0).astype(np.float32)
    parts = [(np.abs(pixels[chunk] - median) > SALIENCE).any(1).reshape(-1, median[0].size) for chunk in iter_chunks(pixels)]
    return np.concatenate(parts)


def _num_agreeing(a: np.ndarray, b: np.ndarray, salient_a: np.ndarray, salient_b: np.ndarray) -> np.ndarray:
    """Number of salient pixels in which images agree, [A, B]. a, b: int16 [A, C, P], [B, C, P]; salient: bool [A, P], [B, P]."""
    agree = salient_a[:, None] & salient_b[None]
    for channel in range(a.shape[1]):  # one at a time: three times less to hold in the cache
        difference = a[:, None, channel] - b[None, :, channel]
        agree &= np.abs(difference, out=difference) <= AGREEMENT
    return agree.view(np.uint8).sum(-1, dtype=np.uint32)


def _greedy(count: int, measure: Callable[[np.ndarray, np.ndarray], np.ndarray], limit: float) -> Duplicates:
    """In order, drop an item that measures `limit` or more to one that is kept. measure: (rows [R], others [K]) => float [R, K]."""
    representative, similarity, kept = np.arange(count), np.full(count, np.nan, dtype=np.float32), np.zeros(0, dtype=np.int64)
    for start in tqdm(range(0, count, ROWS), desc="duplicates", unit="chunk"):
        rows = np.arange(start, min(start + ROWS, count))
        candidates = np.concatenate([kept, rows])
        keep = np.arange(len(candidates)) < len(kept)
        for place, values in enumerate(measure(rows, candidates)):
            nearest = np.where(keep, values, -np.inf).argmax()
            if keep[nearest] and values[nearest] >= limit:
                representative[rows[place]], similarity[rows[place]] = candidates[nearest], values[nearest]
            else:
                keep[len(kept) + place] = True
        kept = candidates[keep]
    return Duplicates(representative, similarity)


def _check(limit: float) -> None:
    if not 0 < limit < 1:
        raise AfterglowError(f"The limit of duplicates must lie between 0 and 1, and it is {limit}.")
