"""The images that a model is trained on, and their clusters nearest to an image (docs/methods.md#nearest-neighbors)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from afterglow.errors import AfterglowError
from afterglow.functional.distances import masked_rms
from afterglow.functional.pixels import to_unit
from afterglow.neighbors.search import nearest

GRAY = np.uint8(128)  # shown where a template has no pixels


class NeighborResult(NamedTuple):
    """The nearest clusters of B images, each by its nearest member, nearest first.

    Attributes:
        clusters: int64 [B, K]; -1 where there are fewer than K clusters.
        distances: float32 [B, K]; infinite where there are fewer.
        rows: int64 [B, K], nearest member of each cluster; N + t is template t of a gallery of N images; -1 where there are fewer.
    """

    clusters: Tensor
    distances: Tensor
    rows: Tensor


MISSING = (-1, torch.inf, -1)  # cluster, distance and row where there is no neighbor


def nearest_clusters(
    queries: Any, rows: Any, clusters: np.ndarray, num_clusters: int, *, mask: Tensor | None = None, device: torch.device | str = "cpu"
) -> NeighborResult:
    """Find the nearest clusters of a set for each query, exactly; arguments as in `search.nearest`.

    Args:
        queries: B queries.
        rows: N rows.
        clusters: int64 [N], cluster of each row.
        num_clusters: number of clusters to find, K.
        mask: region in which images are compared.
        device: device of the search.
    """
    available = min(num_clusters, len(np.unique(clusters)))
    result = NeighborResult(*(torch.full((len(queries), num_clusters), value) for value in MISSING))
    labels, pending, k = torch.from_numpy(clusters), np.arange(len(queries)), available
    while len(pending):
        own_mask = mask[pending] if mask is not None and mask.ndim == 4 else mask
        index, distances = nearest(queries[pending], rows, k, mask=own_mask, device=device)
        first = _first_of_each(labels[index])
        enough = (first.sum(1) >= available).numpy()
        order = (~first[enough]).byte().argsort(dim=1, stable=True)[:, :available]
        for target, values in zip(result, (labels[index], distances, index), strict=True):
            target[pending[enough], :available] = values[enough].gather(1, order)
        pending, k = pending[~enough], 2 * k  # one cluster has many members near these queries
    return result


def _first_of_each(clusters: Tensor) -> Tensor:
    """Mark the first occurrence of each cluster in its row, bool [B, K]. clusters: int64 [B, K]."""
    ordered, order = clusters.sort(dim=1, stable=True)
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return torch.zeros_like(first).scatter_(1, order, first)


@dataclass(frozen=True)
class Template:
    """The region that a local plant shows of its image.

    Attributes:
        pixels: uint8 [C, H, W], the image.
        mask: bool [1, H, W], the region.
        cluster: cluster of the image.
    """

    pixels: np.ndarray
    mask: np.ndarray
    cluster: int


@dataclass(frozen=True)
class Gallery:
    """Everything that a model is trained on.

    Attributes:
        pixels: uint8 [N, C, H, W], training images.
        clusters: int64 [N], cluster of each image.
        templates: regions of local plants; each is a cluster of its own in a mask of which it covers at least half.
        device: device of the searches.
        names: N strings, by which the source names the images; empty if unknown.
    """

    pixels: np.ndarray
    clusters: np.ndarray
    templates: tuple[Template, ...] = ()
    device: torch.device | str = "cpu"
    names: tuple[str, ...] = ()

    def nearest(
        self, images: Tensor, masks: Tensor, exclude: Sequence[Collection[int]] = (), *, num_clusters: int = 50, image_first: bool = False
    ) -> NeighborResult:
        """Find the nearest training clusters of each image inside its mask.

        Args:
            images: uint8 [B, C, H, W].
            masks: bool [B, 1, H, W], or [1, H, W] for all images.
            exclude: for each image the clusters to leave out, such as that of its own plant; empty for none.
            num_clusters: number of clusters to find, K.
            image_first: if True, the nearest entry is always a training image, never a template.
        """
        more = max(map(len, exclude), default=0)
        near = nearest_clusters(images, self.pixels, self.clusters, num_clusters + more, mask=masks, device=self.device)
        templates = [self._template_neighbor(number, masks, images) for number in range(len(self.templates))]
        clusters, distances, rows = (torch.cat(values, 1) for values in zip(near, *templates, strict=True))
        for row, left_out in enumerate(exclude):
            distances[row, torch.isin(clusters[row], torch.tensor(list(left_out), dtype=torch.int64))] = torch.inf
        keys = distances.clone()
        if image_first:
            keys[:, 0] = -1
        order = keys.argsort(dim=1, stable=True)[:, :num_clusters]
        distances = distances.gather(1, order)
        known = distances.isfinite()
        return NeighborResult(clusters.gather(1, order).where(known, -1), distances, rows.gather(1, order).where(known, -1))

    def _template_neighbor(self, number: int, masks: Tensor, images: Tensor) -> NeighborResult:
        """A template as neighbor of each image, [B, 1]; infinitely far in masks of which it covers less than half."""
        template = self.templates[number]
        overlap = torch.from_numpy(template.mask) & masks
        covers = 2 * overlap.sum((-3, -2, -1)) >= masks.sum((-3, -2, -1))
        distances = masked_rms(to_unit(images), to_unit(template.pixels), overlap).where(covers, torch.inf)[:, None]
        cluster, row = (torch.full(distances.shape, value) for value in (template.cluster, len(self.pixels) + number))
        return NeighborResult(cluster, distances, row)

    def nearest_images(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The training image nearest to each image [B, C, H, W] over the whole image, uint8 [B, C, H, W], and its cluster, int64 [B]."""
        rows = nearest(images, self.pixels, 1, device=self.device)[0][:, 0].numpy()
        return torch.from_numpy(np.array(self.pixels[rows])), torch.from_numpy(self.clusters[rows])

    def mask(self, row: int) -> np.ndarray:
        """Return the pixels that the model is shown of `image(row)`, bool [1, H, W]: all, or the region of a template."""
        if row < len(self.pixels):
            return np.ones((1, *self.pixels.shape[2:]), dtype=bool)
        return self.templates[row - len(self.pixels)].mask

    def image(self, row: int) -> np.ndarray:
        """Return training image `row`, uint8 [C, H, W], or from N on the region of a template, gray elsewhere."""
        if row < len(self.pixels):
            return np.asarray(self.pixels[np.array([row])][0])
        template = self.templates[row - len(self.pixels)]
        return np.where(template.mask, template.pixels, GRAY)


def tile_masks(side: int, grid: int) -> Tensor:
    """The masks of grid x grid tiles of an image without a gap, row by row, bool [grid^2, 1, side, side].

    Raises:
        AfterglowError: if `grid` does not divide `side`.
    """
    if grid < 1 or side % grid:
        raise AfterglowError(f"An image side of {side} pixels does not divide into {grid} tiles.")
    places = torch.arange(side) // (side // grid)
    return torch.stack([(places[:, None] == y) & (places == x) for y in range(grid) for x in range(grid)])[:, None]
