"""Guidance that begins outside the attraction basin of a copy (Jain et al. 2025; docs/methods.md#mitigations-inference)."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from afterglow.functional.guidance import first_local_minimum
from afterglow.models.denoiser import Denoiser
from afterglow.sampling.guidance import CFGOutputs, classifier_free_guidance, delta_norm, guidance_delta
from afterglow.sampling.loop import sample_steps
from afterglow.sampling.setup import SamplingSetup

FINER_STEPS = 200  # steps of the finer grid in the authors' static transition
STEPS_WITHOUT_MINIMUM = 5  # sampler steps of opposite guidance if the preliminary pass has no minimum


def _guide_rows(outputs: CFGOutputs, begun: Tensor, before: float) -> Tensor:
    """Guidance with the requested scale for rows in which it has begun (bool [B]), with the scale `before` for the others."""
    begun = begun[:, None, None, None].to(outputs.cond.device)
    return torch.where(begun, classifier_free_guidance(outputs), classifier_free_guidance(outputs, before))


@dataclass(frozen=True)
class StaticTransition:
    """STP: another scale while t > tau, then the requested one.

    Args:
        tau: timestep of the training's noise schedule.
        before: scale while t > tau; 0: no guidance, negative: opposite guidance.
        finer: use a grid of 200 steps from t = tau on, as in the authors' code, if tau is a timestep of the sampler (500 is one of
            their 50 steps); this needs more calls of the network.
    """

    tau: float = 500
    before: float = 0.0
    finer: bool = False

    def __call__(self, model: Denoiser, setup: SamplingSetup) -> SamplingSetup:
        setup = replace(
            setup, guide=lambda outputs: classifier_free_guidance(outputs, self.before if outputs.timestep > self.tau else None)
        )
        return replace(setup, scheduler=partial(_with_finer_grid, setup.scheduler, self.tau)) if self.finer else setup


def _with_finer_grid(build: Callable[[], Any], tau: float) -> Any:
    """A scheduler with a finer grid from t = tau on, whose first timestep replaces tau; unchanged if tau is not one of its timesteps."""
    coarse, fine = build(), build()
    fine.set_timesteps(FINER_STEPS)
    before, after = coarse.timesteps[coarse.timesteps > tau], fine.timesteps[fine.timesteps <= tau]
    return JoinedScheduler(coarse, fine, tau, torch.cat([before, after])) if (coarse.timesteps == tau).any() else coarse


@dataclass(frozen=True)
class JoinedScheduler:
    """Two diffusers schedulers, one while t > tau and the other from there on; `timesteps` are those of both in turn, [T]."""

    first: Any
    second: Any
    tau: float
    timesteps: Tensor

    @property
    def init_noise_sigma(self) -> float:
        return self.first.init_noise_sigma

    def _at(self, timestep: Tensor) -> Any:
        return self.first if timestep > self.tau else self.second

    def scale_model_input(self, sample: Tensor, timestep: Tensor) -> Tensor:
        return self._at(timestep).scale_model_input(sample, timestep)

    def step(self, output: Tensor, timestep: Tensor, sample: Tensor, generator: Any = None) -> Any:
        step = self._at(timestep).step
        options = {"generator": generator} if "generator" in inspect.signature(step).parameters else {}
        return step(output, timestep, sample, **options)


@dataclass(frozen=True)
class DynamicTransition:
    """DTP: another scale until the first step k with d_{k-2} > d_{k-1} and d_k > d_{k-1}, d_t = ||Delta_t||_2.

    Args:
        latest: fraction of the steps after which guidance begins even without a minimum (the paper has no such limit).
        before: scale before; 0 as in the paper, 1 in its code.
    """

    latest: float = 0.5
    before: float = 0.0

    def __call__(self, model: Denoiser, setup: SamplingSetup) -> SamplingSetup:
        curve: list[Tensor] = []
        last = round(self.latest * len(setup.scheduler().timesteps))

        def guide(outputs: CFGOutputs) -> Tensor:
            curve.append(delta_norm(guidance_delta(model, outputs.uncond, outputs.cond, outputs.noisy, outputs.timestep)).cpu())
            return _guide_rows(outputs, _has_begun(torch.stack(curve), last), self.before)

        return replace(setup, guide=guide)


def _has_begun(curves: Tensor, last: int) -> Tensor:
    """Whether guidance has begun at step k, bool [B], given ||Delta_t|| of the steps 0..k, [k + 1, B]."""
    if len(curves) > last:
        return torch.ones(curves.shape[1], dtype=torch.bool)
    return torch.tensor([first_local_minimum(curve) is not None for curve in curves.unbind(1)])


@dataclass(frozen=True)
class OppositeDynamic:
    """OG + DTP: a preliminary pass with the scale -s, then opposite guidance until the transition found in that pass.

    The curve of the preliminary pass is 1 - cos(z_t, z_{t-1}) of the sampler's states.

    Args:
        latest: fraction of the steps at which opposite guidance ends at the latest.
        toggled: change the sign at each step, as in the authors' code, beginning with opposite guidance.
    """

    latest: float = 1.0
    toggled: bool = False

    def __call__(self, model: Denoiser, setup: SamplingSetup) -> SamplingSetup:
        opposite = replace(setup, guide=lambda outputs: classifier_free_guidance(outputs, -outputs.scale))
        states = [state.flatten(1).float() for _, state in sample_steps(model, opposite)]
        changes = [1 - torch.cosine_similarity(new, old, dim=1).cpu() for old, new in zip(states, states[1:], strict=False)]
        curves = torch.stack(changes, dim=1) if changes else torch.zeros(len(setup.seeds), 0)
        last = round(self.latest * len(states))
        transition = torch.tensor([min(_opposite_transition(curve), last) for curve in curves])

        def guide(outputs: CFGOutputs) -> Tensor:
            before = outputs.scale if self.toggled and outputs.index % 2 else -outputs.scale
            return _guide_rows(outputs, outputs.index >= transition, before)

        return replace(setup, guide=guide, extras={**setup.extras, "mitigation.transition": transition.float()})


def _opposite_transition(curve: Tensor) -> int:
    """The first local minimum of a curve [T - 1], the second if the first has index 1, 5 if there is none."""
    minimum = first_local_minimum(curve)
    if minimum == 1:
        later = first_local_minimum(curve[1:])
        minimum = None if later is None else later + 1
    return STEPS_WITHOUT_MINIMUM if minimum is None else minimum
