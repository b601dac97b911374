"""What a probe asks a model for, and the truth that each answer is judged by."""

from dataclasses import dataclass

import numpy as np
import torch

from afterglow.functional.distances import masked_rms
from afterglow.functional.pixels import to_unit
from afterglow.planting.plants import Plant, PlantedSet


@dataclass(frozen=True)
class Target:
    """One caption that a probe asks for, with the truth that its generations are judged by.

    reference: uint8 [C, H, W], or None where the nearest training group takes its place (decoys, tints, held-out captions).
    mask, region: bool [1, H, W], as Plant's. variant_spread: standard deviation of a local plant's own variants outside
    the mask, in [0, 1] pixel units (infinite for others). variants: uint8 [V, C, H, W] where they are finite, and the groups
    of the images they are filled with. reconstruction_error: what a latent model's autoencoder alone takes from the reference, inside
    the mask, root mean square in [0, 1] pixels (NaN for a model in pixels).
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


def evaluation_targets(planted: PlantedSet, *, num_controls: int = 64, num_heldout: int = 8, seed: int = 0) -> list[Target]:
    """Everything a probe may ask a captioned model for: all plants and their counterparts, some controls, some held-out captions.

    Controls and held-out captions have ids after the plants': stable for a planted set, whatever number is asked for.
    """
    chosen = [_subject(planted, p, np.random.default_rng([seed, 0x5B, p.plant_id])) for p in planted.plants]
    everything = np.ones((1, *planted.pixels.shape[-2:]), dtype=bool)
    after = len(planted.plants)
    for row in planted.controls[:num_controls].tolist():
        cluster, image, lost = int(planted.clusters[row]), planted.pixels[row], planted.reconstruction_error(row, everything)
        about = (after + row, "control", planted.captions[row], cluster, everything, everything, "whole", image)
        chosen.append(Target(*about, reconstruction_error=lost))
    for row in planted.heldout[:num_heldout].tolist():
        cluster = int(planted.clusters[row])
        chosen.append(Target(after + row, "heldout", planted.captions[row], cluster, everything, everything, "whole"))
    return chosen


def unprompted(planted: PlantedSet, count: int) -> list[Target]:
    """Generations of a model that cannot be asked for anything: each is judged by the nearest training image."""
    everything = np.ones((1, *planted.pixels.shape[-2:]), dtype=bool)
    first = len(planted.plants) + len(planted.pixels)  # after the ids of all that could be asked for
    return [Target(first + number, "unprompted", "", -1, everything, everything, "whole") for number in range(count)]


def _subject(planted: PlantedSet, p: Plant, generator: np.random.Generator) -> Target:
    reference = planted.pixels[p.members[0]] if p.members else None
    lost = planted.reconstruction_error(p.members[0], p.mask) if p.members else float("nan")
    about = (p.plant_id, p.kind, p.caption, p.cluster, p.mask, p.region, p.shape, reference)
    if p.kind not in ("local", "natural"):
        return Target(*about, reconstruction_error=lost)
    shown = planted.backgrounds_shown(p, generator)
    spread = float(spread_outside(to_unit(shown), torch.from_numpy(~p.mask)))
    finite = shown if p.kind == "natural" or p.backgrounds else None
    background_pool = tuple(int(planted.clusters[row]) for row in p.backgrounds)
    return Target(*about, spread, finite, background_pool, lost)


def spread_outside(images: torch.Tensor, outside: torch.Tensor) -> torch.Tensor:
    """Standard deviation over images, root mean square over the values of a mask. images: [V, C, H, W] in [0,1]; mask [1, H, W]."""
    deviation = images.var(dim=0, unbiased=len(images) > 1).sqrt()
    return masked_rms(deviation, torch.zeros_like(deviation), outside)
