"""Measurements that need the model while it generates: Jacobian products, an early checkpoint's predictions.

Each observer is called at every step of one pass and gives named tensors for Generations.extras.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cosine_similarity

from afterglow.functional.attention import entropy
from afterglow.models.conditioning import TextConditioning
from afterglow.models.denoiser import Denoiser
from afterglow.models.noise import noise_levels
from afterglow.sampling.guidance import guidance_delta, predict_both

EXTRAS = ("sharpness", "curvature", "low_noise_cosine", "basin_curve", "early_difference", "self_attention", "update_norms")
EXTRAS_NEEDING_TEXT = ("sharpness", "curvature", "low_noise_cosine", "basin_curve")
LOW_NOISE = 0.041  # of the schedule: t = 41 of 1000, the third last of 50 steps with leading spacing


@dataclass(frozen=True)
class SamplerStep:
    """One step of the sampler as the network saw it.

    Attributes:
        index: number of the step, from 0.
        num_steps: number of steps of the pass.
        timestep: its timestep.
        noisy: x_t, [B, C, h, w].
        noise: predicted eps, conditional if the model has text, [B, C, h, w].
        condition: encoded captions [uncond; cond] of 2B rows; None for a model without text.
    """

    index: int
    num_steps: int
    timestep: float
    noisy: Tensor
    noise: Tensor
    condition: TextConditioning | None


class Observer(Protocol):
    """Reads every step of one pass."""

    def on_step(self, step: SamplerStep) -> None: ...

    def result(self) -> dict[str, Tensor]: ...


def _delta_function(model: Denoiser, step: SamplerStep) -> Callable[[Tensor], Tensor]:
    """The function x_t => Delta(x_t) at one step."""
    timestep = torch.tensor(step.timestep)
    return lambda noisy: guidance_delta(model, *predict_both(model, step.condition, noisy, timestep), noisy, step.timestep)


def _jacobian_product(function: Callable[[Tensor], Tensor], at: Tensor, vector: Tensor) -> Tensor:
    """J(x) v by forward differentiation, which fused attention kernels do not support."""
    with torch.autocast(at.device.type, enabled=False), sdpa_kernel(SDPBackend.MATH):
        return torch.func.jvp(function, (at,), (vector,))[1]


class Sharpness:
    """|| H_c s_D - H_u s_D ||_2 at the first step; with s = -eps / sigma this is ||J_Delta Delta||_2 / sigma^2.

    Jeon et al. 2025, docs/methods.md#sharpness
    """

    def __init__(self, model: Denoiser) -> None:
        self.model = model

    def on_step(self, step: SamplerStep) -> None:
        if step.index == 0:
            delta = _delta_function(self.model, step)
            product = _jacobian_product(delta, step.noisy, delta(step.noisy))
            variance = noise_levels(self.model.scheduler, step.timestep, step.noisy)[1].item() ** 2
            self.value = product.float().flatten(1).norm(dim=1).cpu() / variance

    def result(self) -> dict[str, Tensor]:
        return {"sharpness": self.value}


class Curvature:
    """-sum_c diag J(eps_c - eps_u) at the last step, the mean of v * (J v) over Rademacher vectors v (Hutchinson's estimate).

    docs/methods.md#curvature-difference
    """

    def __init__(self, model: Denoiser, num_vectors: int, seeds: list[int]) -> None:
        self.model, self.num_vectors, self.seeds = model, num_vectors, seeds

    def on_step(self, step: SamplerStep) -> None:
        if step.index != step.num_steps - 1:
            return
        delta, total = _delta_function(self.model, step), torch.zeros(len(step.noisy), *step.noisy.shape[-2:], device=step.noisy.device)
        generators = [torch.Generator().manual_seed(2 * seed + 1) for seed in self.seeds]  # one per row, so that batches do not matter
        for _ in range(self.num_vectors):
            signs = [torch.randint(2, step.noisy.shape[1:], generator=generator) * 2.0 - 1 for generator in generators]
            vector = torch.stack(signs).to(step.noisy, non_blocking=True)
            total -= (vector * _jacobian_product(delta, step.noisy, vector)).float().sum(1)
        self.value = (total / self.num_vectors).cpu()

    def result(self) -> dict[str, Tensor]:
        return {"curvature": self.value}


class LowNoiseCosine:
    """cos(Delta, eps_u) over channels at t = 41 of 1000, mean over pixels, with the pure noise of the first step as input.

    Asthana and Belagiannis 2026, docs/methods.md#anisotropy. The same cosine as that of the scores, which are -eps / sigma.
    """

    def __init__(self, model: Denoiser) -> None:
        self.model, self.timestep = model, int(LOW_NOISE * len(model.scheduler))

    def on_step(self, step: SamplerStep) -> None:
        if step.index == 0:
            uncond, cond = predict_both(self.model, step.condition, step.noisy, torch.tensor(self.timestep))
            delta = guidance_delta(self.model, uncond, cond, step.noisy, self.timestep)
            noise = self.model.to_noise(uncond, step.noisy, self.timestep).float()
            self.value = cosine_similarity(noise, delta, dim=1).mean((1, 2)).cpu()

    def result(self) -> dict[str, Tensor]:
        return {"low_noise_cosine": self.value}


class EarlyDifference:
    """(eps - eps_early)^2 summed over channels along the current model's trajectory, at the last step and summed over steps.

    docs/methods.md#early-difference
    """

    def __init__(self, early: Denoiser) -> None:
        self.early, self.summed = early, torch.zeros(())

    def on_step(self, step: SamplerStep) -> None:
        times = torch.full((len(step.noisy),), step.timestep, device=step.noisy.device)
        condition = None if step.condition is None else step.condition[len(step.noisy) :]
        early_noise = self.early.to_noise(self.early(step.noisy, times, condition), step.noisy, step.timestep)
        self.last = (step.noise - early_noise).float().square().sum(1)
        self.summed = self.summed + self.last

    def result(self) -> dict[str, Tensor]:
        return {"early_difference.last": self.last.cpu(), "early_difference.summed": self.summed.cpu()}


def concentration(attention_BPP: Tensor) -> Tensor:
    """Concentration 1 - H_p / ln P of each pixel's self-attention, [B, P] (docs/methods.md#self-attention).

    1 if a pixel attends to one pixel, 0 if it attends to all pixels alike; NaN for P = 1, where both are the same.
    """
    return 1 - entropy(attention_BPP) / math.log(attention_BPP.shape[-1])
