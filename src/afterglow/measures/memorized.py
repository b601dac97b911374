"""When a generation is a copy (METHODS section 4). Pixels in [0, 1], distances are root mean squares inside a mask."""

import torch
from torch import Tensor

from afterglow.generations import Generations

ALPHA = 0.5  # Carlini et al. 2023, with the 50 nearest other groups
CLOSE_RATIO = 1 / 3  # Yoon et al. 2023, Gu et al. 2023, Bonnaire et al. 2025
ONE_LEVEL = 1 / 255
COPIED_OUTSIDE = 1 / 3  # outside diversity under which a local plant is copied whole


def masked_distance(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    """d(a,b;m) = sqrt( sum_{c,hw} (a-b)^2 m / (C sum_hw m) ). a, b: [B, C, H, W] in [0,1]; mask: [B, 1, H, W]. Returns [B]."""
    weight = mask.to(a.dtype)
    return (((a - b) ** 2 * weight).sum((1, 2, 3)) / (a.shape[1] * weight.sum((1, 2, 3)))).sqrt()


def plain_distance(generations: Generations) -> Tensor:
    """Distance to the reference in the plant's mask, [B]."""
    assert generations.references is not None and generations.eval_mask is not None
    return masked_distance(generations.images.float() / 255, generations.references.float() / 255, generations.eval_mask)


def reconstruction_error(generations: Generations) -> Tensor:
    """What a latent model's autoencoder alone takes from the image that a generation is compared with, in the mask, [B]."""
    return generations.extras["reconstruction_error"]


def calibrated_l2(generations: Generations) -> Tensor:
    """d(x_hat, plant; m) / (0.5 * mean of d(x_hat, x_g; m) over the 50 nearest other groups g), [B]; a copy is under 1.

    Carlini et al. 2023 (n = 50, alpha = .5), over groups and inside the mask; fewer than 50 other groups: all of them.
    """
    assert generations.neighbors is not None
    known = generations.neighbors.clusters[:, 1:] >= 0
    others = generations.neighbors.distances[:, 1:].where(known, 0.0).sum(1) / known.sum(1)
    return plain_distance(generations) / (ALPHA * others)


def memorized(generations: Generations) -> Tensor:
    """1 where the calibrated distance is under 1, else 0, [B]."""
    return (calibrated_l2(generations) < 1).float()


def nn_ratio(generations: Generations) -> Tensor:
    """d1/d2: distance to the reference over distance to the nearest other group, [B]; a copy is under 1/3.

    NaN, to be left out, where both distances are under one gray level, or there is no other group.
    """
    assert generations.neighbors is not None
    own, other = plain_distance(generations), generations.neighbors.distances[:, 1]
    untold = ((own < ONE_LEVEL) & (other < ONE_LEVEL)) | other.isinf()
    return torch.where(untold, torch.nan, own / other)


def masked_correlation(generations: Generations) -> Tensor:
    """Pearson correlation with the reference inside the mask, mean over channels, [B]: tells color drift from a missing copy.

    A channel in which either image is constant counts as 0.
    """
    assert generations.references is not None and generations.eval_mask is not None
    weight = generations.eval_mask.double()
    total = weight.sum((2, 3), keepdim=True)

    def centered(images: Tensor) -> Tensor:
        values = images.double()
        return (values - (values * weight).sum((2, 3), keepdim=True) / total) * weight

    a, b = centered(generations.images), centered(generations.references)
    size = (a.square().sum((2, 3)) * b.square().sum((2, 3))).sqrt()
    constant = size < 1e-9
    return torch.where(constant, 0.0, (a * b).sum((2, 3)) / size.masked_fill(constant, 1.0)).mean(1).float()


def plant_memorized(generation_memorized: Tensor) -> float:
    """1 if at least half of a plant's seeds are memorized, else 0. generation_memorized: [S] of 0 and 1."""
    return float(generation_memorized.float().mean() >= 0.5)


def outside_diversity(generations: Generations) -> float:
    """Standard deviation over the seeds of one local plant outside its mask / that of the plant's own variants there."""
    assert generations.eval_mask is not None
    outside = ~generations.eval_mask[0]
    images = generations.images.float() / 255
    variance = images.var(dim=0, unbiased=len(images) > 1)
    spread = ((variance * outside).sum() / (variance.shape[0] * outside.sum())).sqrt()
    return float(spread / generations.extras["background_spread"][0])


def local_to_global(generations: Generations) -> float:
    """1 if one local plant's generations are copied whole, else 0.

    Outside diversity under 1/3, or (finite variants) half of the seeds calibrated under 1 to one variant outside the mask.
    """
    copies_of_a_variant = (generations.extras["background_distance"] < 1).float().mean() >= 0.5
    return float(outside_diversity(generations) < COPIED_OUTSIDE or bool(copies_of_a_variant))
