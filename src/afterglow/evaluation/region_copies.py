"""Regions in which generations are compared with images, and what they have in common there (docs/guides/audit.md#regions)."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from afterglow.analysis.audit import cells_per_side
from afterglow.evaluation.ground_truth import NUM_NEIGHBORS
from afterglow.functional.distances import ALPHA, masked_contrast, mean_finite, middle_contrast
from afterglow.functional.pixels import to_unit
from afterglow.generations import Generations
from afterglow.measures.bright_ending import end_token_map
from afterglow.measures.guidance import score_difference
from afterglow.neighbors.clusters import NEAR_DUPLICATE_DISTANCE
from afterglow.neighbors.gallery import Gallery
from afterglow.neighbors.search import all_distances

PART_OF_MAP = 4  # a region of a map is one fourth of the image
NEAR_PART = 64  # one 64th of a set of 3,200 images are the 50 neighbors of the calibrated distance


class RegionMatch(NamedTuple):
    """The training image nearest to each of B images in a region.

    Attributes:
        rows: int64 [B].
        values: float32 [B], calibrated distance; a copy has a value below a limit of at most 1.
    """

    rows: Tensor
    values: Tensor


def num_near(count: int) -> int:
    """Number of other images that calibrate a distance in a set of `count` images: a 64th of them, at least 1, at most NUM_NEIGHBORS.

    A fixed number would include images that are not near at all in a small set, and the test would become lenient.
    """
    return min(NUM_NEIGHBORS, max(1, count // NEAR_PART))


def windows(side: int) -> Tensor:
    """All square windows of a half and of three eighths of the side whose edges lie on the lattice of cells, bool [K, cells, cells].

    Raises:
        AfterglowError: if the side is odd.
    """
    cells = cells_per_side(side)
    places, found = torch.arange(cells), []
    for width in sorted({cells // 2, (3 * cells + 4) // 8}, reverse=True):
        inside = [(places >= first) & (places < first + width) for first in range(cells - width + 1)]
        found += [rows[:, None] & columns for rows in inside for columns in inside]
    return torch.stack(found)


def map_regions(generations: Generations) -> Tensor:
    """The fourth of the cells in which a map is highest, for the score difference and for Bright Ending, bool [B, M, cells, cells].

    Ties go to the first cells. M is 0 for generations without captions.
    """
    cells = cells_per_side(generations.images.shape[-1])
    maps = [] if generations.guidance is None else [score_difference(generations, summed=True)]
    if generations.end_attention:
        maps.append(end_token_map(generations, generations.layers))
    if not maps:
        return torch.zeros(len(generations), 0, cells, cells, dtype=torch.bool)
    values = torch.stack([adaptive_avg_pool2d(values[:, None], cells)[:, 0].flatten(1) for values in maps], 1)
    order = values.argsort(dim=-1, descending=True, stable=True)[..., : cells**2 // PART_OF_MAP]
    return torch.zeros_like(values, dtype=torch.bool).scatter_(-1, order, True).unflatten(-1, (cells, cells))


def region_masks(regions: Tensor, side: int) -> Tensor:
    """Regions of cells, bool [..., cells, cells], as masks of pixels, bool [..., side, side]."""
    scale = side // regions.shape[-1]
    return regions.repeat_interleave(scale, -2).repeat_interleave(scale, -1)


def match_region(images: Tensor, masks: Tensor, gallery: Gallery, own: Tensor | None = None) -> RegionMatch:
    """Find the training image y nearest to each image in a region, and its calibrated distance d / (ALPHA * min(g, e, c)).

    All images that agree with y in the region, or belong to its cluster, share its content. d: distance to y; g and e: mean distance of
    the image and of y to the `num_near` nearest images that do not share it; c: contrast of y. Infinite where y has no content: the
    `middle_contrast` of y is below NEAR_DUPLICATE_DISTANCE, that is, one color covers half of the region.

    Args:
        images: uint8 [B, C, H, W].
        masks: bool [1, H, W] for all images, or [B, 1, H, W].
        gallery: the training images, without templates.
        own: int64 [B], rows of these images if they are training images: what shares their own content is left out.
    """
    clusters = torch.from_numpy(gallery.clusters)
    distances = all_distances(images, gallery.pixels, masks, gallery.device)
    if own is not None:
        distances[(distances < NEAR_DUPLICATE_DISTANCE) | (clusters == clusters[own, None])] = torch.inf
    rows = distances.argmin(1)
    shared_masks = masks.ndim == 3 and own is None  # the same y then means the same comparison
    found, which = rows.unique(return_inverse=True) if shared_masks else (rows, torch.arange(len(rows)))
    near = torch.from_numpy(np.asarray(gallery.pixels[found.numpy()]))
    from_near = all_distances(near, gallery.pixels, masks, gallery.device)
    sharing = (from_near < NEAR_DUPLICATE_DISTANCE) | (clusters == clusters[found, None])
    of_near = _mean_nearest(from_near.masked_fill_(sharing if own is None else sharing | distances.isinf(), torch.inf))[which]
    distance = distances.gather(1, rows[:, None])[:, 0]
    of_image = _mean_nearest(distances.masked_fill_(sharing[which], torch.inf))
    contrast, middle = (measure(to_unit(near), masks)[which] for measure in (masked_contrast, middle_contrast))
    values = distance / (ALPHA * torch.stack([of_image, of_near, contrast]).amin(0))
    return RegionMatch(rows, values.where((middle >= NEAR_DUPLICATE_DISTANCE) & values.isfinite(), torch.inf))


def _mean_nearest(distances: Tensor) -> Tensor:
    """Mean of the `num_near` smallest distances in each row, as far as they are finite; NaN without any."""
    return mean_finite(distances.topk(num_near(distances.shape[1]), dim=1, largest=False).values)


def images_with_content(rows: Tensor, masks: Tensor, gallery: Gallery) -> Tensor:
    """The images that share the content of images in a region, bool [R, N].

    Args:
        rows: int64 [R].
        masks: bool [1, H, W] for all rows, or [R, 1, H, W].
        gallery: the training images.
    """
    images = np.asarray(gallery.pixels[rows.numpy()])
    near = all_distances(images, gallery.pixels, masks, gallery.device) < NEAR_DUPLICATE_DISTANCE
    return near | (torch.from_numpy(gallery.clusters) == torch.from_numpy(gallery.clusters)[rows, None])
