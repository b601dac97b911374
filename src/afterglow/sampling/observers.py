"""What only the model can tell while it generates: products with its Jacobian, an early checkpoint's predictions, its self-attention.

Each observer sees every step of one pass and leaves named tensors for Generations.extras.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from afterglow.models.denoiser import Denoiser, TextConditioning

DERIVED = ("sharpness", "curvature", "basin_curve", "early_difference", "self_attention")
NEEDS_TEXT = ("sharpness", "curvature", "basin_curve")


@dataclass(frozen=True)
class Step:
    """One step of the sampler as the network saw it.

    noisy: [B, C, h, w]; noise: the conditional prediction of eps (the only one, without text), [B, C, h, w];
    condition: of both halves, [uncond; cond].
    """

    index: int
    num_steps: int
    timestep: int
    noisy: Tensor
    noise: Tensor
    condition: TextConditioning | None


class Observer(Protocol):
    """Looks at every step of one pass, and hands over what it kept."""

    def see(self, step: Step) -> None: ...

    def kept(self) -> dict[str, Tensor]: ...


def guidance_at(model: Denoiser, step: Step) -> Callable[[Tensor], Tensor]:
    """X => Delta(x) = eps_c(x) - eps_u(x) at one step, both halves in one batch."""
    times = torch.full((2 * len(step.noisy),), step.timestep, device=step.noisy.device)

    def delta(noisy: Tensor) -> Tensor:
        uncond, cond = model(torch.cat([noisy, noisy]), times, step.condition).chunk(2)
        return model.to_noise(cond, noisy, step.timestep) - model.to_noise(uncond, noisy, step.timestep)

    return delta


def jacobian_product(function: Callable[[Tensor], Tensor], at: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
    """f(x) and J(x) v by forward differentiation, which fused attention kernels do not have."""
    with torch.autocast(at.device.type, enabled=False), sdpa_kernel(SDPBackend.MATH):
        value, product = torch.func.jvp(function, (at,), (vector,))[:2]
        return value, product


class Sharpness:
    """|| H_c s_D - H_u s_D ||_2 at the first step (Jeon et al. 2025): with s = -eps / sigma it is ||J_Delta Delta||_2 / sigma^2."""

    def __init__(self, model: Denoiser) -> None:
        self.model = model

    def see(self, step: Step) -> None:
        if step.index:
            return
        delta = guidance_at(self.model, step)
        _, product = jacobian_product(delta, step.noisy, delta(step.noisy))
        variance = 1 - self.model.scheduler.alphas_cumprod[step.timestep].item()
        self.value = product.float().flatten(1).norm(dim=1).cpu() / variance

    def kept(self) -> dict[str, Tensor]:
        return {"sharpness": self.value}


class Curvature:
    """-sum_c diag J(eps_c - eps_u) at the last step by Hutchinson's estimate: the mean of v * (J v) over Rademacher vectors v."""

    def __init__(self, model: Denoiser, num_vectors: int, seeds: list[int]) -> None:
        self.model, self.num_vectors, self.seeds = model, num_vectors, seeds

    def see(self, step: Step) -> None:
        if step.index != step.num_steps - 1:
            return
        delta, total = guidance_at(self.model, step), torch.zeros(len(step.noisy), *step.noisy.shape[-2:])
        generators = [torch.Generator().manual_seed(2 * seed + 1) for seed in self.seeds]  # of the row, so that batches do not matter
        for _ in range(self.num_vectors):
            signs = [torch.randint(2, step.noisy.shape[1:], generator=generator) * 2.0 - 1 for generator in generators]
            vector = torch.stack(signs).to(step.noisy)
            _, product = jacobian_product(delta, step.noisy, vector)
            total -= (vector * product).float().sum(1).cpu()
        self.value = total / self.num_vectors

    def kept(self) -> dict[str, Tensor]:
        return {"curvature": self.value}


class EarlyDifference:
    """(eps - eps_early)^2 summed over channels, on the current model's own way: at the last step, and summed over steps."""

    def __init__(self, early: Denoiser) -> None:
        self.early, self.summed = early, torch.zeros(())

    def see(self, step: Step) -> None:
        times = torch.full((len(step.noisy),), step.timestep, device=step.noisy.device)
        condition = None if step.condition is None else step.condition[len(step.noisy) :]
        before = self.early.to_noise(self.early(step.noisy, times, condition), step.noisy, step.timestep)
        self.last = (step.noise - before).float().square().sum(1).cpu()
        self.summed = self.summed + self.last

    def kept(self) -> dict[str, Tensor]:
        return {"early_difference.last": self.last, "early_difference.summed": self.summed}


def concentration(attention_BPP: Tensor) -> Tensor:
    """1 - H_p / ln P of each pixel's attention to all pixels, [B, P]."""
    entropy = -torch.special.xlogy(attention_BPP, attention_BPP).sum(-1)
    return 1 - entropy / math.log(attention_BPP.shape[-1])
