"""The nearest groups of a training set of any size, for many images in one mask (METHODS section 4): `nearest`, by groups."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from afterglow.neighbors.gallery import Gallery, distance, to_unit
from afterglow.neighbors.search import nearest


@dataclass(frozen=True)
class NeighborResult:
    """Nearest groups of G images, nearest first. groups: int64 [G, K]; distances: float32 [G, K]; rows: int64 [G, K].

    rows: of the set, the nearest of each group; from N on, the gallery's templates. Where there are fewer groups, group and row
    are -1 at an infinite distance.
    """

    clusters: Tensor
    distances: Tensor
    rows: Tensor


def nearest_clusters(
    queries: Any, rows: Any, clusters: np.ndarray, num_clusters: int, *, mask: Tensor | None = None, device: torch.device | str = "cpu"
) -> NeighborResult:
    """The `num_groups` nearest groups of a set for each query, each by its nearest member; exact, as `nearest`.

    queries, rows, mask: as `nearest` takes them; groups: int64 [N]. Queries near which one group has many members are asked again for more.
    """
    count, wanted = len(queries), min(num_clusters, len(np.unique(clusters)))
    found = [torch.full((count, wanted), fill) for fill in (-1, torch.inf, -1)]
    names, asked, k = torch.from_numpy(clusters), np.arange(count), wanted
    while len(asked):
        index, apart = nearest(queries[asked], rows, k, mask=mask, device=device)
        first = first_of_each(names[index])
        enough = (first.sum(1) >= wanted).numpy()
        order = (~first[enough]).byte().argsort(dim=1, stable=True)[:, :wanted]
        for kept, values in zip(found, (names[index], apart, index), strict=True):
            kept[asked[enough]] = values[enough].gather(1, order)
        asked, k = asked[~enough], 2 * k
    missing = num_clusters - wanted
    return NeighborResult(*(pad(values, (0, missing), value=fill) for values, fill in zip(found, (-1, torch.inf, -1), strict=True)))


def first_of_each(clusters: Tensor) -> Tensor:
    """Where a group stands for the first time in its row, bool [G, K]. groups: int64 [G, K]."""
    ordered, order = clusters.sort(dim=1, stable=True)
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return torch.zeros_like(first).scatter_(1, order, first)


def near_gallery(images: Tensor, gallery: Gallery, num_clusters: int, *, mask: Tensor, alone: int) -> NeighborResult:
    """The nearest groups of a gallery inside one mask: its images, and its templates where they overlap half of the mask.

    images: uint8 [G, C, H, W]; mask: bool [1, H, W]. alone: of the nearest groups, so many are images' and no templates'.
    """
    near = nearest_clusters(images, gallery.pixels, gallery.clusters, num_clusters, mask=mask, device=gallery.device)
    columns = [(near.clusters, near.distances, near.rows)]
    for number, template in enumerate(gallery.templates):
        overlap = torch.from_numpy(template.mask) & mask
        if 2 * overlap.sum() < mask.sum():
            continue
        apart = distance(images.float() / 255, to_unit(template.pixels), overlap)[:, None]
        cluster, row = (torch.full_like(near.clusters[:, :1], value) for value in (template.cluster, len(gallery.pixels) + number))
        columns.append((cluster, apart, row))
    clusters, apart, rows = (torch.cat(values, dim=1) for values in zip(*columns, strict=True))
    order = torch.cat([torch.arange(alone).expand(len(images), -1), apart[:, alone:].argsort(dim=1, stable=True) + alone], dim=1)
    order = order[:, :num_clusters]
    return NeighborResult(clusters.gather(1, order), apart.gather(1, order), rows.gather(1, order))


def image_of_row(gallery: Gallery, row: int) -> np.ndarray:
    """uint8 [C, H, W]: an image of the gallery, or from N on what its templates show of theirs (the rest gray)."""
    if row < len(gallery.pixels):
        return np.asarray(gallery.pixels[np.array([row])][0])
    template = gallery.templates[row - len(gallery.pixels)]
    return np.where(template.mask, template.pixels, np.uint8(128))


def tiles(side: int, grid: int) -> Tensor:
    """The masks of grid x grid tiles without a gap, row by row, bool [grid^2, 1, side, side]. Raises ValueError where they do not fit."""
    if grid < 1 or side % grid:
        raise ValueError(f"A side of {side} pixels does not divide into {grid} tiles.")
    size = side // grid
    places = torch.arange(side) // size
    return torch.stack([(places[:, None] == y) & (places == x) for y in range(grid) for x in range(grid)])[:, None]
