"""Distances between images inside a mask, and the rules by which a distance makes an image a copy (docs/methods.md#memorized)."""

import torch
from torch import Tensor

ALPHA = 0.5  # Carlini et al. 2023, with the 50 nearest other clusters
CLOSE_RATIO = 1 / 3  # Yoon et al. 2023, Gu et al. 2023, Bonnaire et al. 2025
COPY_LIMITS = {"calibrated_l2": 1.0, "nn_ratio": CLOSE_RATIO}  # a generation whose distance is below the limit is a copy
ONE_LEVEL = 1 / 255


def masked_rms(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    """Root mean square difference inside a mask, [...]: d(a, b; m) = sqrt( sum_{c,hw} (a-b)^2 m / (C sum_hw m) ).

    docs/methods.md#memorized. With pixels in [0, 1] the distance is in [0, 1]; NaN where the mask is empty.

    Args:
        a: images, float [..., C, H, W].
        b: images, float [..., C, H, W], broadcast against `a`.
        mask: bool or soft [..., 1, H, W].

    >>> black, white = torch.zeros(3, 2, 2), torch.ones(3, 2, 2)
    >>> masked_rms(black, white, torch.ones(1, 2, 2, dtype=torch.bool))
    tensor(1.)
    """
    weight = mask.to(a.dtype)
    squares = ((a - b) ** 2 * weight).sum(dim=(-3, -2, -1))
    return (squares / (a.shape[-3] * weight.sum(dim=(-3, -2, -1)))).sqrt()


def masked_std(images: Tensor, mask: Tensor) -> Tensor:
    """Standard deviation over images, root mean square over the values of a mask: how much images differ inside it.

    Args:
        images: float [N, C, H, W].
        mask: bool [1, H, W].
    """
    variance = images.var(dim=0, unbiased=len(images) > 1)
    return ((variance * mask).sum() / (variance.shape[0] * mask.sum())).sqrt()


def masked_contrast(images: Tensor, mask: Tensor) -> Tensor:
    """Root mean square deviation of an image from its mean color inside a mask, [...], in the units of `masked_rms`.

    It is the distance to the nearest image of one color. Arguments as there.
    """
    weight = mask.to(images.dtype)
    mean = (images * weight).sum((-2, -1), keepdim=True) / weight.sum((-2, -1), keepdim=True)
    return masked_rms(images, mean.expand_as(images), mask)


def middle_contrast(images: Tensor, mask: Tensor) -> Tensor:
    """How far the middle pixel of a mask is from the middle color, [B]: the median distance of its pixels to their median color.

    0 if one color covers at least half of the mask, whatever the other pixels are (of an even number of values the median is the lower
    of the middle two). Unlike `masked_contrast` it does not grow with a few pixels that differ much.

    Args:
        images: float [B, C, H, W].
        mask: bool [1, H, W] or [B, 1, H, W].
    """
    pixels = images.masked_fill(~mask, torch.nan).flatten(2)
    apart = (pixels - pixels.nanmedian(-1, keepdim=True).values).square().mean(1).sqrt()
    return apart.nanmedian(-1).values


def mean_finite(distances: Tensor) -> Tensor:
    """Mean over the last dimension of the entries that are finite, [..., K] => [...]; NaN where there is none."""
    known = distances.isfinite()
    return distances.where(known, 0.0).sum(-1) / known.sum(-1)


def calibrated_l2(distance: Tensor, others: Tensor) -> Tensor:
    """Distance to an image relative to the distances to other training images, [...]: d / (ALPHA * mean of d_1 ... d_K).

    Carlini et al. 2023 with ALPHA = 0.5 and K = 50, over near-duplicate clusters instead of images
    (docs/methods.md#calibrated-distance). A value below 1 marks a copy.

    Args:
        distance: distance of each sample to the image it may copy, float [...].
        others: distances to the nearest other clusters, float [..., K]; infinite entries are not counted.
    """
    return distance / (ALPHA * mean_finite(others))


def nn_ratio(distance: Tensor, other: Tensor) -> Tensor:
    """Ratio d1/d2 of the distances to an image and to the nearest other cluster, [B]; a value below 1/3 marks a copy.

    Yoon et al. 2023, Gu et al. 2023, Bonnaire et al. 2025 (docs/methods.md#nn-ratio). NaN where both distances are below one gray level
    or there is no other cluster.

    Args:
        distance: distance to the image that a sample may copy, in [0, 1] pixels, float [B].
        other: distance to the nearest other cluster, float [B]; infinite where there is none.
    """
    undefined = ((distance < ONE_LEVEL) & (other < ONE_LEVEL)) | other.isinf()
    return torch.where(undefined, torch.nan, distance / other)


def masked_correlation(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    """Pearson correlation of two images inside a mask, mean over channels, float32 [B] (docs/methods.md#correlation).

    It separates a color drift (high correlation) from a missing copy. A channel that is constant in either image counts as 0.

    Args:
        a: images, [B, C, H, W], any dtype.
        b: images, [B, C, H, W].
        mask: bool [B, 1, H, W].
    """
    weight = mask.double()
    total = weight.sum((2, 3), keepdim=True)

    def centered(images: Tensor) -> Tensor:
        values = images.double()
        return (values - (values * weight).sum((2, 3), keepdim=True) / total) * weight

    a, b = centered(a), centered(b)
    size = (a.square().sum((2, 3)) * b.square().sum((2, 3))).sqrt()
    constant = size < 1e-9
    return torch.where(constant, 0.0, (a * b).sum((2, 3)) / size.masked_fill(constant, 1.0)).mean(1).float()
