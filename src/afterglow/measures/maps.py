"""Maps of extras that only a model can give, high where copied (docs/methods.md#local-measures), and maps that know nothing of a model.

A map that does not beat the trivial ones locates nothing (docs/methods.md#localization-metrics).
"""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from afterglow.generations import Generations


def curvature_difference(generations: Generations, *, relu: bool = True, of_score: bool = False) -> Tensor:
    """-sum_c diag J(eps_c - eps_u) at the last step, [B, h, w] (mem-curv-diff 2026; docs/methods.md#curvature-difference).

    Hutchinson's estimate over K Rademacher vectors (K is in the provenance), without the factor 1/sigma.

    Args:
        generations: with extras['curvature'].
        relu: set negative values to 0, as the authors do.
        of_score: -sum_c diag J(s_c - s_u) with s = -eps / sigma, the curvature of log p(x|c) - log p(x): the other sign. Where a
            caption fixes a pixel, eps_c = (x - x_0) / sigma rises with it faster than eps_u, and this map is positive.
    """
    values = generations.extras["curvature"].float() * (-1 if of_score else 1)
    return values.relu() if relu else values


def early_difference(generations: Generations, *, summed: bool) -> Tensor:
    """(eps - eps_early)^2 summed over channels, at the last step or over all, [B, h, w]; eps^2 (docs/methods.md#early-difference).

    It compares the model with an early checkpoint of its own run along the model's own trajectory, and needs no text.
    """
    return generations.extras[f"early_difference.{'summed' if summed else 'last'}"].float()


def patch_nearness(generations: Generations) -> Tensor:
    """Minus the distance of each pixel's patch to the nearest training patch at the same place, [B, H, W]; RMS of [0, 1] pixels.

    After Kamb and Ganguli (docs/methods.md#patch-nearness): a copied region consists of training patches, the plant's own included.
    """
    return -generations.extras["patch_distance"].float()


def self_attention_concentration(generations: Generations) -> Tensor:
    """1 - H_p / ln P of each pixel's self-attention at the last step, mean over heads and layers, [B, h, w] in [0, 1].

    Our definition (docs/methods.md#self-attention): 1 where a pixel attends to one pixel only, 0 where to all alike.
    """
    return generations.extras["self_attention"].float()


def split_product(generations: Generations, *, cross: bool = False) -> Tensor:
    """<v_c, q_c> of the patch tokens of sample and reference at each position c, [B, h, w]; cross: max_d <v_c, q_d>.

    Somepalli et al. 2023 (docs/methods.md#split-product); their score is the maximum over c. Tokens have norm 1.
    """
    return generations.extras["split_product.cross" if cross else "split_product"].float()


def all_ones(generations: Generations) -> Tensor:
    """Constant map, [B, H, W]."""
    return torch.ones(len(generations), *generations.images.shape[-2:])


def centered_gaussian(generations: Generations) -> Tensor:
    """exp(-r^2 / 2 sigma^2) with sigma a quarter of the side, [B, H, W]: most objects are in the middle of an image."""
    height, width = generations.images.shape[-2:]
    rows, columns = torch.linspace(-2, 2, height), torch.linspace(-2, 2, width)
    return torch.exp(-(rows[:, None] ** 2 + columns[None] ** 2) / 2).expand(len(generations), -1, -1)


def luminance(generations: Generations) -> Tensor:
    """Mean over channels of the generated image, [B, H, W] in [0, 1]."""
    return generations.images.float().mean(1) / 255


def local_contrast(generations: Generations) -> Tensor:
    """Standard deviation of the luminance in 3 x 3 windows, over the pixels that lie in the image, [B, H, W]."""
    # whole numbers in float64: flat areas have exactly 0 and tie, whatever their color
    light = generations.images.double().sum(1, keepdim=True)
    count, total, squares = (avg_pool2d(values, 3, 1, 1, divisor_override=1) for values in (torch.ones_like(light), light, light**2))
    deviation = (count * squares - total**2).sqrt() / count
    return (deviation[:, 0] / (255 * generations.images.shape[1])).float()
