"""The targets that a model is evaluated on: captions with the images that their generations are compared with."""

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import torch

from afterglow.functional.distances import masked_rms
from afterglow.functional.pixels import to_unit
from afterglow.planting.plants import Plant, PlantedSet


@dataclass(frozen=True)
class Target:
    """One caption to evaluate, and what its generations are compared with.

    Attributes:
        plant_id: id of the plant, or a number after all plants.
        kind: one of `kinds.KINDS`, or the label of a prompt.
        caption: prompt; "" for unconditional generation.
        cluster: near-duplicate cluster of the reference, -1 if there is none.
        mask: bool [1, H, W], where distances are taken; empty for decoys and tints.
        region: bool [1, H, W], where maps are evaluated.
        shape: name of the region's shape.
        reference: uint8 [C, H, W]; None if the nearest training image takes its place (decoys, tints, held-out captions).
        background_spread: standard deviation of a local plant's images outside the mask, in [0, 1] pixels; infinite for other kinds.
        backgrounds: uint8 [V, C, H, W], images of a local plant that cycles through V backgrounds, or of a family; else None.
        background_clusters: clusters of these backgrounds.
        reconstruction_error: RMS error of a latent model's autoencoder on the reference inside the mask, in [0, 1] pixels; NaN for
            models in pixel space.
        cluster_size: number of training images in the cluster of a control, itself included; 1 for other kinds.
    """

    plant_id: int
    kind: str
    caption: str
    cluster: int
    mask: np.ndarray
    region: np.ndarray
    shape: str
    reference: np.ndarray | None = None
    background_spread: float = float("inf")
    backgrounds: np.ndarray | None = None
    background_clusters: tuple[int, ...] = ()
    reconstruction_error: float = float("nan")
    cluster_size: int = 1


def cluster_sizes(planted: PlantedSet) -> dict[int, int]:
    """Return {id of the control's target: number of controls in its near-duplicate cluster}: how often an epoch shows the cluster."""
    clusters = planted.clusters[planted.controls].tolist()
    counts, first = Counter(clusters), len(planted.plants)
    return {first + row: counts[cluster] for row, cluster in zip(planted.controls.tolist(), clusters, strict=True)}


def evaluation_targets(planted: PlantedSet, *, num_controls: int = 64, num_heldout: int = 8) -> list[Target]:
    """Return the targets of a captioned model: all plants and their counterparts, then controls and held-out captions.

    Ids depend on neither number.
    """
    targets = [_plant_target(planted, plant, np.random.default_rng([0, 0x5B, plant.plant_id])) for plant in planted.plants]
    full, first, sizes = np.ones((1, *planted.pixels.shape[-2:]), dtype=bool), len(planted.plants), cluster_sizes(planted)
    for kind, rows in (("control", planted.controls[:num_controls]), ("heldout", planted.heldout[:num_heldout])):
        for row in rows.tolist():
            target = Target(first + row, kind, planted.captions[row], int(planted.clusters[row]), full, full, "whole")
            if kind == "control":
                error = planted.reconstruction_error(row, full)
                target = replace(target, reference=planted.pixels[row], reconstruction_error=error, cluster_size=sizes[target.plant_id])
            targets.append(target)
    return targets


def unconditional_targets(planted: PlantedSet, count: int) -> list[Target]:
    """Return `count` targets of a model without text: each generation is compared with its nearest training image."""
    full = np.ones((1, *planted.pixels.shape[-2:]), dtype=bool)
    first = len(planted.plants) + len(planted.pixels)  # after the ids of all captioned targets
    return [Target(first + number, "unprompted", "", -1, full, full, "whole") for number in range(count)]


def _plant_target(planted: PlantedSet, plant: Plant, generator: np.random.Generator) -> Target:
    target = Target(plant.plant_id, plant.kind, plant.caption, plant.cluster, plant.mask, plant.region, plant.shape)
    if plant.members:
        error = planted.reconstruction_error(plant.members[0], plant.mask)
        target = replace(target, reference=planted.pixels[plant.members[0]], reconstruction_error=error)
    if plant.kind not in ("local", "natural"):
        return target
    composites = planted.composites(plant, generator)
    deviation = to_unit(composites).var(dim=0, unbiased=len(composites) > 1).sqrt()
    return replace(
        target,
        background_spread=float(masked_rms(deviation, torch.zeros_like(deviation), torch.from_numpy(~plant.mask))),
        backgrounds=composites if plant.kind == "natural" or plant.backgrounds else None,
        background_clusters=tuple(int(planted.clusters[row]) for row in plant.backgrounds),
    )
