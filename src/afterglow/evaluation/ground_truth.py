"""Ground truth of generations: references, masks and the nearest clusters of the training set."""

from collections.abc import Callable, Sequence
from dataclasses import replace

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


def attach_ground_truth(
    generations: Generations, targets: Sequence[Target], gallery: Gallery | None, *, mask: np.ndarray | None = None
) -> Generations:
    """Add the ground truth of each generation's target, and the nearest training clusters inside its mask.

    A target without an image is compared with the nearest training image, one without a mask over the whole image.

    Args:
        generations: images, [B] rows.
        targets: the target of each generation.
        gallery: the training images (of a latent model: as decoded by its autoencoder); None: no neighbors, and references
            only where all targets have one.
        mask: bool [1, H, W], replaces the mask of every target (controls, in the shapes of plants).
    """
    full = torch.ones(1, *generations.images.shape[-2:], dtype=torch.bool)
    own = [torch.from_numpy(target.mask if mask is None else mask) for target in targets]
    masks = torch.stack([each if each.any() else full for each in own])
    annotated = replace(
        generations,
        kind=tuple(target.kind for target in targets),
        shape=tuple(target.shape for target in targets),
        plant_id=torch.tensor([target.plant_id for target in targets]),
        eval_mask=masks,
        region=torch.stack([torch.from_numpy(target.region) for target in targets]),
        extras={**generations.extras, **_reconstruction_errors(targets)},
    )
    if gallery is None:
        images = [target.reference for target in targets if target.reference is not None]
        return replace(annotated, references=torch.from_numpy(np.stack(images))) if len(images) == len(targets) else annotated
    references, clusters = _references(generations.images, targets, gallery)
    return replace(
        annotated,
        references=references,
        extras={**generations.extras, **_background_extras(generations.images, targets, gallery), **_reconstruction_errors(targets)},
        neighbors=_neighbors(generations.images, references, gallery, masks, clusters),
    )


def _references(images: Tensor, targets: Sequence[Target], gallery: Gallery) -> tuple[Tensor, Tensor]:
    """The image that each generation is compared with, uint8 [B, C, H, W], and its cluster, [B]."""
    without = [row for row, target in enumerate(targets) if target.reference is None]
    references, clusters = torch.empty_like(images), torch.tensor([target.cluster for target in targets])
    for row, target in enumerate(targets):
        if target.reference is not None:
            references[row] = torch.from_numpy(np.array(target.reference))
    if without:
        references[without], clusters[without] = gallery.nearest_images(images[without])
    return references, clusters


def _neighbors(images: Tensor, references: Tensor, gallery: Gallery, masks: Tensor, own: Tensor) -> Neighbors:
    """The reference's cluster and the nearest others. masks: bool [B, 1, H, W]; own: clusters of the references, [B]."""
    exclude = [{int(cluster)} for cluster in own]
    clusters, distances, _ = gallery.nearest(images, masks, exclude, num_clusters=NUM_NEIGHBORS)
    nearest = masked_rms(to_unit(images), to_unit(references), masks)
    return Neighbors(torch.cat([own[:, None], clusters], dim=1), torch.cat([nearest[:, None], distances], dim=1))


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
        _, others, _ = gallery.nearest(own_images, outside, [own] * len(rows), num_clusters=NUM_NEIGHBORS)
        nearest[rows] = calibrated_l2(each.min(0).values, others)
    return {"background_spread": torch.tensor([target.background_spread for target in targets]), "background_distance": nearest}


def _reconstruction_errors(targets: Sequence[Target]) -> dict[str, Tensor]:
    """The error that a latent model's autoencoder alone makes on the references, [B]; empty for a model in pixels."""
    errors = torch.tensor([target.reconstruction_error for target in targets])
    return {} if errors.isnan().all() else {"reconstruction_error": errors}


def attach_prompt_ground_truth(
    generations: Generations, prompts: Sequence[Prompt], rows: Sequence[int], reconstruct: Reconstruct = lambda x: x
) -> Generations:
    """Add the kinds of a list of prompts, and references and masks where its entries have images.

    Args:
        generations: images, [B] rows.
        prompts: the whole list.
        rows: the entry of each generation, which becomes its plant_id.
        reconstruct: a latent model's autoencoder, uint8 [B, C, H, W] to the same; applied to the images, cut to the
            generations' size.

    Raises:
        AfterglowError: if only some entries have an image, or a mask has another size than its image.
    """
    own = [prompts[row] for row in rows]
    side = generations.images.shape[-1]
    missing = [prompt for prompt in prompts if prompt.image is None]
    masks = torch.stack([_mask(prompt, side) for prompt in own])
    annotated = replace(
        generations,
        kind=tuple(prompt.kind for prompt in own),
        shape=tuple("whole" if mask.all() else "mask" for mask in masks),
        plant_id=torch.tensor(list(rows)),
        provenance={**generations.provenance, "prompts": len(prompts)},
    )
    if len(missing) == len(prompts):
        return annotated
    if missing:
        raise AfterglowError(
            f"The caption '{missing[0].caption}' has no image, but others have: put the {len(missing)} without an image into another list."
        )
    images = np.stack(
        [to_square(read_image(prompt.image), side, generations.images.shape[1]) for prompt in own if prompt.image is not None]
    )
    references = torch.from_numpy(reconstruct(images))
    errors = masked_rms(to_unit(references), to_unit(images), masks)
    extras = {**generations.extras, **({"reconstruction_error": errors} if errors.any() else {})}
    return replace(annotated, references=references, eval_mask=masks, region=masks, extras=extras)


def with_latent_difference(generations: Generations, model: Denoiser) -> Generations:
    """Add extras['latent_difference'], the encoded generation minus the encoded reference, [B, C, h, w], for a latent model."""
    if not model.is_latent or generations.references is None:
        return generations
    images, references = (model.encode(to_signed(pixels)).cpu() for pixels in (generations.images, generations.references))
    return replace(generations, extras={**generations.extras, "latent_difference": (images - references).float()})


def _mask(prompt: Prompt, side: int) -> torch.Tensor:
    """Bool [1, side, side]; the whole image where the entry has no mask."""
    if prompt.mask is None or prompt.image is None:
        return torch.ones(1, side, side, dtype=torch.bool)
    mask, image = read_image(prompt.mask), read_image(prompt.image)
    if mask.size != image.size:
        raise AfterglowError(f"The mask '{prompt.mask}' has another size than its image: {mask.size} and {image.size}.")
    return torch.from_numpy(to_square(mask, side, 1) > 127)
