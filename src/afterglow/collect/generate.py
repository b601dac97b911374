"""One pass over the sampler, and everything that is kept of it."""

import importlib.metadata
import inspect
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import diffusers
import torch
from torch import Tensor

from afterglow.attention import cross_attention_layers, record
from afterglow.evidence import Evidence
from afterglow.models import Condition, Denoiser


@dataclass(frozen=True)
class Sampler:
    """How pictures are generated.

    Args:
        scheduler: any diffusers scheduler by its class name.
        steps: T, sampler steps.
        guidance_scale: 1 = the conditional prediction alone moves the sampler; the unconditional one is still computed for Delta.
        options: further arguments of the scheduler, such as timestep_spacing.
    """

    scheduler: str = "DDIMScheduler"
    steps: int = 25
    guidance_scale: float = 1.0
    options: Mapping[str, Any] = field(default_factory=lambda: {"timestep_spacing": "trailing"})

    def __post_init__(self) -> None:
        if not hasattr(diffusers, self.scheduler) or not self.scheduler.endswith("Scheduler"):
            raise ValueError(f"diffusers has no scheduler '{self.scheduler}'.")
        if self.steps < 1:
            raise ValueError(f"A sampler needs at least one step, and steps is {self.steps}.")

    def build(self, trained: diffusers.DDPMScheduler) -> Any:
        """The scheduler with the noise schedule that the model was trained with."""
        scheduler = getattr(diffusers, self.scheduler).from_config(trained.config, **self.options)
        scheduler.set_timesteps(self.steps)
        return scheduler


@dataclass(frozen=True)
class Capture:
    """What is kept of a pass beside the pictures.

    guidance: Delta_t at every step. tokens: token attention at every step. end_steps: step indices (negative from the end)
    at which end-token attention is kept, of the layers whose names start with one of `end_layers` (all by default).
    """

    guidance: bool = True
    tokens: bool = True
    end_steps: Sequence[int] = (0, -1)
    end_layers: Sequence[str] = ("",)


def initial_noise(shape: Sequence[int], generators: Sequence[torch.Generator]) -> Tensor:
    """Standard normal [B, *shape], each row from its own generator: as a diffusers pipeline draws with a list of generators."""
    return torch.stack([torch.randn(*shape, generator=generator) for generator in generators])


@torch.no_grad()
def generate(
    model: Denoiser,
    captions: Sequence[str],
    seeds: Sequence[int],
    sampler: Sampler = Sampler(),
    capture: Capture = Capture(),
    *,
    batch_size: int = 64,
) -> Evidence:
    """One picture for each caption and seed, in one pass over the sampler, with conditional and unconditional halves in one batch.

    A model without text ignores the captions and leaves neither guidance nor attention. Pictures do not depend on batch_size.
    """
    assert len(captions) == len(seeds)
    parts = []
    for start in range(0, len(captions), batch_size):
        rows = slice(start, start + batch_size)
        parts.append(_pass(model, captions[rows], seeds[rows], sampler, capture))
    return Evidence.cat(parts)


def _pass(model: Denoiser, captions: Sequence[str], seeds: Sequence[int], sampler: Sampler, capture: Capture) -> Evidence:
    scheduler = sampler.build(model.scheduler)
    steps = scheduler.timesteps
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    sample = initial_noise(model.shape(), generators).to(model.device) * scheduler.init_noise_sigma
    both = None
    if model.has_text:
        conditional, empty = model.condition(captions), model.condition([""])
        assert conditional is not None and empty is not None
        both = Condition.cat([empty[[0] * len(captions)], conditional])
    tape = _Tape(model, capture, both, len(steps))
    # ancestral samplers go on with the stream that drew the first noise, as in a diffusers pipeline
    extra = {"generator": generators} if "generator" in inspect.signature(scheduler.step).parameters else {}
    for index, timestep in enumerate(steps):
        noisy = scheduler.scale_model_input(sample, timestep)
        output = tape.predict(index, noisy, timestep, sampler.guidance_scale)
        sample = scheduler.step(output, timestep, sample, **extra).prev_sample
    pixels = model.decode(sample)
    images = ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    return Evidence(
        images=images,
        caption=tuple(captions),
        seed=torch.tensor(list(seeds)),
        timesteps=torch.as_tensor(steps).long().cpu(),
        prompt_length=None if both is None else both.prompt_length[len(captions) :].cpu(),
        provenance=_provenance(model, sampler, capture),
        **tape.kept(),
    )


