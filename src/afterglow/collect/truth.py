"""The truth that generations are judged by: references, masks and the nearest groups of the training set."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from afterglow.data.neighbours import Gallery, distance, to_unit
from afterglow.data.pictures import to_square
from afterglow.data.prompts import Prompt
from afterglow.data.subjects import Subject
from afterglow.evidence import Evidence, Neighbours
from afterglow.models import Denoiser

NUM_NEIGHBOURS = 50  # Carlini's calibration
RoundTrip = Callable[[np.ndarray], np.ndarray]


def annotate(evidence: Evidence, asked: Sequence[Subject], gallery: Gallery, *, mask: np.ndarray | None = None) -> Evidence:
    """Add the truth of each generation's subject, and the nearest training groups in its mask and over the whole picture.

    asked: the subject of each generation. mask: bool [1, H, W], judges all of them in this mask instead of their own
    (controls, in the shapes of plants). Where a subject has no picture of its own, or no mask, the nearest training
    picture and the whole picture take their place. Of a latent model, subjects and gallery come from PlantedSet.decoded.
    """
    everything = torch.ones(1, *evidence.images.shape[-2:], dtype=torch.bool)
    chosen = [torch.from_numpy(subject.mask if mask is None else mask) for subject in asked]
    masks = torch.stack([own if own.any() else everything for own in chosen])
    references, groups = _references(evidence.images, asked, gallery)
    whole = _neighbours(evidence.images, references, gallery, everything.expand_as(masks), groups)
    inside = whole if masks.all() else _neighbours(evidence.images, references, gallery, masks, groups)
    return replace(
        evidence,
        kind=tuple(subject.kind for subject in asked),
        shape=tuple(subject.shape for subject in asked),
        plant_id=torch.tensor([subject.plant_id for subject in asked]),
        references=references,
        planted_mask=masks,
        region=torch.stack([torch.from_numpy(subject.region) for subject in asked]),
        derived={**evidence.derived, **_variants(evidence.images, asked, gallery), **_round_trip(asked)},
        neighbours=inside,
        neighbours_whole=whole,
    )


def _references(images: Tensor, asked: Sequence[Subject], gallery: Gallery) -> tuple[Tensor, Tensor]:
    """What each generation is compared with: its subject's picture, or the nearest of the training set; and its group, [B]."""
    without = [row for row, subject in enumerate(asked) if subject.reference is None]
    references, groups = torch.empty_like(images), torch.tensor([subject.group for subject in asked])
    for row, subject in enumerate(asked):
        if subject.reference is not None:
            references[row] = torch.from_numpy(np.array(subject.reference))
    if without:
        references[without], groups[without] = gallery.nearest_pictures(images[without])
    return references, groups


def _neighbours(images: Tensor, references: Tensor, gallery: Gallery, masks: Tensor, own: Tensor) -> Neighbours:
    """masks: bool [B, 1, H, W]; own: the groups of the references, [B]."""
    exclude = [{int(group)} for group in own]
    groups, distances = gallery.nearest(images, masks, exclude, num_groups=NUM_NEIGHBOURS)
    nearest = distance(images.float() / 255, references.float() / 255, masks)
    return Neighbours(torch.cat([own[:, None], groups], dim=1), torch.cat([nearest[:, None], distances], dim=1))


def _variants(images: Tensor, asked: Sequence[Subject], gallery: Gallery) -> dict[str, Tensor]:
    """What tells a local plant from one that is copied whole (local->global), [B] each.

    Its variants' spread outside the mask, and the calibrated distance there to the nearest of its finite variants
    (infinite where they are fresh).
    """
    nearest = torch.full((len(images),), torch.inf)
    for number in {subject.plant_id for subject in asked if subject.variants is not None}:
        rows = [row for row, subject in enumerate(asked) if subject.plant_id == number]
        subject, shown = asked[rows[0]], images[rows]
        assert subject.variants is not None
        outside = torch.from_numpy(~subject.mask)
        each = torch.stack([distance(shown.float() / 255, variant, outside) for variant in to_unit(subject.variants)])
        # a variant's own fill is a picture of the training set, and no "other group" in this comparison
        own = {subject.group, *subject.variant_groups}
        found, others = gallery.nearest(shown, outside, [own] * len(rows), num_groups=NUM_NEIGHBOURS)
        known = found >= 0
        nearest[rows] = each.min(0).values / (0.5 * others.where(known, 0.0).sum(1) / known.sum(1))
    return {"variant_spread": torch.tensor([subject.variant_spread for subject in asked]), "variant_distance": nearest}


