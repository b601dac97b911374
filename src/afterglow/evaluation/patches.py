"""The nearest training patch at each place of a generation (Kamb and Ganguli 2024; docs/methods.md#patch-nearness)."""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from afterglow.functional.pixels import to_unit
from afterglow.generations import Generations
from afterglow.neighbors.gallery import Gallery

PATCH = 5  # pixels per side
_CHUNK = 64  # training images per step, which limits the memory to [B, _CHUNK, H, W]


def patch_distance(images: Tensor, gallery: Gallery, *, patch: int = PATCH) -> Tensor:
    """Distance of the patch around each pixel to the nearest training patch at the same place.

    Of a local plant's template only patches around planted pixels count.

    Args:
        images: uint8 [B, C, H, W].
        patch: pixels per side; at the border a patch is cut to the image.

    Returns:
        Root mean square distances in [0, 1] pixels, [B, H, W].
    """
    queries = to_unit(images.numpy())
    best = torch.full((len(images), *images.shape[-2:]), torch.inf)
    for start in range(0, len(gallery.pixels), _CHUNK):
        squares = _squares(queries, to_unit(gallery.pixels[start : start + _CHUNK]))
        best = torch.minimum(best, _patch_means(squares, patch).amin(1))
    best = best / _patch_means(torch.ones(1, 1, *images.shape[-2:]), patch)[0]
    for template in gallery.templates:
        planted = torch.from_numpy(template.mask).float()
        squares = _squares(queries, to_unit(template.pixels)[None]) * planted
        inside = _patch_means(squares, patch)[:, 0] / _patch_means(planted[None], patch)[0].clamp(min=1e-9)
        best = torch.minimum(best, inside.where(planted.bool(), torch.inf))
    return best.sqrt()


def with_patch_distance(generations: Generations, gallery: Gallery) -> Generations:
    """Add extras['patch_distance'], [B, H, W]."""
    return generations.with_extras(patch_distance=torch.cat([patch_distance(part, gallery) for part in generations.images.split(32)]))


def _squares(queries: Tensor, images: Tensor) -> Tensor:
    """Squared differences, mean over channels: [B, C, H, W] and [N, C, H, W] => [B, N, H, W]."""
    total = torch.zeros(len(queries), len(images), *queries.shape[-2:])
    for channel in range(queries.shape[1]):
        total += (queries[:, None, channel] - images[None, :, channel]).square()
    return total / queries.shape[1]


def _patch_means(values: Tensor, patch: int) -> Tensor:
    """Sums over the part of each patch that lies in the image, divided by the full number of pixels; [B, N, H, W]."""
    return avg_pool2d(values, patch, stride=1, padding=patch // 2, count_include_pad=True)
