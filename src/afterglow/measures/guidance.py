"""What the caption changes in the prediction: magnitude (Wen), score difference (mem-curv-diff), sharpness (Jeon), basin (Jain)."""

import torch
from torch import Tensor

from afterglow.functional import guidance
from afterglow.generations import Generations


def guidance_norm(generations: Generations, num_steps: int | None = None) -> Tensor:
    """mean_t ||Delta_t||_2 over the first `num_steps` sampler steps (None: all), [B]; units of eps (docs/methods.md#magnitude)."""
    assert generations.guidance is not None and generations.guidance_rms is not None
    return guidance.guidance_norm(generations.guidance_rms[:num_steps], generations.guidance[0, 0].numel())


def score_difference(generations: Generations, *, summed: bool) -> Tensor:
    """Delta_t^2 summed over channels, at the last step or over all steps, [B, h, w]; eps^2 (docs/methods.md#score-difference)."""
    assert generations.guidance is not None and generations.guidance_rms is not None
    steps = slice(None) if summed else slice(-1, None)
    return guidance.score_difference(generations.guidance[steps], generations.guidance_rms[steps])


def sharpness(generations: Generations) -> Tensor:
    """||H_c s_D - H_u s_D||_2 at the first step, [B], with s = -eps / sigma and s_D = s_c - s_u; 1 / x^2 (docs/methods.md#sharpness).

    The Jacobian-vector product is computed during sampling.
    """
    return generations.extras["sharpness"]


def basin_step(generations: Generations) -> Tensor:
    """Sampler step of the first local minimum of ||Delta_t|| without guidance, [B]; NaN where there is none.

    Attraction basin (Jain et al. 2025; docs/methods.md#basin): the guidance norm of a copy falls to a first minimum. The transition
    is detected one step later.
    """
    steps = [guidance.first_local_minimum(curve) for curve in generations.extras["basin_curve"]]
    return torch.tensor([torch.nan if step is None else float(step) for step in steps])


def basin_depth(generations: Generations) -> Tensor:
    """Share of its first value by which the curve of `basin_step` has fallen at its first local minimum, [B]."""
    curves, steps = generations.extras["basin_curve"], basin_step(generations)
    depths = [torch.nan if step.isnan() else float(1 - curve[int(step)] / curve[0]) for step, curve in zip(steps, curves, strict=True)]
    return torch.tensor(depths)
