"""Guidance that begins late (Jain et al. 2025, METHODS (e)): outside the attraction basin of a copy."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from afterglow.functional.guidance import first_local_minimum
from afterglow.mitigations.inference.passes import guidance_delta, magnitude, sample_steps
from afterglow.models.denoiser import Denoiser
from afterglow.sampling.setup import CFGOutputs, SamplingSetup, classifier_free_guidance

FINER_STEPS = 200  # of the authors' static transition
WITHOUT_MINIMUM = 5  # sampler steps of opposite guidance where the probe has no minimum


def by_row(halves: CFGOutputs, begun: Tensor, before: float) -> Tensor:
    """Guided with the asked scale where guidance has begun (bool [B]), with the scale `before` elsewhere."""
    return torch.where(
        begun[:, None, None, None].to(halves.cond.device), classifier_free_guidance(halves), classifier_free_guidance(halves, before)
    )


@dataclass(frozen=True)
class StaticTransition:
    """STP: the scale `before` while t > tau, then the one that was asked for. before = 0: none; negative: opposite guidance.

    tau in the timesteps that the model was trained with. finer: as in the authors' code, a grid of 200 steps from t = tau on, where
    tau is a timestep of the sampler's (500 is, of their 50 steps); it makes more calls of the network.
    """

    tau: float = 500
    before: float = 0.0
    finer: bool = False

    def __call__(self, model: Denoiser, setup: SamplingSetup) -> SamplingSetup:
        setup = replace(setup, guide=lambda halves: classifier_free_guidance(halves, self.before if halves.timestep > self.tau else None))
        return replace(setup, scheduler=partial(rebuilt, setup.scheduler, self.tau)) if self.finer else setup


def rebuilt(build: Callable[[], Any], tau: float) -> Any:
    """A sampler with a finer grid from t = tau on, whose first timestep stands for tau; as it was built where tau is none of its own."""
    coarse, fine = build(), build()
    fine.set_timesteps(FINER_STEPS)
    before, after = coarse.timesteps[coarse.timesteps > tau], fine.timesteps[fine.timesteps <= tau]
    return Joined(coarse, fine, tau, torch.cat([before, after])) if (coarse.timesteps == tau).any() else coarse


@dataclass(frozen=True)
class Joined:
    """Two diffusers schedulers, one while t > tau and the other from there, with their timesteps in turn, [T]."""

    first: Any
    second: Any
    tau: float
    timesteps: Tensor

    @property
    def init_noise_sigma(self) -> float:
        return self.first.init_noise_sigma

    def at(self, timestep: Tensor) -> Any:
        """The scheduler of a timestep."""
        return self.first if timestep > self.tau else self.second

    def scale_model_input(self, sample: Tensor, timestep: Tensor) -> Tensor:
        return self.at(timestep).scale_model_input(sample, timestep)

    def step(self, output: Tensor, timestep: Tensor, sample: Tensor, generator: Any = None) -> Any:
        step = self.at(timestep).step
        extra = {"generator": generator} if "generator" in inspect.signature(step).parameters else {}
        return step(output, timestep, sample, **extra)


@dataclass(frozen=True)
class DynamicTransition:
    """DTP: the scale `before` until the first step k with d_{k-2} > d_{k-1} and d_k > d_{k-1}, d_t = ||Delta_t||_2; latched.

    latest: the share of the steps after which guidance begins even without a minimum (the paper has no such end). before: 0 as in
    the paper; its code has 1.
    """

    latest: float = 0.5
    before: float = 0.0

    def __call__(self, model: Denoiser, setup: SamplingSetup) -> SamplingSetup:
        curve: list[Tensor] = []
        last = round(self.latest * len(setup.scheduler().timesteps))

        def guide(halves: CFGOutputs) -> Tensor:
            curve.append(magnitude(guidance_delta(model, halves.uncond, halves.cond, halves.timestep)).cpu())
            return by_row(halves, has_begun(torch.stack(curve), last), self.before)

        return replace(setup, guide=guide)


def has_begun(curves: Tensor, last: int) -> Tensor:
    """Whether guidance has begun at step k, bool [B], from ||Delta_t|| of the steps 0..k, [k + 1, B]: a minimum lies behind, or `last`."""
    if len(curves) > last:
        return torch.ones(curves.shape[1], dtype=torch.bool)
    return torch.tensor([first_local_minimum(curve) is not None for curve in curves.unbind(1)])


@dataclass(frozen=True)
class OppositeDynamic:
    """OG + DTP: a whole probe with the scale -s, then opposite guidance until the transition that the probe showed.

    The probe's curve is 1 - cos(z_t, z_{t-1}) of the sampler's states; see opposite_transition. latest: at most this share of the
    steps. toggled: the sign changes at each step, as in the authors' code; it begins opposite.
    """

    latest: float = 1.0
    toggled: bool = False

    def __call__(self, model: Denoiser, setup: SamplingSetup) -> SamplingSetup:
        states = [
            state.flatten(1).float()
            for _, state in sample_steps(model, replace(setup, guide=lambda h: classifier_free_guidance(h, -h.scale)))
        ]
        turns = [1 - torch.cosine_similarity(new, old, dim=1).cpu() for old, new in zip(states, states[1:], strict=False)]
        curves = torch.stack(turns, dim=1) if turns else torch.zeros(len(setup.seeds), 0)
        last = round(self.latest * len(states))
        transition = torch.tensor([min(opposite_transition(curve), last) for curve in curves])

        def guide(halves: CFGOutputs) -> Tensor:
            away = halves.scale if self.toggled and halves.index % 2 else -halves.scale
            return by_row(halves, halves.index >= transition, away)

        return replace(setup, guide=guide, notes={**setup.notes, "mitigation.transition": transition.float()})


def opposite_transition(curve: Tensor) -> int:
    """The first local minimum of the probe's curve [T - 1], the second where the first has index 1, 5 where there is none."""
    found = first_local_minimum(curve)
    if found == 1:
        later = first_local_minimum(curve[1:])
        found = None if later is None else later + 1
    return WITHOUT_MINIMUM if found is None else found
