"""Near-duplicates in a set of images, and the clusters that they form (docs/methods.md#nearest-neighbors)."""

import time
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn.functional import avg_pool2d

from afterglow.functional.distances import masked_rms
from afterglow.functional.pixels import to_unit
from afterglow.neighbors.search import iter_chunks

NEAR_DUPLICATE_DISTANCE = 0.03  # RMS in [0, 1] pixels below which two images belong to one cluster
BLOCK_ROWS = 1024  # images that are compared with the whole set at a time, fewer of a large set:
BLOCK_VALUES = 2**25  # distances at a time
PAIRS = 256  # pairs of images that are compared in full at a time

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]  # first row int64 [P], second row (larger) int64 [P], distance float64 [P]


def near_duplicate_pairs(pixels: Any, limit: float = NEAR_DUPLICATE_DISTANCE) -> Pairs:
    """Find all pairs of images whose RMS distance over the whole image is below a limit.

    Distances of block means never exceed distances of the images (Jensen), so that only pairs that are near in block means are
    compared in full: exact, with a sixteenth of the work or less.

    Args:
        pixels: uint8 [N, C, H, W].
        limit: RMS distance in [0, 1] pixels.
    """
    count, _, height, width = pixels.shape
    block = _block_side(pixels)
    means = torch.cat([avg_pool2d(to_unit(pixels[chunk]), block).flatten(1) for chunk in iter_chunks(pixels)])
    # the blocks may leave out a border, and all of a difference may lie in the part that they cover
    limit_of_means = (limit + 1e-3) * (height * width / ((height // block) * (width // block) * block**2)) ** 0.5
    full = torch.ones(1, height, width)
    pairs, block_rows = [], _block_rows(count)
    for start in range(0, count, block_rows):
        i, j = _near_rows(means[start : start + block_rows], means[start:], limit_of_means)
        i, j = (i + start)[j > i], (j + start)[j > i]
        for part in range(0, len(i), PAIRS):
            a, b = i[part : part + PAIRS], j[part : part + PAIRS]
            distance = masked_rms(to_unit(pixels[a]), to_unit(pixels[b]), full).numpy()
            pairs.append((a[distance < limit], b[distance < limit], distance[distance < limit]))
    return _join(pairs)


def near_duplicate_seconds(pixels: Any) -> float:
    """Seconds that `near_duplicate_pairs` will take for pixels [N, C, H, W], from a few rows of random numbers."""
    count, channels, height, width = pixels.shape
    block, block_rows, some = _block_side(pixels), _block_rows(count), min(count, 4 * BLOCK_ROWS)
    means = torch.rand(some, channels * (height // block) * (width // block))
    start = time.perf_counter()
    _near_rows(means[:block_rows], means, NEAR_DUPLICATE_DISTANCE)
    return (time.perf_counter() - start) * count**2 / (2 * some * min(block_rows, some))


def _block_side(pixels: Any) -> int:
    return max(1, min(pixels.shape[2:]) // 4)


def _block_rows(count: int) -> int:
    return max(1, min(BLOCK_ROWS, BLOCK_VALUES // max(1, count)))


def _near_rows(some: Tensor, means: Tensor, limit: float) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of rows of two sets of block means [A, D] and [B, D] whose root mean square distance is below a limit."""
    near = torch.cdist(some, means) < limit * means.shape[1] ** 0.5
    i, j = (index.numpy() for index in near.nonzero(as_tuple=True))
    return i, j


def correlated_pairs(pixels: np.ndarray, limit: float) -> Pairs:
    """Find all pairs of images whose gray levels correlate: 1 - r is below a limit, with Pearson's r over the whole image.

    Brightness, contrast and hue play no part, so that a car in another color counts as the same car. An image of one gray level
    correlates with none.

    Args:
        pixels: uint8 [N, C, H, W].
        limit: largest 1 - r, the distance of the pairs.
    """
    gray = torch.cat([to_unit(pixels[chunk]).mean(1).flatten(1) for chunk in iter_chunks(pixels)])
    centered = gray - gray.mean(1, keepdim=True)
    size = centered.norm(dim=1, keepdim=True)
    unit = torch.where(size > 1e-4, centered / size.clamp(min=1e-4), 0.0)
    pairs = []
    for start in range(0, len(unit), BLOCK_ROWS):
        distance = 1 - unit[start : start + BLOCK_ROWS] @ unit.T
        i, j = (index.numpy() for index in (distance < limit).nonzero(as_tuple=True))
        later = j > i + start
        pairs.append(((i + start)[later], j[later], distance[i, j].numpy()[later]))
    return _join(pairs)


def _join(pairs: list[Pairs]) -> Pairs:
    first, second, distance = (np.concatenate([*parts, np.zeros(0)]) for parts in zip(*pairs, strict=True)) if pairs else [np.zeros(0)] * 3
    return first.astype(np.int64), second.astype(np.int64), distance


def cluster_images(pixels: Any, families: np.ndarray) -> np.ndarray:
    """Cluster of each image, int64 [N] from 0: connected components of "distance below 0.03", joined with known families.

    Args:
        pixels: uint8 [N, C, H, W].
        families: int [N]; images with the same number belong together, -1 = no family.
    """
    first, second, _ = near_duplicate_pairs(pixels)
    related = np.flatnonzero(families >= 0)
    _, head, inverse = np.unique(families[related], return_index=True, return_inverse=True)
    return connected(len(pixels), np.concatenate([first, related]), np.concatenate([second, related[head][inverse]]))


def connected(count: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the connected component of each of `count` nodes, int64 [count] from 0; first, second: int [P], the edges."""
    graph = coo_array((np.ones(len(first), dtype=bool), (first, second)), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)
