"""Classifier-free guidance: both predictions in one batch, their difference, and how they are combined."""

from dataclasses import dataclass

import torch
from torch import Tensor

from afterglow.models.conditioning import TextConditioning
from afterglow.models.denoiser import Denoiser
from afterglow.models.noise import is_flow


@dataclass(frozen=True)
class CFGOutputs:
    """Outputs of the network at one sampler step.

    Attributes:
        index: number of the step, from 0.
        timestep: its timestep.
        noisy: x_t, [B, C, h, w].
        uncond: output for the empty caption, [B, C, h, w]; the same tensor as `cond` for a model without text.
        cond: output for the captions, [B, C, h, w].
        scale: requested guidance scale.
    """

    index: int
    timestep: float
    noisy: Tensor
    uncond: Tensor
    cond: Tensor
    scale: float


def classifier_free_guidance(outputs: CFGOutputs, scale: float | None = None) -> Tensor:
    """Combine both predictions: u + s (c - u) with s = `scale` or the requested scale, [B, C, h, w] (Ho and Salimans 2022)."""
    scale = outputs.scale if scale is None else scale
    if scale == 1 or outputs.uncond is outputs.cond:
        return outputs.cond
    return outputs.uncond + scale * (outputs.cond - outputs.uncond)


def predict_both(model: Denoiser, condition: TextConditioning | None, noisy: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor]:
    """Run the network on both halves in one batch.

    Args:
        model: the model.
        condition: encoded captions [uncond; cond] of 2B rows, or B rows of the conditional half alone; None for a model without text.
        noisy: x_t, [B, C, h, w].
        timestep: a scalar.

    Returns:
        The unconditional and the conditional output, [B, C, h, w] each; twice the same tensor where there is one half.
    """
    if condition is None or len(condition.prompt_length) == len(noisy):
        output = model(noisy, timestep.to(noisy.device, non_blocking=True).expand(len(noisy)), condition)
        return output, output
    timesteps = timestep.to(noisy.device, non_blocking=True).expand(2 * len(noisy))
    uncond, cond = model(torch.cat([noisy, noisy]), timesteps, condition).chunk(2)
    return uncond, cond


def guidance_delta(model: Denoiser, uncond: Tensor, cond: Tensor, noisy: Tensor, timestep: float | Tensor) -> Tensor:
    """Delta = eps_c - eps_u, in flow matching u_c - u_u, in float32, [B, C, h, w] (docs/methods.md#magnitude).

    The conversion to noise is affine, so that the difference of the outputs is converted with x_t = 0: in float16 the rounding of two
    converted outputs would exceed a small difference. A flow starts where eps is x_t itself, whatever the caption, so that its first
    eps_c - eps_u = a (u_c - u_u) would be 0.

    Args:
        model: the model, which knows what its network predicts.
        uncond: unconditional output, [B, C, h, w].
        cond: conditional output, [B, C, h, w].
        noisy: x_t, [B, C, h, w].
        timestep: one for all rows, or [B].
    """
    difference = cond.float() - uncond.float()
    return difference if is_flow(model.scheduler) else model.to_noise(difference, torch.zeros_like(difference), timestep)


def delta_norm(delta: Tensor) -> Tensor:
    """||Delta||_2 of each image, [B] (docs/methods.md#magnitude); delta: [B, C, h, w]."""
    return delta.flatten(1).norm(dim=1)
