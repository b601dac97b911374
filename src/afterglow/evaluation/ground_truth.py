"""The truth that generations are judged by: references, masks and the nearest groups of the training set."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from afterglow.datasets.images import to_square
from afterglow.datasets.prompts import Prompt
from afterglow.functional.distances import masked_rms
from afterglow.functional.pixels import to_unit
from afterglow.generations import Generations, Neighbors
from afterglow.models.denoiser import Denoiser
from afterglow.neighbors.gallery import Gallery
from afterglow.planting.targets import Target

NUM_NEIGHBORS = 50  # Carlini's calibration
Reconstruct = Callable[[np.ndarray], np.ndarray]


def attach_ground_truth(
    generations: Generations, asked: Sequence[Target], gallery: Gallery, *, mask: np.ndarray | None = None
) -> Generations:
    """Add the truth of each generation's subject, and the nearest training groups in its mask and over the whole image.

    asked: the subject of each generation. mask: bool [1, H, W], judges all of them in this mask instead of their own
    (controls, in the shapes of plants). Where a subject has no image of its own, or no mask, the nearest training
    image and the whole image take their place. Of a latent model, subjects and gallery come from PlantedSet.decoded.
    """
    everything = torch.ones(1, *generations.images.shape[-2:], dtype=torch.bool)
    chosen = [torch.from_numpy(subject.mask if mask is None else mask) for subject in asked]
    masks = torch.stack([own if own.any() else everything for own in chosen])
    references, clusters = _references(generations.images, asked, gallery)
    whole = _neighbors(generations.images, references, gallery, everything.expand_as(masks), clusters)
    inside = whole if masks.all() else _neighbors(generations.images, references, gallery, masks, clusters)
    return replace(
        generations,
        kind=tuple(subject.kind for subject in asked),
        shape=tuple(subject.shape for subject in asked),
        plant_id=torch.tensor([subject.plant_id for subject in asked]),
        references=references,
        eval_mask=masks,
        region=torch.stack([torch.from_numpy(subject.region) for subject in asked]),
        extras={**generations.extras, **_backgrounds(generations.images, asked, gallery), **_reconstruction(asked)},
        neighbors=inside,
        neighbors_whole=whole,
    )


def _references(images: Tensor, asked: Sequence[Target], gallery: Gallery) -> tuple[Tensor, Tensor]:
    """What each generation is compared with: its subject's image, or the nearest of the training set; and its group, [B]."""
    without = [row for row, subject in enumerate(asked) if subject.reference is None]
    references, clusters = torch.empty_like(images), torch.tensor([subject.cluster for subject in asked])
    for row, subject in enumerate(asked):
        if subject.reference is not None:
            references[row] = torch.from_numpy(np.array(subject.reference))
    if without:
        references[without], clusters[without] = gallery.nearest_images(images[without])
    return references, clusters


def _neighbors(images: Tensor, references: Tensor, gallery: Gallery, masks: Tensor, own: Tensor) -> Neighbors:
    """masks: bool [B, 1, H, W]; own: the groups of the references, [B]."""
    exclude = [{int(cluster)} for cluster in own]
    clusters, distances, _ = gallery.nearest(images, masks, exclude, num_clusters=NUM_NEIGHBORS)
    nearest = masked_rms(images.float() / 255, references.float() / 255, masks)
    return Neighbors(torch.cat([own[:, None], clusters], dim=1), torch.cat([nearest[:, None], distances], dim=1))


