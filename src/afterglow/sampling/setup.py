"""The setup of a sampling pass: everything that a mitigation may change before the pass begins."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from afterglow.models.conditioning import TextConditioning
from afterglow.models.denoiser import Denoiser
from afterglow.sampling.guidance import CFGOutputs, classifier_free_guidance
from afterglow.sampling.known import KnownPixels


@dataclass(frozen=True)
class SamplingSetup:
    """How B images will be generated.

    Attributes:
        captions: B captions.
        seeds: B seeds of the generators that draw the initial noise (and continue with the noise of an ancestral sampler).
        condition: encoded captions [uncond; cond] of 2B rows; None for a model without text.
        scale: guidance scale.
        scheduler: creates a scheduler with its timesteps set.
        guide: combines the outputs of both halves to the output that moves the sampler.
        attention_context: a context in which the network is called.
        extras: further results of a mitigation, [B] each, for Generations.extras; read when the pass is over.
        known: pixels that are kept while the others are outpainted.
    """

    captions: Sequence[str]
    seeds: Sequence[int]
    condition: TextConditioning | None
    scale: float
    scheduler: Callable[[], Any]
    guide: Callable[[CFGOutputs], Tensor] = classifier_free_guidance
    attention_context: Callable[[], AbstractContextManager[Any]] = nullcontext
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    known: KnownPixels | None = None

    @property
    def cond_slice(self) -> slice:
        """The conditional rows of a batch of both halves."""
        return slice(len(self.captions), None)

    def generators(self) -> list[torch.Generator]:
        """New random generators, one for each image."""
        return [torch.Generator().manual_seed(seed) for seed in self.seeds]

    def with_prompts(self, model: Denoiser, captions: Sequence[str]) -> "SamplingSetup":
        """The same setup with other captions."""
        return replace(self, captions=tuple(captions), condition=encode_cfg_batch(model, captions))


class Mitigation(Protocol):
    """Changes a sampling setup: its captions, embeddings, initial noise, attention, or the guidance of each step."""

    def __call__(self, model: Denoiser, setup: SamplingSetup) -> SamplingSetup: ...


@torch.no_grad()
def encode_cfg_batch(model: Denoiser, captions: Sequence[str]) -> TextConditioning | None:
    """Encode B captions to [uncond; cond], 2B rows in the network's data type; None for a model without text."""
    conditional, empty = model.condition(captions), model.condition([""])
    if conditional is None or empty is None:
        return None
    both = TextConditioning.cat([empty[[0] * len(captions)], conditional])
    return replace(both, encoder_hidden_states=both.encoder_hidden_states.to(model.dtype))


def initial_noise(shape: Sequence[int], generators: Sequence[torch.Generator], dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal noise [B, *shape], each row from its own generator, as a diffusers pipeline with a list of generators draws it."""
    return torch.stack([torch.randn(*shape, generator=generator, dtype=dtype) for generator in generators])
