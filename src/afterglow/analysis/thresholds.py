"""What counts as much guidance: thresholds of mitigations in the units of one model (METHODS (c) and (a))."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from afterglow.generations import Generations
from afterglow.measures.end_token import bright_ending, layer_sets
from afterglow.measures.guidance import local_magnitude

QUANTILE = 0.99
PUBLISHED_CURVE = 3.0  # ||Delta|| of Stable Diffusion 1.x in latents of 64 x 64: Wen's target, Chen's lower threshold of re-anchoring
UPPER = 5 / 3  # Chen's upper threshold over the lower one


@dataclass(frozen=True)
class Thresholds:
    """Per image, in units of eps.

    magnitude: of ||Delta_t|| at each sampler step, [T]; local: of LD at the first step, None where no end token is read;
    search: of ||Delta|| at the first step, under which a caption needs no other; origin: where they come from.
    """

    magnitude: tuple[float, ...]
    local: float | None
    search: float
    origin: str


def published(num_steps: int) -> Thresholds:
    """Those of the authors: target 3 (Wen), 1 (Chen, LD), 1 (Chen, search). They hold for Stable Diffusion 1.x at 512 pixels only."""
    return Thresholds((PUBLISHED_CURVE,) * num_steps, 1.0, 1.0, "published for Stable Diffusion 1.x")


def of_controls(generations: Iterable[Generations]) -> Thresholds:
    """The 99th percentile of the controls at the same step: norms grow with the number of values, so that no number fits two models.

    Raises ValueError where there is no control.
    """
    controls = [part[[row for row, kind in enumerate(part.kind) if kind == "control"]] for part in generations if "control" in part.kind]
    if not controls:
        raise ValueError("Thresholds are the 99th percentile of controls, and none were collected: ask for some, or give published ones.")
    norms, local = [], []
    for part in controls:
        assert part.guidance is not None and part.guidance_rms is not None
        norms.append(part.guidance_rms * part.guidance[0, 0].numel() ** 0.5)
        if layers := layer_sets(part.layers).get("be"):
            local.append(local_magnitude(part, bright_ending(part, layers), 1))
    curve = torch.cat(norms, dim=1).quantile(QUANTILE, dim=1).tolist()
    found = float(torch.cat(local).quantile(QUANTILE)) if local else None
    return Thresholds(tuple(curve), found, curve[0], f"99th percentile of {sum(map(len, controls))} generations of controls")
