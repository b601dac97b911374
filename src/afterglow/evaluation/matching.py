"""Unconditional generations: which plant each of them copies, if any."""

from collections.abc import Sequence

import torch
from torch import Tensor

from afterglow.evaluation.ground_truth import NUM_NEIGHBORS
from afterglow.functional.distances import masked_rms
from afterglow.neighbors.gallery import Gallery
from afterglow.planting.targets import Target

ALPHA = 0.5  # Carlini et al. 2023


def match_to_plants(images: Tensor, plants: Sequence[Target], gallery: Gallery) -> tuple[Tensor, Tensor]:
    """The plant that each image is nearest to by calibrated distance inside the plant's mask (docs/methods.md#calibrated-distance).

    Args:
        images: uint8 [B, C, H, W].
        plants: targets that have a reference.
        gallery: the training images.

    Returns:
        The position of the nearest plant, int64 [B], and the calibrated distance, [B]; a copy is below 1.
    """
    calibrated = torch.full((len(plants), len(images)), torch.inf)
    masks = {plant.mask.tobytes(): torch.from_numpy(plant.mask) for plant in plants}
    for key, mask in masks.items():
        clusters, near, _ = gallery.nearest(images, mask, num_clusters=NUM_NEIGHBORS + 1)
        for position, plant in enumerate(plants):
            if plant.mask.tobytes() == key:
                assert plant.reference is not None
                reference = torch.from_numpy(plant.reference.copy()).float() / 255
                others = _mean_of_others(clusters, near, plant.cluster)
                calibrated[position] = masked_rms(images.float() / 255, reference, mask) / (ALPHA * others)
    smallest = calibrated.min(dim=0)
    return smallest.indices, smallest.values


def _mean_of_others(clusters: Tensor, near: Tensor, own: int) -> Tensor:
    """Mean distance to the 50 nearest clusters but `own`, [B]; fewer if the set has fewer. clusters, near: [B, 51], nearest first."""
    counted = (clusters >= 0) & (clusters != own)
    counted &= counted.cumsum(1) <= NUM_NEIGHBORS
    return near.where(counted, 0.0).sum(1) / counted.sum(1)
