"""The images that a model is trained on, and their clusters nearest to an image (docs/methods.md#nearest-neighbors)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

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
    """Find the nearest clusters of a set for each query, exactly.

    Args:
        queries: B queries, as `search.nearest` takes them.
        rows: N rows, as `search.nearest` takes them.
        clusters: int64 [N], cluster of each row.
        num_clusters: number of clusters to find.
        mask: bool [1, H, W], region in which images are compared; None compares everything.
        device: device of the search.

    Returns:
        The nearest clusters, K = num_clusters.
    """
    count, available = len(queries), min(num_clusters, len(np.unique(clusters)))
    result = [torch.full((count, available), value) for value in MISSING]
    labels, pending, k = torch.from_numpy(clusters), np.arange(count), available
    while len(pending):
        index, distances = nearest(queries[pending], rows, k, mask=mask, device=device)
        first = _first_of_each(labels[index])
        enough = (first.sum(1) >= available).numpy()
        order = (~first[enough]).byte().argsort(dim=1, stable=True)[:, :available]
        for target, values in zip(result, (labels[index], distances, index), strict=True):
            target[pending[enough]] = values[enough].gather(1, order)
        pending, k = pending[~enough], 2 * k  # one cluster has many members near these queries
    padding = num_clusters - available
    return NeighborResult(*(pad(values, (0, padding), value=value) for values, value in zip(result, MISSING, strict=True)))


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
    """

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
        image_first: bool = False,
    ) -> NeighborResult:
        """Find the nearest training clusters of each image inside its mask.

        Args:
            images: uint8 [B, C, H, W].
            masks: bool [B, 1, H, W], or [1, H, W] for all images.
            exclude: for each image the clusters to leave out, such as that of its own plant; empty for none.
            num_clusters: number of clusters to find.
            image_first: if True, the nearest entry is always a training image, never a template.

        Returns:
            The nearest clusters, K = num_clusters.
        """
        masks = masks.expand(len(images), 1, *images.shape[-2:])
        distinct, which = masks.flatten(1).unique(dim=0, return_inverse=True)
        parts = []
        for number, mask in enumerate(distinct.view(-1, *masks.shape[1:])):
            rows = (which == number).nonzero()[:, 0]
            left_out = [exclude[row] for row in rows.tolist()] if exclude else []
            parts.append(self._nearest_in_mask(images[rows], mask, left_out, num_clusters, int(image_first)))
        order = which.argsort(stable=True).argsort()  # back to the order of the images
        return NeighborResult(*(torch.cat(values)[order] for values in zip(*parts, strict=True)))

    def _nearest_in_mask(
        self, images: Tensor, mask: Tensor, exclude: Sequence[Collection[int]], num_clusters: int, num_fixed: int
    ) -> NeighborResult:
        """`nearest` in one mask; the first `num_fixed` entries are training images."""
        more = max(map(len, exclude), default=0)
        near = nearest_clusters(images, self.pixels, self.clusters, num_clusters + more, mask=mask, device=self.device)
        clusters, distances, rows = (torch.cat(values, 1) for values in zip(near, *self._templates_in(mask, images), strict=True))
        for row, left_out in enumerate(exclude):
            distances[row, torch.isin(clusters[row], torch.tensor(list(left_out), dtype=torch.int64))] = torch.inf
        others = distances[:, num_fixed:].argsort(dim=1, stable=True) + num_fixed
        order = torch.cat([torch.arange(num_fixed).expand(len(images), -1), others], dim=1)[:, :num_clusters]
        distances = distances.gather(1, order)
        known = distances.isfinite()
        return NeighborResult(clusters.gather(1, order).where(known, -1), distances, rows.gather(1, order).where(known, -1))

    def _templates_in(self, mask: Tensor, images: Tensor) -> list[NeighborResult]:
        """The templates that cover at least half of a mask, each as a column of neighbors."""
        columns = []
        for number, template in enumerate(self.templates):
            overlap = torch.from_numpy(template.mask) & mask
            if 2 * overlap.sum() >= mask.sum():
                distances = masked_rms(to_unit(images), to_unit(template.pixels), overlap)[:, None]
                cluster, row = (torch.full(distances.shape, value) for value in (template.cluster, len(self.pixels) + number))
                columns.append(NeighborResult(cluster, distances, row))
        return columns

    def nearest_images(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Find the training image nearest to each image over the whole image.

        Args:
            images: uint8 [B, C, H, W].

        Returns:
            The training images, uint8 [B, C, H, W], and their clusters, int64 [B].
        """
        rows = nearest(images, self.pixels, 1, device=self.device)[0][:, 0].numpy()
        return torch.from_numpy(np.array(self.pixels[rows])), torch.from_numpy(self.clusters[rows])

    def image(self, row: int) -> np.ndarray:
        """Return training image `row`, uint8 [C, H, W], or from N on the region of a template, gray elsewhere."""
        if row < len(self.pixels):
            return np.asarray(self.pixels[np.array([row])][0])
        template = self.templates[row - len(self.pixels)]
        return np.where(template.mask, template.pixels, GRAY)


def tile_masks(side: int, grid: int) -> Tensor:
    """Return the masks of grid x grid tiles without a gap, row by row, bool [grid^2, 1, side, side].

    Args:
        side: width and height of the image in pixels.
        grid: number of tiles per row and per column.

    Raises:
        AfterglowError: if the tiles do not fit.
    """
    if grid < 1 or side % grid:
        raise AfterglowError(f"An image side of {side} pixels does not divide into {grid} tiles.")
    places = torch.arange(side) // (side // grid)
    return torch.stack([(places[:, None] == y) & (places == x) for y in range(grid) for x in range(grid)])[:, None]
