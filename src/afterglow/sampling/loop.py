"""One pass over the sampler, and everything that is kept of it."""

import importlib.metadata
import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import diffusers
import torch
from torch import Tensor

from afterglow.generations import Generations
from afterglow.models.denoiser import Denoiser
from afterglow.sampling.attention import cross_attention_layers, self_attention_layers
from afterglow.sampling.observers import NEEDS_TEXT
from afterglow.sampling.recorder import CaptureConfig, TraceRecorder, observers_of
from afterglow.sampling.setup import Mitigation, SamplingSetup, encode_cfg_batch, initial_noise


@dataclass(frozen=True)
class Sampler:
    """How images are generated.

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

    def setup(self, model: Denoiser, captions: Sequence[str], seeds: Sequence[int]) -> SamplingSetup:
        """How these generations run where no mitigation changes it."""
        return SamplingSetup(captions, seeds, encode_cfg_batch(model, captions), self.guidance_scale, lambda: self.build(model.scheduler))


def cross_attention_of(model: Denoiser) -> list[str]:
    """The model's cross-attention layers in the order in which they run; none without text."""
    return cross_attention_layers(model.unet) if model.has_text else []


@torch.no_grad()
def generate(
    model: Denoiser,
    captions: Sequence[str],
    seeds: Sequence[int],
    sampler: Sampler = Sampler(),
    capture: CaptureConfig = CaptureConfig(),
    *,
    batch_size: int = 64,
    early: Denoiser | None = None,
    mitigation: Mitigation | None = None,
) -> Generations:
    """One image for each caption and seed, in one pass over the sampler, with conditional and unconditional halves in one batch.

    A model without text ignores the captions and leaves neither guidance nor attention. Images do not depend on batch_size.
    early: an earlier state of the model, for early_difference. mitigation: changes the pass before it begins; the generations keeps the
    captions and seeds that were asked for. Raises ValueError where something derived cannot be.
    """
    assert len(captions) == len(seeds)
    if mitigation is not None and not model.has_text:
        raise ValueError(f"{type(mitigation).__name__} changes what a caption does, and {type(model).__name__} has no captions.")
    for name in capture.extras:
        if name in ("sharpness", "curvature") and model.precision != torch.float32:
            raise ValueError(f"{name} is a product with a Jacobian, which halves cannot hold: say `--mixed_precision no`, or leave it out.")
        if name in NEEDS_TEXT and not model.has_text:
            raise ValueError(f"{name} is made of what a caption changes, and {type(model).__name__} has no captions.")
        if name == "early_difference" and early is None:
            raise ValueError("early_difference needs an early checkpoint of the same run.")
    parts = []
    for start in range(0, len(captions), batch_size):
        rows = slice(start, start + batch_size)
        part = _pass(model, captions[rows], seeds[rows], sampler, capture, early, mitigation)
        if "basin_curve" in capture.extras:
            part = replace(part, extras={**part.extras, "basin_curve": _basin_curve(model, captions[rows], seeds[rows], sampler)})
        parts.append(part)
    return Generations.cat(parts)


def _basin_curve(model: Denoiser, captions: Sequence[str], seeds: Sequence[int], sampler: Sampler) -> Tensor:
    """||Delta_t||_2 on the way without guidance, [B, T]: a pass of its own."""
    nothing_else = CaptureConfig(tokens=False, end_steps=())
    way = _pass(model, captions, seeds, replace(sampler, guidance_scale=0.0), nothing_else, None)
    assert way.guidance is not None and way.guidance_rms is not None
    return way.guidance_rms.T * math.sqrt(way.guidance[0, 0].numel())


def _pass(
    model: Denoiser,
    captions: Sequence[str],
    seeds: Sequence[int],
    sampler: Sampler,
    capture: CaptureConfig,
    early: Denoiser | None,
    mitigation: Mitigation | None = None,
) -> Generations:
    setup = sampler.setup(model, captions, seeds)
    setup = setup if mitigation is None else mitigation(model, setup)
    scheduler, generators, both = setup.scheduler(), setup.generators(), setup.condition
    steps = scheduler.timesteps
    sample = initial_noise(model.shape(), generators, model.precision).to(model.device) * scheduler.init_noise_sigma
    recorder = TraceRecorder(model, capture, both, len(steps), observers_of(model, capture, seeds, early), setup.guide)
    # ancestral samplers go on with the stream that drew the first noise, as in a diffusers pipeline
    extra = {"generator": generators} if "generator" in inspect.signature(scheduler.step).parameters else {}
    with setup.edit():
        for index, timestep in enumerate(steps):
            noisy = scheduler.scale_model_input(sample, timestep)
            output = recorder.predict(index, noisy, timestep, setup.scale)
            sample = scheduler.step(output, timestep, sample, **extra).prev_sample
    kept = recorder.kept()
    pixels = model.decode(sample)
    images = ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    return Generations(
        images=images,
        caption=tuple(captions),
        seed=torch.tensor(list(seeds)),
        timesteps=torch.as_tensor(steps).long().cpu(),
        prompt_length=None if both is None else both.prompt_length[len(captions) :].cpu(),
        provenance=_provenance(model, sampler, capture) | ({} if mitigation is None else {"mitigation": str(mitigation)}),
        **kept | {"extras": kept["extras"] | dict(setup.notes)},
    )


def _provenance(model: Denoiser, sampler: Sampler, capture: CaptureConfig) -> dict[str, Any]:
    versions = {name: importlib.metadata.version(name) for name in ("torch", "diffusers", "transformers")}
    return {
        "model": type(model).__name__,
        "origin": model.origin,
        "scheduler": sampler.scheduler,
        "steps": sampler.steps,
        "guidance_scale": sampler.guidance_scale,
        "scheduler_options": dict(sampler.options),
        "dtype": str(next(model.unet.parameters()).dtype),
        "layers": cross_attention_of(model),
        "end_layers": list(capture.end_layers),
        "end_token": capture.end_token,
        "extras": list(capture.extras),
        "curvature_vectors": capture.curvature_vectors,
        "self_attention_layers": self_attention_layers(model.unet) if "self_attention" in capture.extras else [],
        "pads_masked": bool(getattr(model, "mask_padding", False)),
        "versions": versions,
    }
