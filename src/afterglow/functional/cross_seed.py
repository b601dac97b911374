"""What samples of one caption have in common: no training image and no model is needed (docs/methods.md#tiled-l2, #edge-consistency)."""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, pad

from afterglow.functional.pixels import to_unit

NUM_TILES = 4  # per side: Carlini et al. 2023 cut 512 pixels into 16 tiles of 128
EDGE = 1.5  # Sobel magnitude summed over RGB, pixels in [0, 1] (Webster 2023)


def tiled_l2(images: Tensor, *, local: bool = False) -> Tensor:
    """Mean distance of each sample to the others, each distance the largest over 16 tiles, [n] (Carlini et al. 2023).

    Args:
        images: at least two samples of one caption, uint8 [n, C, H, W].
        local: take the smallest distance over tiles instead, which asks for a common region only.

    >>> tiled_l2(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 8, 8))
    tensor([1., 1.])
    """
    values = to_unit(images)
    squares = (values[:, None] - values[None]).square().mean(2)  # [n, n, H, W]
    tiles = avg_pool2d(squares, (squares.shape[-2] // NUM_TILES, squares.shape[-1] // NUM_TILES)).flatten(2).sqrt()
    distances = tiles.amin(2) if local else tiles.amax(2)  # 0 on the diagonal
    return distances.sum(1) / (len(images) - 1)


def edges(images: Tensor) -> Tensor:
    """Pixels whose Sobel magnitude, summed over channels, exceeds 1.5 (Webster 2023): uint8 [B, C, H, W] => bool [B, H, W].

    A gray image counts as RGB.
    """
    light = to_unit(images)
    across = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    kernels = torch.stack([across, across.T])[:, None]
    flat = pad(light.flatten(0, 1)[:, None], (1, 1, 1, 1), mode="replicate")
    magnitude = conv2d(flat, kernels).square().sum(1).sqrt().unflatten(0, light.shape[:2])
    return magnitude.sum(1) * (3 / light.shape[1]) > EDGE


def edge_consistency(edge_maps: Tensor) -> Tensor:
    """Share of the pixels that are edges in more than half of a caption's samples (Webster 2023). edge_maps: bool [n, H, W]."""
    return (edge_maps.float().mean(0) > 0.5).float().mean()
