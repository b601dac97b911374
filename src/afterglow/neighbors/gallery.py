"""Distances between images, near twins, and the nearest groups of the training set (METHODS section 4)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn.functional import pad

from afterglow.neighbors.search import distances, pieces

TWIN_DISTANCE = 0.03  # two images nearer than this are one group
BLOCKS = 1024  # images whose block means are compared with all at a time
PAIRS = 256  # near pairs compared in full at a time


def distance(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    """Root mean square difference inside a mask: d(a,b;m) = sqrt( sum_{c,hw} (a-b)^2 m / (C sum_hw m) ).

    a, b: [..., C, H, W] in [0, 1]; mask: bool or soft [..., 1, H, W]. Returns [...].
    """
    weight = mask.to(a.dtype)
    squares = ((a - b) ** 2 * weight).sum(dim=(-3, -2, -1))
    return (squares / (a.shape[-3] * weight.sum(dim=(-3, -2, -1)))).sqrt()


def to_unit(pixels: np.ndarray) -> Tensor:
    """uint8 [..., C, H, W] => float32 in [0, 1]."""
    return torch.from_numpy(np.array(pixels)).float() / 255


def near_duplicate_pairs(pixels: np.ndarray, limit: float = TWIN_DISTANCE) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs of images nearer than a limit over the whole image: first int64 [P], second int64 [P], distance float64 [P].

    pixels: uint8 [N, C, H, W]. Distances of block means never exceed distances of the images (Jensen), so that only pairs
    that are near in block means are compared in full: exact, at a sixteenth of the work or less.
    """
    count, channels, height, width = pixels.shape
    block = max(1, min(height, width) // 4)
    rows = [torch.nn.functional.avg_pool2d(to_unit(pixels[piece]), block).flatten(1) for piece in pieces(pixels)]
    means = torch.cat(rows)
    # where the blocks leave out a border, all of a difference may lie in the part that they cover
    near_means = (limit + 1e-3) * (height * width / ((height // block) * (width // block) * block**2)) ** 0.5
    full = torch.ones(1, height, width)
    found: list[list[np.ndarray]] = [[], [], []]
    for start in range(0, count, BLOCKS):
        near = torch.cdist(means[start : start + BLOCKS], means) < near_means * means.shape[1] ** 0.5
        i, j = (index.numpy() for index in near.nonzero(as_tuple=True))
        i, j = (i + start)[j > i + start], j[j > i + start]
        for part in range(0, len(i), PAIRS):
            a, b = i[part : part + PAIRS], j[part : part + PAIRS]
            apart = distance(to_unit(pixels[a]), to_unit(pixels[b]), full).numpy()
            for values, kept in zip((a, b, apart), found, strict=True):
                kept.append(values[apart < limit])
    first, second, apart = (np.concatenate([*kept, np.zeros(0)]) for kept in found)
    return first.astype(np.int64), second.astype(np.int64), apart


def correlated_pairs(pixels: np.ndarray, limit: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs of images whose gray levels correlate: 1 - r under a limit, r over the whole image; arrays as twin_pairs'.

    pixels: uint8 [N, C, H, W]. Brightness, contrast and hue play no part, so that a car in another color is still the same car.
    An image of one gray is like none.
    """
    parts = []
    for piece in pieces(pixels):
        gray = to_unit(pixels[piece]).mean(1).flatten(1)
        centered = gray - gray.mean(1, keepdim=True)
        size = centered.norm(dim=1, keepdim=True)
        parts.append(torch.where(size > 1e-4, centered / size.clamp(min=1e-4), 0.0))
    unit = torch.cat(parts)
    found: list[list[np.ndarray]] = [[], [], []]
    for start in range(0, len(unit), BLOCKS):
        apart = 1 - unit[start : start + BLOCKS] @ unit.T
        i, j = (index.numpy() for index in (apart < limit).nonzero(as_tuple=True))
        later = j > i + start
        for values, kept in zip((i + start, j, apart[i, j].numpy()), found, strict=True):
            kept.append(values[later])
    first, second, apart_all = (np.concatenate([*kept, np.zeros(0)]) for kept in found)
    return first.astype(np.int64), second.astype(np.int64), apart_all


def cluster_images(pixels: np.ndarray, families: np.ndarray) -> np.ndarray:
    """Groups: connected components of 'whole-image distance under .03', joined with families.

    pixels: uint8 [N, C, H, W]; families: int [N], -1 = none. Returns int64 [N], numbered from 0.
    """
    first, second, _ = near_duplicate_pairs(pixels)
    related = np.flatnonzero(families >= 0)
    head = {family: index for index, family in reversed(list(zip(related.tolist(), families[related].tolist(), strict=True)))}
    heads = np.array([head[family] for family in families[related].tolist()], dtype=np.int64)
    return connected(len(pixels), np.concatenate([first, related]), np.concatenate([second, heads]))


def connected(count: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The connected component of each of `count` things that these pairs join, int64 [count], numbered from 0."""
    graph = coo_array((np.ones(len(first), dtype=bool), (first, second)), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


@dataclass(frozen=True)
class Template:
    """The region that a local plant shows of its image: uint8 [C, H, W], bool [1, H, W], and the plant's group."""

    pixels: np.ndarray
    mask: np.ndarray
    cluster: int


@dataclass(frozen=True)
class Gallery:
    """Everything a model was trained on, for neighbor searches on a device. pixels: uint8 [N, C, H, W]; groups: int [N]."""

    pixels: np.ndarray
    clusters: np.ndarray
    templates: tuple[Template, ...] = ()
    device: torch.device | str = "cpu"

    def nearest(
        self,
        images: Tensor,
        masks: Tensor,
        exclude: Sequence[Collection[int]] = (),
        *,
        num_clusters: int = 50,
    ) -> tuple[Tensor, Tensor]:
        """The nearest groups of the training set, for each image inside its mask and without some groups (its plant's own).

        images: uint8 [B, C, H, W]; masks: bool [B, 1, H, W], or [1, H, W] for all; exclude: B sets of groups, or nothing. Returns
        groups int64 [B, K] and distances float32 [B, K], nearest first; group -1 at an infinite distance where there are
        fewer than K = num_groups. A local plant takes part by its template, where at least half of the mask overlaps it.
        """
        labels, inverse = np.unique(self.clusters, return_inverse=True)
        masks = masks.expand(len(images), 1, *images.shape[-2:])
        best = torch.full((len(images), len(labels)), torch.inf)
        for piece, near in distances(images, masks, self.pixels, device=self.device):
            best.scatter_reduce_(1, torch.from_numpy(inverse[piece]).expand(len(images), -1), near, "amin")
        best, names = self._with_templates(best, torch.from_numpy(labels), images.float() / 255, masks)
        for row, clusters in enumerate(exclude):
            best[row, torch.isin(names, torch.tensor(list(clusters), dtype=torch.int64))] = torch.inf
        found, order = best.sort(dim=1, stable=True)
        near_groups = names[order].masked_fill(found.isinf(), -1)
        missing = max(0, num_clusters - len(names))
        return pad(near_groups, (0, missing), value=-1)[:, :num_clusters], pad(found, (0, missing), value=torch.inf)[:, :num_clusters]

    def nearest_images(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The training image nearest to each image over the whole image, uint8 [B, C, H, W], and its group [B]."""
        everything = torch.ones(len(images), 1, *images.shape[-2:], dtype=torch.bool)
        best, rows = torch.full((len(images),), torch.inf), np.zeros(len(images), dtype=np.int64)
        for piece, near in distances(images, everything, self.pixels, device=self.device):
            smallest = near.min(dim=1)
            nearer = (smallest.values < best).numpy()
            rows[nearer] = (piece.start + smallest.indices.numpy())[nearer]
            best = torch.minimum(best, smallest.values)
        return torch.from_numpy(np.array(self.pixels[rows])), torch.from_numpy(self.clusters[rows])

    def _with_templates(self, best: Tensor, names: Tensor, wanted: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Columns of the templates; infinite where a template overlaps less than half of an image's mask."""
        for template in self.templates:
            overlap = torch.from_numpy(template.mask) & masks
            counts = 2 * overlap.flatten(1).sum(1) >= masks.flatten(1).sum(1)
            near = distance(wanted, to_unit(template.pixels), overlap).where(counts, torch.inf)
            best, names = torch.cat([best, near[:, None]], dim=1), torch.cat([names, torch.tensor([template.cluster])])
        return best, names
