"""Features of images, and the Frechet distance between two sets of them (docs/methods.md#embeddings)."""

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from afterglow.functional.pixels import to_unit

NUM_CELLS = 4  # cells per side of the pixel features


def pixel_features(images: Tensor) -> Tensor:
    """Means of 4 x 4 cells, uint8 [B, C, H, W] => float [B, 16 C] in [0, 1]: colors and coarse shapes, without an encoder.

    >>> pixel_features(torch.full((1, 1, 8, 8), 255, dtype=torch.uint8)).shape
    torch.Size([1, 16])
    """
    return adaptive_avg_pool2d(to_unit(images), NUM_CELLS).flatten(1)


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """|mu_1 - mu_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2)) of features [N, D] and [M, D] (Heusel et al. 2017). Biased for few images."""
    first, second = first.double(), second.double()
    covariances = first.T.cov(), second.T.cov()
    root = torch.linalg.eigvals(covariances[0] @ covariances[1]).sqrt().real.sum()
    return float((first.mean(0) - second.mean(0)).square().sum() + covariances[0].trace() + covariances[1].trace() - 2 * root)