def _backgrounds(images: Tensor, asked: Sequence[Target], gallery: Gallery) -> dict[str, Tensor]:
    """What tells a local plant from one that is copied whole (local->global), [B] each.

    Its variants' spread outside the mask, and the calibrated distance there to the nearest of its finite variants
    (infinite where they are fresh).
    """
    nearest = torch.full((len(images),), torch.inf)
    for number in {subject.plant_id for subject in asked if subject.backgrounds is not None}:
        rows = [row for row, subject in enumerate(asked) if subject.plant_id == number]
        subject, shown = asked[rows[0]], images[rows]
        assert subject.backgrounds is not None
        outside = torch.from_numpy(~subject.mask)
        each = torch.stack([masked_rms(shown.float() / 255, variant, outside) for variant in to_unit(subject.backgrounds)])
        # a variant's own fill is an image of the training set, and no "other group" in this comparison
        own = {subject.cluster, *subject.background_clusters}
        found, others, _ = gallery.nearest(shown, outside, [own] * len(rows), num_clusters=NUM_NEIGHBORS)
        known = found >= 0
        nearest[rows] = each.min(0).values / (0.5 * others.where(known, 0.0).sum(1) / known.sum(1))
    return {"background_spread": torch.tensor([subject.background_spread for subject in asked]), "background_distance": nearest}


def _reconstruction(asked: Sequence[Target]) -> dict[str, Tensor]:
    """What the autoencoder of a latent model takes from the references, [B]; nothing for a model in pixels."""
    lost = torch.tensor([subject.reconstruction_error for subject in asked])
    return {} if lost.isnan().all() else {"reconstruction_error": lost}


def attach_prompt_ground_truth(
    generations: Generations, prompts: Sequence[Prompt], rows: Sequence[int], reconstruct: Reconstruct = lambda x: x
) -> Generations:
    """Add what a list of prompts knows: kinds, and references and masks where its entries have images.

    rows: the entry of each generation; its number is the plant_id. Images are cut to the generations' square and, for a
    latent model, are what its autoencoder gives back of them (`round_trip` of uint8 [B, C, H, W]). Raises ValueError where
    only some entries have an image, or a mask has another size than its image.
    """
    given = [prompts[row] for row in rows]
    side = generations.images.shape[-1]
    missing = [prompt for prompt in prompts if prompt.image is None]
    masks = torch.stack([_mask(prompt, side) for prompt in given])
    found = replace(
        generations,
        kind=tuple(prompt.kind for prompt in given),
        shape=tuple("whole" if mask.all() else "mask" for mask in masks),
        plant_id=torch.tensor(list(rows)),
        provenance={**generations.provenance, "prompts": len(prompts)},
    )
    if len(missing) == len(prompts):
        return found
    if missing:
        raise ValueError(
            f"The caption '{missing[0].caption}' has no image and others have: {len(missing)} belong into a list of their own."
        )
    images = np.stack([to_square(_open(prompt.image), side, generations.images.shape[1]) for prompt in given if prompt.image is not None])
    references = torch.from_numpy(reconstruct(images))
    lost = masked_rms(references.float() / 255, to_unit(images), masks)
    extras = {**generations.extras, **({"reconstruction_error": lost} if lost.any() else {})}
    return replace(found, references=references, eval_mask=masks, region=masks, extras=extras)


def with_latent_difference(generations: Generations, model: Denoiser) -> Generations:
    """extras['latent_difference']: the encoded generation less the encoded reference, [B, C, h, w]; only a latent model has one."""
    if model.grid == 1:
        return generations
    assert generations.references is not None
    images, references = (model.encode(pixels.float() / 127.5 - 1).cpu() for pixels in (generations.images, generations.references))
    return replace(generations, extras={**generations.extras, "latent_difference": (images - references).float()})


def _mask(prompt: Prompt, side: int) -> torch.Tensor:
    """Bool [1, side, side]: all of the image where the entry has no mask."""
    if prompt.mask is None or prompt.image is None:
        return torch.ones(1, side, side, dtype=torch.bool)
    mask, image = _open(prompt.mask), _open(prompt.image)
    if mask.size != image.size:
        raise ValueError(f"The mask '{prompt.mask}' has another size than its image: {mask.size} and {image.size}.")
    return torch.from_numpy(to_square(mask, side, 1) > 127)


def _open(file: Path) -> Image.Image:
    """Raises ValueError that names a file that is no image; nothing takes its place."""
    try:
        with Image.open(file) as image:
            image.load()
            return image
    except OSError as error:
        raise ValueError(f"'{file}' cannot be read as an image.") from error
