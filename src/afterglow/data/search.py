"""Exact distances between pictures and a set of any size: matrix products over pieces of the set, on any device."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

PIECE = 2**24  # bytes of the set that are looked at together
QUERIES = 256  # pictures that are compared with a piece together


def pieces(pixels: Any) -> Iterator[slice]:
    """Slices of a set [N, ...] of uint8, each of at most PIECE bytes (at least one row)."""
    step = max(1, PIECE // max(1, int(np.prod(pixels.shape[1:]))))
    for start in range(0, len(pixels), step):
        yield slice(start, min(start + step, len(pixels)))


def distances(images: Tensor, masks: Tensor, pixels: Any, *, device: torch.device | str = "cpu") -> Iterator[tuple[slice, Tensor]]:
    """Root mean square distances of images to each piece of a set, inside the images' own masks, in [0, 1] pixels.

    images: uint8 [B, C, H, W]; masks: bool [B, 1, H, W]; pixels: uint8 [N, C, H, W], indexed like an array. Yields (slice of
    the set, float32 [B, n]), on the CPU. d^2 = sum m a^2 - 2 (m a) b + m b^2: grey levels are whole numbers, whose products and
    sums doubles hold exactly, so that a copy lies at 0.
    """
    wanted = images.to(device).flatten(1)
    distinct, which = masks.to(device).expand_as(images).flatten(1).unique(dim=0, return_inverse=True)
    sizes = distinct.sum(1).double()
    for piece in pieces(pixels):
        part = torch.from_numpy(np.array(pixels[piece])).to(device).flatten(1).double()
        squares = distinct.double() @ part.square().T
        found = []
        for rows, member in zip(wanted.split(QUERIES), which.split(QUERIES), strict=True):
            levels = rows.double()
            inside = levels * distinct[member]
            apart = (inside * levels).sum(1, keepdim=True) - 2 * inside @ part.T + squares[member]
            found.append((apart.clamp(min=0) / sizes[member][:, None]).sqrt().div(255).float().cpu())
        yield piece, torch.cat(found)