def _round_trip(asked: Sequence[Subject]) -> dict[str, Tensor]:
    """What the autoencoder of a latent model takes from the references, [B]; nothing for a model in pixels."""
    lost = torch.tensor([subject.round_trip_error for subject in asked])
    return {} if lost.isnan().all() else {"round_trip_error": lost}


def annotate_prompts(evidence: Evidence, prompts: Sequence[Prompt], rows: Sequence[int], round_trip: RoundTrip = lambda x: x) -> Evidence:
    """Add what a list of prompts knows: kinds, and references and masks where its entries have pictures.

    rows: the entry of each generation; its number is the plant_id. Pictures are cut to the generations' square and, for a
    latent model, are what its autoencoder gives back of them (`round_trip` of uint8 [B, C, H, W]). Raises ValueError where
    only some entries have a picture, or a mask has another size than its picture.
    """
    given = [prompts[row] for row in rows]
    side = evidence.images.shape[-1]
    missing = [prompt for prompt in prompts if prompt.image is None]
    masks = torch.stack([_mask(prompt, side) for prompt in given])
    found = replace(
        evidence,
        kind=tuple(prompt.kind for prompt in given),
        shape=tuple("whole" if mask.all() else "mask" for mask in masks),
        plant_id=torch.tensor(list(rows)),
        provenance={**evidence.provenance, "prompts": len(prompts)},
    )
    if len(missing) == len(prompts):
        return found
    if missing:
        raise ValueError(
            f"The caption '{missing[0].caption}' has no image and others have: {len(missing)} belong into a list of their own."
        )
    pictures = np.stack([to_square(_open(prompt.image), side, evidence.images.shape[1]) for prompt in given if prompt.image is not None])
    references = torch.from_numpy(round_trip(pictures))
    lost = distance(references.float() / 255, to_unit(pictures), masks)
    derived = {**evidence.derived, **({"round_trip_error": lost} if lost.any() else {})}
    return replace(found, references=references, planted_mask=masks, region=masks, derived=derived)


def with_latent_difference(evidence: Evidence, model: Denoiser) -> Evidence:
    """derived['latent_difference']: the encoded generation less the encoded reference, [B, C, h, w]; only a latent model has one."""
    if model.grid == 1:
        return evidence
    assert evidence.references is not None
    images, references = (model.encode(pictures.float() / 127.5 - 1).cpu() for pictures in (evidence.images, evidence.references))
    return replace(evidence, derived={**evidence.derived, "latent_difference": (images - references).float()})


def _mask(prompt: Prompt, side: int) -> torch.Tensor:
    """Bool [1, side, side]: all of the picture where the entry has no mask."""
    if prompt.mask is None or prompt.image is None:
        return torch.ones(1, side, side, dtype=torch.bool)
    mask, image = _open(prompt.mask), _open(prompt.image)
    if mask.size != image.size:
        raise ValueError(f"The mask '{prompt.mask}' has another size than its picture: {mask.size} and {image.size}.")
    return torch.from_numpy(to_square(mask, side, 1) > 127)


def _open(file: Path) -> Image.Image:
    """Raises ValueError that names a file that is no picture; nothing takes its place."""
    try:
        with Image.open(file) as picture:
            picture.load()
            return picture
    except OSError as error:
        raise ValueError(f"'{file}' cannot be read as a picture.") from error
