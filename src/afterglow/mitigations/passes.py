"""What remedies ask a model before its pass begins: the first step, or a whole pass without a picture."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from afterglow.models.course import Course, Halves, initial_noise
from afterglow.models.denoiser import Condition, Denoiser


def delta_of(model: Denoiser, uncond: Tensor, cond: Tensor, timestep: int | Tensor) -> Tensor:
    """Delta = eps_c - eps_u of the network's outputs, [B, C, h, w], at one timestep or at one of each row, [B].

    What an output says of eps is linear in it.
    """
    return model.to_noise(cond - uncond, torch.zeros_like(cond), timestep).float()


def magnitude(delta: Tensor) -> Tensor:
    """||Delta||_2 of each image, [B] (METHODS (b))."""
    return delta.flatten(1).norm(dim=1)


@dataclass(frozen=True)
class First:
    """The first step of a course: the network's input [B, C, h, w] and its timestep, a scalar tensor."""

    noisy: Tensor
    timestep: Tensor


def first_step(model: Denoiser, course: Course) -> First:
    """From the same noise as the pass that follows."""
    scheduler = course.scheduler()
    timestep = scheduler.timesteps[0]
    return First(scheduler.scale_model_input(first_sample(model, course, scheduler.init_noise_sigma), timestep), timestep)


def first_sample(model: Denoiser, course: Course, sigma: float, generators: list[torch.Generator] | None = None) -> Tensor:
    """The state that the sampler begins with, [B, C, h, w]."""
    noise = initial_noise(model.shape(), generators or course.generators(), model.precision)
    return noise.to(model.device) * sigma


def halves_at(model: Denoiser, condition: Condition, noisy: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor]:
    """The unconditional and the conditional output for a condition of both halves, in one batch."""
    times = timestep.to(noisy.device).expand(2 * len(noisy))
    uncond, cond = model(torch.cat([noisy, noisy]), times, condition).chunk(2)
    return uncond, cond


def first_magnitude(model: Denoiser, course: Course) -> Tensor:
    """||Delta||_2 at the first step, [B]: one call of the network."""
    assert course.condition is not None
    first = first_step(model, course)
    return magnitude(delta_of(model, *halves_at(model, course.condition, first.noisy, first.timestep), int(first.timestep)))


def walk(model: Denoiser, course: Course) -> Iterator[tuple[Halves, Tensor]]:
    """A pass as the course says, step by step: the network's outputs, and the sampler's state [B, C, h, w] after the step."""
    assert course.condition is not None
    scheduler, generators = course.scheduler(), course.generators()
    sample = first_sample(model, course, scheduler.init_noise_sigma, generators)
    extra = {"generator": generators} if "generator" in inspect.signature(scheduler.step).parameters else {}
    for index, timestep in enumerate(scheduler.timesteps):
        noisy = scheduler.scale_model_input(sample, timestep)
        with torch.no_grad(), course.edit():
            uncond, cond = halves_at(model, course.condition, noisy, timestep)
            halves = Halves(index, int(timestep), noisy, uncond, cond, course.scale)
            sample = scheduler.step(course.guide(halves), timestep, sample, **extra).prev_sample
        yield halves, sample
