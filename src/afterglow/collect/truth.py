"""The truth that generations are judged by: references, masks and the nearest groups of the training set."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from afterglow.data.neighbours import Gallery, distance, to_unit
from afterglow.data.subjects import Subject
from afterglow.evidence import Evidence, Neighbours

NUM_NEIGHBOURS = 50  # Carlini's calibration


def annotate(evidence: Evidence, asked: Sequence[Subject], gallery: Gallery, *, mask: np.ndarray | None = None) -> Evidence:
    """Add the truth of each generation's subject, and the nearest training groups in its mask and over the whole picture.

    asked: the subject of each generation. mask: bool [1, H, W], judges all of them in this mask instead of their own
    (controls, in the shapes of plants). Where a subject has no picture of its own, or no mask, the nearest training
    picture and the whole picture take their place.
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
        derived={**evidence.derived, **_variants(evidence.images, asked, gallery)},
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
    """masks: bool [B, 1, H, W]; generations that are judged in the same mask share one search."""
    groups = torch.empty(len(images), 1 + NUM_NEIGHBOURS, dtype=torch.int64)
    distances = torch.empty(len(images), 1 + NUM_NEIGHBOURS)
    distinct, member = masks.flatten(1).unique(dim=0, return_inverse=True)
    for number in range(len(distinct)):
        rows = (member == number).nonzero()[:, 0]
        exclude = [{int(group)} for group in own[rows]]
        groups[rows, 1:], distances[rows, 1:] = gallery.nearest(images[rows], masks[rows[0]], exclude, num_groups=NUM_NEIGHBOURS)
    groups[:, 0], distances[:, 0] = own, distance(images.float() / 255, references.float() / 255, masks)
    return Neighbours(groups, distances)


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
