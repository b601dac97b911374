"""What mitigations ask a model before its pass begins: the first step, or a whole pass without an image."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from afterglow.models.denoiser import Denoiser, TextConditioning
from afterglow.sampling.setup import CFGOutputs, SamplingSetup, initial_noise


def guidance_delta(model: Denoiser, uncond: Tensor, cond: Tensor, timestep: int | Tensor) -> Tensor:
    """Delta = eps_c - eps_u of the network's outputs, [B, C, h, w], at one timestep or at one of each row, [B].

    What an output says of eps is linear in it.
    """
    return model.to_noise(cond - uncond, torch.zeros_like(cond), timestep).float()


def magnitude(delta: Tensor) -> Tensor:
    """||Delta||_2 of each image, [B] (METHODS (b))."""
    return delta.flatten(1).norm(dim=1)


@dataclass(frozen=True)
class FirstStep:
    """The first step of a course: the network's input [B, C, h, w] and its timestep, a scalar tensor."""

    noisy: Tensor
    timestep: Tensor


def first_step(model: Denoiser, setup: SamplingSetup) -> FirstStep:
    """From the same noise as the pass that follows."""
    scheduler = setup.scheduler()
    timestep = scheduler.timesteps[0]
    return FirstStep(scheduler.scale_model_input(first_sample(model, setup, scheduler.init_noise_sigma), timestep), timestep)


def first_sample(model: Denoiser, setup: SamplingSetup, sigma: float, generators: list[torch.Generator] | None = None) -> Tensor:
    """The state that the sampler begins with, [B, C, h, w]."""
    noise = initial_noise(model.shape(), generators or setup.generators(), model.precision)
    return noise.to(model.device) * sigma


def halves_at(model: Denoiser, condition: TextConditioning, noisy: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor]:
    """The unconditional and the conditional output for a condition of both halves, in one batch."""
    times = timestep.to(noisy.device).expand(2 * len(noisy))
    uncond, cond = model(torch.cat([noisy, noisy]), times, condition).chunk(2)
    return uncond, cond


def first_magnitude(model: Denoiser, setup: SamplingSetup) -> Tensor:
    """||Delta||_2 at the first step, [B]: one call of the network."""
    assert setup.condition is not None
    first = first_step(model, setup)
    return magnitude(guidance_delta(model, *halves_at(model, setup.condition, first.noisy, first.timestep), int(first.timestep)))


def sample_steps(model: Denoiser, setup: SamplingSetup) -> Iterator[tuple[CFGOutputs, Tensor]]:
    """A pass as the course says, step by step: the network's outputs, and the sampler's state [B, C, h, w] after the step."""
    assert setup.condition is not None
    scheduler, generators = setup.scheduler(), setup.generators()
    sample = first_sample(model, setup, scheduler.init_noise_sigma, generators)
    extra = {"generator": generators} if "generator" in inspect.signature(scheduler.step).parameters else {}
    for index, timestep in enumerate(scheduler.timesteps):
        noisy = scheduler.scale_model_input(sample, timestep)
        with torch.no_grad(), setup.edit():
            uncond, cond = halves_at(model, setup.condition, noisy, timestep)
            halves = CFGOutputs(index, int(timestep), noisy, uncond, cond, setup.scale)
            sample = scheduler.step(setup.guide(halves), timestep, sample, **extra).prev_sample
        yield halves, sample
