"""Conversions between stored pixels (uint8), [0, 1] (distances) and [-1, 1] (models), and the resizing of maps."""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate


def to_unit(pixels: Tensor | np.ndarray) -> Tensor:
    """Convert uint8 pixels of any shape to float32 in [0, 1].

    >>> to_unit(torch.tensor([0, 51, 255], dtype=torch.uint8))
    tensor([0.0000, 0.2000, 1.0000])
    """
    return _tensor(pixels).float() / 255


def to_signed(pixels: Tensor | np.ndarray) -> Tensor:
    """Convert uint8 pixels of any shape to float32 in [-1, 1], the range of the models."""
    return _tensor(pixels).float() / 127.5 - 1


def signed_to_unit(images: Tensor) -> Tensor:
    """Convert images in [-1, 1] to [0, 1]; values outside are clipped."""
    return (images / 2 + 0.5).clamp(0, 1)


def from_signed(images: Tensor) -> Tensor:
    """Convert images in [-1, 1] to uint8; values outside are clipped."""
    return (signed_to_unit(images) * 255).round().to(torch.uint8)


def resize(maps: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Resize maps bilinearly, float [B, h, w] => [B, *size]; maps that have the size already are returned unchanged."""
    if maps.shape[-2:] == tuple(size):
        return maps
    return interpolate(maps[:, None], size=tuple(size), mode="bilinear", align_corners=False)[:, 0]


def _tensor(pixels: Tensor | np.ndarray) -> Tensor:
    return pixels if isinstance(pixels, Tensor) else torch.from_numpy(np.array(pixels))
