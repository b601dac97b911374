"""Generations of a model that cannot be asked for a plant: which plant each of them copies, if any."""

from collections.abc import Sequence

import torch
from torch import Tensor

from afterglow.evaluation.ground_truth import NUM_NEIGHBORS
from afterglow.functional.distances import masked_rms
from afterglow.neighbors.gallery import Gallery
from afterglow.planting.targets import Target

ALPHA = 0.5  # Carlini et al. 2023, as where a plant is asked for


def match_to_plants(images: Tensor, asked: Sequence[Target], gallery: Gallery) -> tuple[Tensor, Tensor]:
    """The subject that each generation is nearest to by calibrated distance inside the subject's mask: position int64 [B], distance [B].

    images: uint8 [B, C, H, W]; asked: subjects with an image of their own. A copy is under 1. The calibration is METHODS section 4's:
    d(x_hat, plant; m) / (0.5 * mean of d(x_hat, x_g; m) over the 50 nearest other groups g of the training set).
    """
    found = torch.full((len(asked), len(images)), torch.inf)
    masks = {subject.mask.tobytes(): torch.from_numpy(subject.mask) for subject in asked}
    for key, mask in masks.items():
        clusters, near, _ = gallery.nearest(images, mask, num_clusters=NUM_NEIGHBORS + 1)
        for position, subject in enumerate(asked):
            if subject.mask.tobytes() == key:
                image = torch.from_numpy(subject.reference.copy()).float() / 255  # type: ignore[union-attr]
                others = _mean_of_others(clusters, near, subject.cluster)
                found[position] = masked_rms(images.float() / 255, image, mask) / (ALPHA * others)
    smallest = found.min(dim=0)
    return smallest.indices, smallest.values


def _mean_of_others(clusters: Tensor, near: Tensor, own: int) -> Tensor:
    """Mean distance to the 50 nearest groups but one, [B]; fewer where the set has fewer. groups, near: [B, 51], nearest first."""
    counted = (clusters >= 0) & (clusters != own)
    counted &= counted.cumsum(1) <= NUM_NEIGHBORS
    return near.where(counted, 0.0).sum(1) / counted.sum(1)
