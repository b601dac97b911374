"""The truth that generations are judged by: references, masks and the nearest groups of the training set."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from afterglow.data.neighbours import Gallery, distance, to_unit
from afterglow.data.plants import Subject
from afterglow.evidence import Evidence, Neighbours

NUM_NEIGHBOURS = 50  # Carlini's calibration


def annotate(evidence: Evidence, asked: Sequence[Subject], gallery: Gallery, *, mask: np.ndarray | None = None) -> Evidence:
    """Add the truth of each generation's subject, and the nearest training groups in its mask and over the whole picture.

    asked: the subject of each generation. mask: bool [1, H, W], judges all of them in this mask instead of their own
    (controls, in the shapes of plants). Where a subject has no picture of its own, or no mask, the nearest training
    picture and the whole picture take their place.
    """
    everything = torch.ones(1, *evidence.images.shape[-2:], dtype=torch.bool)
    parts, order = [], []
    for rows in _rows_by_subject(asked):
        subject = asked[rows[0]]
        chosen = subject.mask if mask is None else mask
        judged = torch.from_numpy(chosen) if chosen.any() else everything
        parts.append(_judge(evidence[rows], subject, gallery, judged))
        order += rows
    return Evidence.cat(parts)[torch.tensor(order).argsort()]


def _rows_by_subject(asked: Sequence[Subject]) -> list[list[int]]:
    rows: dict[int, list[int]] = {}
    for row, subject in enumerate(asked):
        rows.setdefault(subject.plant_id, []).append(row)
    return list(rows.values())


def _judge(evidence: Evidence, subject: Subject, gallery: Gallery, mask: Tensor) -> Evidence:
    """All generations of one subject, in one mask [1, H, W]."""
    images, count = evidence.images, len(evidence)
    if subject.reference is not None:
        references, own = torch.from_numpy(np.array(subject.reference)).expand_as(images), [subject.group] * count
        inside = _neighbours(images, references, gallery, mask, {subject.group}, subject.group)
        whole = _neighbours(images, references, gallery, torch.ones_like(mask), {subject.group}, subject.group)
    else:
        nearest = [gallery.nearest_picture(image) for image in images]
        references, own = torch.from_numpy(np.stack([picture for picture, _ in nearest])), [group for _, group in nearest]
        each = [_neighbours(images[i : i + 1], references[i : i + 1], gallery, mask, {own[i]}, own[i]) for i in range(count)]
        inside = whole = Neighbours(torch.cat([n.groups for n in each]), torch.cat([n.distances for n in each]))
    return replace(
        evidence,
        kind=(subject.kind,) * count,
        shape=(subject.shape,) * count,
        plant_id=torch.full((count,), subject.plant_id),
        references=references.contiguous(),
        planted_mask=mask.expand(count, -1, -1, -1).contiguous(),
        region=torch.from_numpy(subject.region).expand(count, -1, -1, -1).contiguous(),
        derived={**evidence.derived, **_variants(images, subject, gallery)},
        neighbours=inside,
        neighbours_whole=whole,
    )


def _neighbours(images: Tensor, references: Tensor, gallery: Gallery, mask: Tensor, exclude: set[int], own: int) -> Neighbours:
    groups, distances = gallery.nearest(images, mask, exclude, num_groups=NUM_NEIGHBOURS)
    missing = NUM_NEIGHBOURS - groups.shape[1]  # a small set has fewer other groups than that
    groups = torch.nn.functional.pad(groups, (0, missing), value=-1)
    distances = torch.nn.functional.pad(distances, (0, missing), value=torch.inf)
    first = distance(images.float() / 255, references.float() / 255, mask)
    return Neighbours(torch.cat([torch.full((len(images), 1), own), groups], dim=1), torch.cat([first[:, None], distances], dim=1))


def _variants(images: Tensor, subject: Subject, gallery: Gallery) -> dict[str, Tensor]:
    """What tells a local plant from one that is copied whole (local->global), [B] each.

    Its variants' spread outside the mask, and the calibrated distance there to the nearest of its finite variants
    (infinite where they are fresh).
    """
    spread = torch.full((len(images),), subject.variant_spread)
    if subject.variants is None:
        return {"variant_spread": spread, "variant_distance": torch.full((len(images),), torch.inf)}
    outside = torch.from_numpy(~subject.mask)
    each = torch.stack([distance(images.float() / 255, variant, outside) for variant in to_unit(subject.variants)])
    # a variant's own fill is a picture of the training set, and no "other group" in this comparison
    _, others = gallery.nearest(images, outside, {subject.group, *subject.variant_groups}, num_groups=NUM_NEIGHBOURS)
    return {"variant_spread": spread, "variant_distance": each.min(0).values / (0.5 * others.mean(1))}
