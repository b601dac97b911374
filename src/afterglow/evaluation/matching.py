"""Unconditional generations: which plant each of them copies, if any."""

from collections.abc import Sequence

import torch
from torch import Tensor

from afterglow.evaluation.ground_truth import NUM_NEIGHBORS
from afterglow.functional.distances import calibrated_l2, masked_rms
from afterglow.functional.pixels import to_unit
from afterglow.neighbors.gallery import Gallery
from afterglow.planting.targets import Target


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
                distance = masked_rms(to_unit(images), to_unit(plant.reference), mask)
                calibrated[position] = calibrated_l2(distance, _others(clusters, near, plant.cluster))
    smallest = calibrated.min(dim=0)
    return smallest.indices, smallest.values


def _others(clusters: Tensor, near: Tensor, own: int) -> Tensor:
    """Distances to the 50 nearest clusters but `own`; infinite for all others. clusters, near: [B, 51], nearest first."""
    counted = (clusters >= 0) & (clusters != own)
    counted &= counted.cumsum(1) <= NUM_NEIGHBORS
    return near.masked_fill(~counted, torch.inf)
