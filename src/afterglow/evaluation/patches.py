"""The nearest training patch at each place of a generation (after Kamb and Ganguli, METHODS (m))."""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from afterglow.functional.pixels import to_unit
from afterglow.generations import Generations
from afterglow.neighbors.gallery import Gallery

PATCH = 5  # pixels a side
CHUNK = 64  # training images at a time: [B, CHUNK, H, W] is all that is ever there


def patch_distance(images: Tensor, gallery: Gallery, *, patch: int = PATCH) -> Tensor:
    """Distance of each pixel's patch to the nearest training patch at the same place, [B, H, W]; RMS of [0,1] pixels.

    images: uint8 [B, C, H, W]. At the border a patch is what lies in the image; of a local plant's template only what is
    planted, and only around planted pixels.
    """
    wanted = to_unit(images.numpy())
    best = torch.full((len(images), *images.shape[-2:]), torch.inf)
    for start in range(0, len(gallery.pixels), CHUNK):
        squares = _squares(wanted, to_unit(gallery.pixels[start : start + CHUNK]))
        best = torch.minimum(best, _patch_means(squares, patch).amin(1))
    count = _patch_means(torch.ones(1, 1, *images.shape[-2:]), patch)[0]
    best = best / count
    for template in gallery.templates:
        shown = torch.from_numpy(template.mask).float()
        squares = _squares(wanted, to_unit(template.pixels)[None]) * shown
        inside = _patch_means(squares, patch)[:, 0] / _patch_means(shown[None], patch)[0].clamp(min=1e-9)
        best = torch.minimum(best, inside.where(shown.bool(), torch.inf))
    return best.sqrt()


def with_patch_distance(generations: Generations, gallery: Gallery) -> Generations:
    """extras['patch_distance'] of every generation, 32 at a time."""
    parts = [patch_distance(generations.images[start : start + 32], gallery) for start in range(0, len(generations), 32)]
    return replace(generations, extras={**generations.extras, "patch_distance": torch.cat(parts)})


def _squares(wanted: Tensor, images: Tensor) -> Tensor:
    """Squared differences, mean over channels: [B, C, H, W] and [N, C, H, W] => [B, N, H, W]."""
    total = torch.zeros(len(wanted), len(images), *wanted.shape[-2:])
    for channel in range(wanted.shape[1]):
        total += (wanted[:, None, channel] - images[None, :, channel]).square()
    return total / wanted.shape[1]


def _patch_means(values: Tensor, patch: int) -> Tensor:
    """Sums over patches, of what lies in the image, over the whole patch's number of pixels: [B, N, H, W] as before."""
    return avg_pool2d(values, patch, stride=1, padding=patch // 2, count_include_pad=True)
