"""Thresholds of mitigations in the units of one model (docs/methods.md#mitigations-inference)."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from afterglow.attention_names import layer_sets
from afterglow.errors import AfterglowError
from afterglow.generations import Generations
from afterglow.measures.bright_ending import local_detection

CONTROL_QUANTILE = 0.99
PUBLISHED_CURVE = 3.0  # ||Delta|| of Stable Diffusion 1.x in latents of 64 x 64: Wen's target, Chen's lower threshold of re-anchoring
UPPER = 5 / 3  # Chen's upper threshold over the lower one


@dataclass(frozen=True)
class Thresholds:
    """Guidance norms that count as high, per image, in units of eps.

    magnitude: of ||Delta_t|| at each sampler step, [T]. local: of LD at the first step; None where no end token is read. search: of
    ||Delta|| at the first step, below which a caption needs no other. origin: where the values come from.
    """

    magnitude: tuple[float, ...]
    local: float | None
    search: float
    origin: str


def published_thresholds(num_steps: int) -> Thresholds:
    """The authors' values: target 3 (Wen), LD 1 and search 1 (Chen). They hold for Stable Diffusion 1.x at 512 pixels only."""
    return Thresholds((PUBLISHED_CURVE,) * num_steps, 1.0, 1.0, "published for Stable Diffusion 1.x")


def control_thresholds(parts: Iterable[Generations]) -> Thresholds:
    """The 99th percentile of the controls at each step. Norms grow with the number of values, so that no number fits two models.

    Raises:
        AfterglowError: the generations contain no control.
    """
    controls = [part[[row for row, kind in enumerate(part.kind) if kind == "control"]] for part in parts if "control" in part.kind]
    if not controls:
        raise AfterglowError("Thresholds are percentiles of controls, and no control was sampled: request some, or give published ones.")
    norms, local = [], []
    for part in controls:
        assert part.guidance is not None and part.guidance_rms is not None
        norms.append(part.guidance_rms * part.guidance[0, 0].numel() ** 0.5)
        if layers := layer_sets(part.layers).get("be"):
            local.append(local_detection(part, layers, 1))
    curve = torch.cat(norms, dim=1).quantile(CONTROL_QUANTILE, dim=1).tolist()
    ld = float(torch.cat(local).quantile(CONTROL_QUANTILE)) if local else None
    return Thresholds(tuple(curve), ld, curve[0], f"99th percentile of {sum(map(len, controls))} generations of controls")
