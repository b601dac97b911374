"""When a generation is a copy (METHODS section 4). Pixels in [0, 1], distances are root mean squares inside a mask."""

import torch
from torch import Tensor

from afterglow.evidence import Evidence

ALPHA = 0.5  # Carlini et al. 2023, with the 50 nearest other groups
CLOSE_RATIO = 1 / 3  # Yoon et al. 2023, Gu et al. 2023, Bonnaire et al. 2025
ONE_LEVEL = 1 / 255
COPIED_OUTSIDE = 1 / 3  # outside diversity under which a local plant is copied whole


def masked_distance(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    """d(a,b;m) = sqrt( sum_{c,hw} (a-b)^2 m / (C sum_hw m) ). a, b: [B, C, H, W] in [0,1]; mask: [B, 1, H, W]. Returns [B]."""
    weight = mask.to(a.dtype)
    return (((a - b) ** 2 * weight).sum((1, 2, 3)) / (a.shape[1] * weight.sum((1, 2, 3)))).sqrt()


def plain_distance(evidence: Evidence) -> Tensor:
    """Distance to the reference in the plant's mask, [B]."""
    assert evidence.references is not None and evidence.planted_mask is not None
    return masked_distance(evidence.images.float() / 255, evidence.references.float() / 255, evidence.planted_mask)


def round_trip_error(evidence: Evidence) -> Tensor:
    """What a latent model's autoencoder alone takes from the picture that a generation is compared with, in the mask, [B]."""
    return evidence.derived["round_trip_error"]


def calibrated_distance(evidence: Evidence) -> Tensor:
    """d(x_hat, plant; m) / (0.5 * mean of d(x_hat, x_g; m) over the 50 nearest other groups g), [B]; a copy is under 1.

    Carlini et al. 2023 (n = 50, alpha = .5), over groups and inside the mask; fewer than 50 other groups: all of them.
    """
    assert evidence.neighbours is not None
    known = evidence.neighbours.groups[:, 1:] >= 0
    others = evidence.neighbours.distances[:, 1:].where(known, 0.0).sum(1) / known.sum(1)
    return plain_distance(evidence) / (ALPHA * others)


def memorized(evidence: Evidence) -> Tensor:
    """1 where the calibrated distance is under 1, else 0, [B]."""
    return (calibrated_distance(evidence) < 1).float()


def neighbour_ratio(evidence: Evidence) -> Tensor:
    """d1/d2: distance to the reference over distance to the nearest other group, [B]; a copy is under 1/3.

    NaN, to be left out, where both distances are under one grey level, or there is no other group.
    """
    assert evidence.neighbours is not None
    own, other = plain_distance(evidence), evidence.neighbours.distances[:, 1]
    untold = ((own < ONE_LEVEL) & (other < ONE_LEVEL)) | other.isinf()
    return torch.where(untold, torch.nan, own / other)


def masked_correlation(evidence: Evidence) -> Tensor:
    """Pearson correlation with the reference inside the mask, mean over channels, [B]: tells colour drift from a missing copy.

    A channel in which either picture is constant counts as 0.
    """
    assert evidence.references is not None and evidence.planted_mask is not None
    weight = evidence.planted_mask.double()
    total = weight.sum((2, 3), keepdim=True)

    def centred(pictures: Tensor) -> Tensor:
        values = pictures.double()
        return (values - (values * weight).sum((2, 3), keepdim=True) / total) * weight

    a, b = centred(evidence.images), centred(evidence.references)
    size = (a.square().sum((2, 3)) * b.square().sum((2, 3))).sqrt()
    constant = size < 1e-9
    return torch.where(constant, 0.0, (a * b).sum((2, 3)) / size.masked_fill(constant, 1.0)).mean(1).float()


def plant_memorized(generation_memorized: Tensor) -> float:
    """1 if at least half of a plant's seeds are memorized, else 0. generation_memorized: [S] of 0 and 1."""
    return float(generation_memorized.float().mean() >= 0.5)


def outside_diversity(evidence: Evidence) -> float:
    """Standard deviation over the seeds of one local plant outside its mask / that of the plant's own variants there."""
    assert evidence.planted_mask is not None
    outside = ~evidence.planted_mask[0]
    images = evidence.images.float() / 255
    variance = images.var(dim=0, unbiased=len(images) > 1)
    spread = ((variance * outside).sum() / (variance.shape[0] * outside.sum())).sqrt()
    return float(spread / evidence.derived["variant_spread"][0])


def local_to_global(evidence: Evidence) -> float:
    """1 if one local plant's generations are copied whole, else 0.

    Outside diversity under 1/3, or (finite variants) half of the seeds calibrated under 1 to one variant outside the mask.
    """
    copies_of_a_variant = (evidence.derived["variant_distance"] < 1).float().mean() >= 0.5
    return float(outside_diversity(evidence) < COPIED_OUTSIDE or bool(copies_of_a_variant))