class _Tape:
    """Runs the two halves and keeps what was asked for."""

    def __init__(self, model: Denoiser, capture: Capture, condition: Condition | None, num_steps: int) -> None:
        self.model, self.capture, self.condition = model, capture, condition
        self.end_steps = {index % num_steps for index in capture.end_steps}
        self.guidance: list[Tensor] = []
        self.scales: list[Tensor] = []
        self.tokens: list[Tensor] = []
        self.ends: dict[tuple[int, str], Tensor] = {}
        if condition is not None:
            self.half = slice(len(condition.states) // 2, None)
            self.end_weights = _end_token_weights(condition[self.half])

    def predict(self, index: int, noisy: Tensor, timestep: Tensor, scale: float) -> Tensor:
        """The network's output that moves the sampler at this step."""
        times = timestep.to(noisy.device).expand(len(noisy))
        if self.condition is None:
            return self.model(noisy, times, None)
        with self._recorder(index) as maps:
            output = self.model(torch.cat([noisy, noisy]), torch.cat([times, times]), self.condition)
        uncond, cond = output.chunk(2)
        if self.capture.guidance:
            self._keep_guidance(cond, uncond, noisy, int(timestep))
        self._keep_attention(index, maps or {})
        return cond if scale == 1 else uncond + scale * (cond - uncond)

    def _recorder(self, index: int) -> Any:
        ends = index in self.end_steps
        if not (ends or self.capture.tokens):
            return nullcontext()

        def reduce(attention_BPL: Tensor) -> tuple[Tensor, Tensor | None]:
            tokens = attention_BPL.mean(1)
            return tokens, attention_BPL @ self.end_weights if ends else None

        wanted = ("",) if self.capture.tokens else tuple(self.capture.end_layers)
        return record(self.model.unet, reduce, layers=lambda name: name.startswith(wanted), rows=self.half)

    def _keep_guidance(self, cond: Tensor, uncond: Tensor, noisy: Tensor, timestep: int) -> None:
        delta = (self.model.to_noise(cond, noisy, timestep) - self.model.to_noise(uncond, noisy, timestep)).float()
        rms = delta.square().flatten(1).mean(1).sqrt()
        self.guidance.append((delta / rms.clamp(min=1e-12)[:, None, None, None]).half().cpu())
        self.scales.append(rms.cpu())

    def _keep_attention(self, index: int, maps: Mapping[str, Any]) -> None:
        if self.capture.tokens and maps:
            self.tokens.append(torch.stack([tokens for tokens, _ in maps.values()], dim=1).half().cpu())
        for layer, (_, ends) in maps.items():
            if ends is not None and layer.startswith(tuple(self.capture.end_layers)):
                self.ends[index, layer] = ends.half().cpu()

    def kept(self) -> dict[str, Any]:
        return {
            "guidance": torch.stack(self.guidance) if self.guidance else None,
            "guidance_rms": torch.stack(self.scales) if self.scales else None,
            "token_attention": torch.stack(self.tokens) if self.tokens else None,
            "end_attention": self.ends or None,
        }


def _end_token_weights(condition: Condition) -> Tensor:
    """[B, L, rules]: the first end token, the last position, the mean over the first end token and all pads."""
    num, length = condition.mask.shape
    positions = torch.arange(length, device=condition.states.device)
    end = (condition.prompt_length - 1)[:, None]
    tail = (positions >= end).float()
    columns = [(positions == end).float(), (positions == length - 1).float().expand(num, -1), tail / tail.sum(1, keepdim=True)]
    return torch.stack(columns, dim=-1)


def _provenance(model: Denoiser, sampler: Sampler, capture: Capture) -> dict[str, Any]:
    versions = {name: importlib.metadata.version(name) for name in ("torch", "diffusers", "transformers")}
    return {
        "model": type(model).__name__,
        "scheduler": sampler.scheduler,
        "steps": sampler.steps,
        "guidance_scale": sampler.guidance_scale,
        "scheduler_options": dict(sampler.options),
        "dtype": str(next(model.unet.parameters()).dtype),
        "layers": cross_attention_layers(model.unet) if model.has_text else [],
        "end_layers": list(capture.end_layers),
        "pads_masked": bool(getattr(model, "mask_pads", False)),
        "versions": versions,
    }
