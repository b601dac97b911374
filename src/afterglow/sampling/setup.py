"""A pass over the sampler before it begins: everything that a mitigation may change of it."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from afterglow.models.denoiser import Denoiser, TextConditioning


@dataclass(frozen=True)
class CFGOutputs:
    """The network's outputs at one step. noisy, uncond, cond: [B, C, h, w]; scale: the guidance that was asked for."""

    index: int
    timestep: int
    noisy: Tensor
    uncond: Tensor
    cond: Tensor
    scale: float


def classifier_free_guidance(halves: CFGOutputs, scale: float | None = None) -> Tensor:
    """Classifier-free guidance, u + s (c - u) (Ho and Salimans 2022); s: the scale that was asked for, or another."""
    scale = halves.scale if scale is None else scale
    return halves.cond if scale == 1 else halves.uncond + scale * (halves.cond - halves.uncond)


@dataclass(frozen=True)
class SamplingSetup:
    """How B generations will run.

    captions: what the model is told; seeds: of the generators that draw the first noise (and go on with an ancestral sampler's).
    condition: what the text encoder says, [uncond; cond] of 2B rows, None without text; scale: guidance. scheduler: a new one, its
    timesteps set. guide: outputs of both halves => what moves the sampler. edit: a context in which the network makes its calls.
    notes: what a mitigation found out, [B] each, for Generations.derived; read when the pass is over.
    """

    captions: Sequence[str]
    seeds: Sequence[int]
    condition: TextConditioning | None
    scale: float
    scheduler: Callable[[], Any]
    guide: Callable[[CFGOutputs], Tensor] = classifier_free_guidance
    edit: Callable[[], AbstractContextManager[Any]] = nullcontext
    notes: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def half(self) -> slice:
        """The conditional rows of both halves."""
        return slice(len(self.captions), None)

    def generators(self) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in self.seeds]

    def told(self, model: Denoiser, captions: Sequence[str]) -> "SamplingSetup":
        """The same with other captions."""
        return replace(self, captions=tuple(captions), condition=encode_cfg_batch(model, captions))


class Mitigation(Protocol):
    """Changes a course before it begins: its captions, text states, first noise, attention, or the guidance of each step."""

    def __call__(self, model: Denoiser, setup: SamplingSetup) -> SamplingSetup: ...


@torch.no_grad()
def encode_cfg_batch(model: Denoiser, captions: Sequence[str]) -> TextConditioning | None:
    """[uncond; cond] of B captions, 2B rows, in the precision of the network; None for a model without text."""
    conditional, empty = model.condition(captions), model.condition([""])
    if conditional is None or empty is None:
        return None
    both = TextConditioning.cat([empty[[0] * len(captions)], conditional])
    return replace(both, states=both.states.to(model.precision))


def initial_noise(shape: Sequence[int], generators: Sequence[torch.Generator], dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal [B, *shape], each row from its own generator: as a diffusers pipeline draws with a list of generators."""
    return torch.stack([torch.randn(*shape, generator=generator, dtype=dtype) for generator in generators])
