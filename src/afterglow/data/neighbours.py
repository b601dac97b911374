"""Distances between pictures, near twins, and the nearest groups of the training set (METHODS section 4)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn.functional import pad

TWIN_DISTANCE = 0.03  # two pictures nearer than this are one group
CHUNK = 4096  # pictures compared at a time, so that the set is never copied whole


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


def group_pictures(pixels: np.ndarray, families: np.ndarray) -> np.ndarray:
    """Groups: connected components of 'whole-picture distance under .03', joined with families.

    pixels: uint8 [N, C, H, W]; families: int [N], -1 = none. Returns int64 [N], numbered from 0.
    Distances of block means never exceed distances of the pictures (Jensen), so that only pairs that are near in
    block means are compared in full: exact, at a sixteenth of the work or less.
    """
    count, channels, height, width = pixels.shape
    block = max(1, min(height, width) // 4)
    rows = [torch.nn.functional.avg_pool2d(to_unit(pixels[i : i + CHUNK]), block).flatten(1) for i in range(0, count, CHUNK)]
    means = torch.cat(rows)
    # where the blocks leave out a border, all of a difference may lie in the part that they cover
    near_means = (TWIN_DISTANCE + 1e-3) * (height * width / ((height // block) * (width // block) * block**2)) ** 0.5
    full = torch.ones(1, height, width)
    left, right = [], []
    for start in range(0, count, CHUNK // 4):
        near = torch.cdist(means[start : start + CHUNK // 4], means) < near_means * means.shape[1] ** 0.5
        i, j = (index.numpy() for index in near.nonzero(as_tuple=True))
        i, j = (i + start)[j > i + start], j[j > i + start]
        for part in range(0, len(i), CHUNK):
            a, b = i[part : part + CHUNK], j[part : part + CHUNK]
            twins = (distance(to_unit(pixels[a]), to_unit(pixels[b]), full) < TWIN_DISTANCE).numpy()
            left.append(a[twins])
            right.append(b[twins])
    related = np.flatnonzero(families >= 0)
    first = {family: index for index, family in reversed(list(zip(related.tolist(), families[related].tolist(), strict=True)))}
    left.append(related)
    right.append(np.array([first[family] for family in families[related].tolist()], dtype=np.int64))
    i, j = np.concatenate(left), np.concatenate(right)
    graph = coo_array((np.ones(len(i), dtype=bool), (i, j)), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


@dataclass(frozen=True)
class Template:
    """The region that a local plant shows of its picture: uint8 [C, H, W], bool [1, H, W], and the plant's group."""

    pixels: np.ndarray
    mask: np.ndarray
    group: int


@dataclass(frozen=True)
class Gallery:
    """Everything a model was trained on, for neighbour searches. pixels: uint8 [N, C, H, W]; groups: int [N]."""

    pixels: np.ndarray
    groups: np.ndarray
    templates: tuple[Template, ...] = ()

    def nearest(
        self, images: Tensor, mask: Tensor, exclude: Sequence[Collection[int]] = (), *, num_groups: int = 50
    ) -> tuple[Tensor, Tensor]:
        """The nearest groups of the training set inside a mask, for each image without some groups (its plant's own).

        images: uint8 [B, C, H, W]; mask: bool [1, H, W]; exclude: B sets of groups, or nothing. Returns groups int64 [B, K]
        and distances float32 [B, K], nearest first; group -1 at an infinite distance where there are fewer than
        K = num_groups. A local plant takes part by its template, where at least half of the mask overlaps it.
        """
        labels, inverse = np.unique(self.groups, return_inverse=True)
        best = torch.full((len(images), len(labels)), torch.inf)
        wanted = images.float() / 255
        inside = mask.expand(images.shape[1:]).flatten()
        for start in range(0, len(self.pixels), CHUNK):
            part = to_unit(self.pixels[start : start + CHUNK]).flatten(1)[:, inside]
            # direct differences (no |a|^2 - 2ab + |b|^2): a copy's distance near 0 must not drown in rounding
            near = torch.cdist(wanted.flatten(1)[:, inside], part, compute_mode="donot_use_mm_for_euclid_dist") / inside.sum() ** 0.5
            best.scatter_reduce_(1, torch.from_numpy(inverse[start : start + CHUNK]).expand(len(images), -1), near, "amin")
        best, names = self._with_templates(best, torch.from_numpy(labels), wanted, mask)
        for row, groups in enumerate(exclude):
            best[row, torch.isin(names, torch.tensor(list(groups), dtype=torch.int64))] = torch.inf
        distances, order = best.sort(dim=1, stable=True)
        found = names[order].masked_fill(distances.isinf(), -1)
        missing = max(0, num_groups - len(names))
        return pad(found, (0, missing), value=-1)[:, :num_groups], pad(distances, (0, missing), value=torch.inf)[:, :num_groups]

    def nearest_pictures(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The training picture nearest to each image over the whole picture, uint8 [B, C, H, W], and its group [B]."""
        wanted = images.flatten(1).float() / 255
        distances = []
        for start in range(0, len(self.pixels), CHUNK):
            part = to_unit(self.pixels[start : start + CHUNK]).flatten(1)
            distances.append(torch.cdist(wanted, part, compute_mode="donot_use_mm_for_euclid_dist"))
        rows = torch.cat(distances, dim=1).argmin(dim=1).numpy()
        return torch.from_numpy(self.pixels[rows]), torch.from_numpy(self.groups[rows])

    def _with_templates(self, best: Tensor, names: Tensor, wanted: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        for template in self.templates:
            overlap = torch.from_numpy(template.mask) & mask
            if 2 * overlap.sum() >= mask.sum():
                near = distance(wanted, to_unit(template.pixels), overlap)
                best, names = torch.cat([best, near[:, None]], dim=1), torch.cat([names, torch.tensor([template.group])])
        return best, names
