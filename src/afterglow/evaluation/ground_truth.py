"""Ground truth of generations: references, masks, the nearest clusters of the training set, and the plant that each one copies."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from afterglow.datasets.images import read_image, to_square
from afterglow.datasets.prompts import Prompt
from afterglow.errors import AfterglowError
from afterglow.functional.distances import calibrated_l2, masked_rms
from afterglow.functional.pixels import to_signed, to_unit
from afterglow.generations import Generations, Neighbors
from afterglow.models.denoiser import Denoiser
from afterglow.neighbors.gallery import Gallery
from afterglow.planting.targets import Target

NUM_NEIGHBORS = 50  # Carlini's calibration
Reconstruct = Callable[[np.ndarray], np.ndarray]


def attach_ground_truth(generations: Generations, targets: Sequence[Target], gallery: Gallery | None) -> Generations:
    """Add the ground truth of each generation's target, and the nearest training clusters inside its mask.

    A target without an image is compared with the nearest training image, one without a mask over the whole image.

    Args:
        targets: the target of each generation.
        gallery: the training images (of a latent model: as decoded by its autoencoder); None: no neighbors, and references
            only where all targets have one.
    """
    full = torch.ones(1, *generations.images.shape[-2:], dtype=torch.bool)
    masks = torch.stack([torch.from_numpy(target.mask) if target.mask.any() else full for target in targets])
    errors = torch.tensor([target.reconstruction_error for target in targets])
    of_autoencoder = {} if errors.isnan().all() else {"reconstruction_error": errors}
    annotated = replace(
        generations,
        kind=tuple(target.kind for target in targets),
        shape=tuple(target.shape for target in targets),
        plant_id=torch.tensor([target.plant_id for target in targets]),
        eval_mask=masks,
        region=torch.stack([torch.from_numpy(target.region) for target in targets]),
        extras={**generations.extras, **of_autoencoder},
    )
    if gallery is None:
        images = [target.reference for target in targets if target.reference is not None]
        return replace(annotated, references=torch.from_numpy(np.stack(images))) if len(images) == len(targets) else annotated
    references, own = _references(generations.images, targets, gallery)
    others = gallery.nearest(generations.images, masks, [{cluster} for cluster in own.tolist()], num_clusters=NUM_NEIGHBORS)
    distances = masked_rms(to_unit(generations.images), to_unit(references), masks)
    return replace(
        annotated,
        references=references,
        extras={
            **generations.extras,
            **_background_extras(generations.images, targets, gallery),
            **of_autoencoder,
            "cluster_size": torch.tensor([target.cluster_size for target in targets]),
        },
        neighbors=Neighbors(torch.cat([own[:, None], others.clusters], dim=1), torch.cat([distances[:, None], others.distances], dim=1)),
    )


def _references(images: Tensor, targets: Sequence[Target], gallery: Gallery) -> tuple[Tensor, Tensor]:
    """The image that each generation is compared with, uint8 [B, C, H, W], and its cluster, [B]."""
    references, clusters = torch.empty_like(images), torch.tensor([target.cluster for target in targets])
    for row, target in enumerate(targets):
        if target.reference is not None:
            references[row] = torch.from_numpy(np.array(target.reference))
    if without := [row for row, target in enumerate(targets) if target.reference is None]:
        references[without], clusters[without] = gallery.nearest_images(images[without])
    return references, clusters


def _background_extras(images: Tensor, targets: Sequence[Target], gallery: Gallery) -> dict[str, Tensor]:
    """What distinguishes a local plant from one that is copied whole, [B] each.

    background_spread: spread of its backgrounds outside the mask. background_distance: calibrated distance there to the nearest of
    its finite backgrounds (infinite where every image has a new one).
    """
    nearest = torch.full((len(images),), torch.inf)
    for number in {target.plant_id for target in targets if target.backgrounds is not None}:
        rows = [row for row, target in enumerate(targets) if target.plant_id == number]
        target, own_images = targets[rows[0]], images[rows]
        assert target.backgrounds is not None
        outside = torch.from_numpy(~target.mask)
        each = torch.stack([masked_rms(to_unit(own_images), background, outside) for background in to_unit(target.backgrounds)])
        # the source image of a background is itself a training image, which must not count as another cluster here
        own = {target.cluster, *target.background_clusters}
        others = gallery.nearest(own_images, outside, [own] * len(rows), num_clusters=NUM_NEIGHBORS).distances
        nearest[rows] = calibrated_l2(each.min(0).values, others)
    return {"background_spread": torch.tensor([target.background_spread for target in targets]), "background_distance": nearest}


def match_to_plants(images: Tensor, plants: Sequence[Target], gallery: Gallery) -> tuple[Tensor, Tensor]:
    """The plant that each image is nearest to by calibrated distance inside the plant's mask (docs/methods.md#calibrated-distance).

    Args:
        images: uint8 [B, C, H, W].
        plants: targets that have a reference.

    Returns:
        The position of the nearest plant, int64 [B], and the calibrated distance, [B]; a copy is below 1.
    """
    calibrated = torch.full((len(plants), len(images)), torch.inf)
    masks = {plant.mask.tobytes(): torch.from_numpy(plant.mask) for plant in plants}
    near = {key: gallery.nearest(images, mask, num_clusters=NUM_NEIGHBORS + 1) for key, mask in masks.items()}
    for position, plant in enumerate(plants):
        assert plant.reference is not None
        key = plant.mask.tobytes()
        distance = masked_rms(to_unit(images), to_unit(plant.reference), masks[key])
        other = (near[key].clusters >= 0) & (near[key].clusters != plant.cluster)
        other &= other.cumsum(1) <= NUM_NEIGHBORS
        calibrated[position] = calibrated_l2(distance, near[key].distances.masked_fill(~other, torch.inf))
    smallest = calibrated.min(dim=0)
    return smallest.indices, smallest.values


def prompt_targets(prompts: Sequence[Prompt], rows: Sequence[int], size: tuple[int, int], reconstruct: Reconstruct) -> list[Target]:
    """The targets of entries of a list of prompts, whose numbers become plant ids; all have an image, or none has.

    Args:
        size: channels and side to which images and masks are brought.
        reconstruct: a latent model's autoencoder, uint8 [B, C, H, W] to the same.

    Raises:
        AfterglowError: if a file cannot be read, or a mask has another size than its image.
    """
    own = [prompts[row] for row in rows]
    masks = np.stack([_mask(prompt, size[1]) for prompt in own])
    references: Any = [None] * len(own)
    errors = torch.full((len(own),), torch.nan)
    if images := [to_square(read_image(prompt.image), size[1], size[0]) for prompt in own if prompt.image is not None]:
        references = reconstruct(np.stack(images))
        found = masked_rms(to_unit(references), to_unit(np.stack(images)), torch.from_numpy(masks))
        errors = found if found.any() else errors
    return [
        Target(row, prompt.kind, prompt.caption, -1, mask, mask, "whole" if mask.all() else "mask", image, reconstruction_error=error)
        for row, prompt, mask, image, error in zip(rows, own, masks, references, errors.tolist(), strict=True)
    ]


def _mask(prompt: Prompt, side: int) -> np.ndarray:
    """Bool [1, side, side]; the whole image where the entry has no mask."""
    if prompt.mask is None or prompt.image is None:
        return np.ones((1, side, side), dtype=bool)
    mask, image = read_image(prompt.mask), read_image(prompt.image)
    if mask.size != image.size:
        raise AfterglowError(f"The mask '{prompt.mask}' has another size than its image: {mask.size} and {image.size}.")
    return to_square(mask, side, 1) > 127


def with_latent_difference(generations: Generations, model: Denoiser) -> Generations:
    """Add extras['latent_difference'], the encoded generation minus the encoded reference, [B, C, h, w], for a latent model."""
    if not model.is_latent or generations.references is None:
        return generations
    images, references = (model.encode(to_signed(pixels)).cpu() for pixels in (generations.images, generations.references))
    return generations.with_extras(latent_difference=(images - references).float())
