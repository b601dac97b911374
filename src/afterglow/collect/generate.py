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

from afterglow.attention import cross_attention_layers, self_attention_layers
from afterglow.collect.observers import NEEDS_TEXT
from afterglow.collect.tape import Capture, Tape, observers_of
from afterglow.evidence import Evidence
from afterglow.models import Denoiser
from afterglow.models.course import Course, Remedy, both_halves, initial_noise


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

    def course(self, model: Denoiser, captions: Sequence[str], seeds: Sequence[int]) -> Course:
        """How these generations run where no remedy changes it."""
        return Course(captions, seeds, both_halves(model, captions), self.guidance_scale, lambda: self.build(model.scheduler))


def text_layers(model: Denoiser) -> list[str]:
    """The model's cross-attention layers in the order in which they run; none without text."""
    return cross_attention_layers(model.unet) if model.has_text else []


@torch.no_grad()
def generate(
    model: Denoiser,
    captions: Sequence[str],
    seeds: Sequence[int],
    sampler: Sampler = Sampler(),
    capture: Capture = Capture(),
    *,
    batch_size: int = 64,
    early: Denoiser | None = None,
    remedy: Remedy | None = None,
) -> Evidence:
    """One picture for each caption and seed, in one pass over the sampler, with conditional and unconditional halves in one batch.

    A model without text ignores the captions and leaves neither guidance nor attention. Pictures do not depend on batch_size.
    early: an earlier state of the model, for early_difference. remedy: changes the pass before it begins; the evidence keeps the
    captions and seeds that were asked for. Raises ValueError where something derived cannot be.
    """
    assert len(captions) == len(seeds)
    if remedy is not None and not model.has_text:
        raise ValueError(f"{type(remedy).__name__} changes what a caption does, and {type(model).__name__} has no captions.")
    for name in capture.derived:
        if name in ("sharpness", "curvature") and model.precision != torch.float32:
            raise ValueError(f"{name} is a product with a Jacobian, which halves cannot hold: say `--mixed_precision no`, or leave it out.")
        if name in NEEDS_TEXT and not model.has_text:
            raise ValueError(f"{name} is made of what a caption changes, and {type(model).__name__} has no captions.")
        if name == "early_difference" and early is None:
            raise ValueError("early_difference needs an early checkpoint of the same run.")
    parts = []
    for start in range(0, len(captions), batch_size):
        rows = slice(start, start + batch_size)
        part = _pass(model, captions[rows], seeds[rows], sampler, capture, early, remedy)
        if "basin_curve" in capture.derived:
            part = replace(part, derived={**part.derived, "basin_curve": _basin_curve(model, captions[rows], seeds[rows], sampler)})
        parts.append(part)
    return Evidence.cat(parts)


def _basin_curve(model: Denoiser, captions: Sequence[str], seeds: Sequence[int], sampler: Sampler) -> Tensor:
    """||Delta_t||_2 on the way without guidance, [B, T]: a pass of its own."""
    nothing_else = Capture(tokens=False, end_steps=())
    way = _pass(model, captions, seeds, replace(sampler, guidance_scale=0.0), nothing_else, None)
    assert way.guidance is not None and way.guidance_rms is not None
    return way.guidance_rms.T * math.sqrt(way.guidance[0, 0].numel())


def _pass(
    model: Denoiser,
    captions: Sequence[str],
    seeds: Sequence[int],
    sampler: Sampler,
    capture: Capture,
    early: Denoiser | None,
    remedy: Remedy | None = None,
) -> Evidence:
    course = sampler.course(model, captions, seeds)
    course = course if remedy is None else remedy(model, course)
    scheduler, generators, both = course.scheduler(), course.generators(), course.condition
    steps = scheduler.timesteps
    sample = initial_noise(model.shape(), generators, model.precision).to(model.device) * scheduler.init_noise_sigma
    tape = Tape(model, capture, both, len(steps), observers_of(model, capture, seeds, early), course.guide)
    # ancestral samplers go on with the stream that drew the first noise, as in a diffusers pipeline
    extra = {"generator": generators} if "generator" in inspect.signature(scheduler.step).parameters else {}
    with course.edit():
        for index, timestep in enumerate(steps):
            noisy = scheduler.scale_model_input(sample, timestep)
            output = tape.predict(index, noisy, timestep, course.scale)
            sample = scheduler.step(output, timestep, sample, **extra).prev_sample
    kept = tape.kept()
    pixels = model.decode(sample)
    images = ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    return Evidence(
        images=images,
        caption=tuple(captions),
        seed=torch.tensor(list(seeds)),
        timesteps=torch.as_tensor(steps).long().cpu(),
        prompt_length=None if both is None else both.prompt_length[len(captions) :].cpu(),
        provenance=_provenance(model, sampler, capture) | ({} if remedy is None else {"remedy": str(remedy)}),
        **kept | {"derived": kept["derived"] | dict(course.notes)},
    )


def _provenance(model: Denoiser, sampler: Sampler, capture: Capture) -> dict[str, Any]:
    versions = {name: importlib.metadata.version(name) for name in ("torch", "diffusers", "transformers")}
    return {
        "model": type(model).__name__,
        "origin": model.origin,
        "scheduler": sampler.scheduler,
        "steps": sampler.steps,
        "guidance_scale": sampler.guidance_scale,
        "scheduler_options": dict(sampler.options),
        "dtype": str(next(model.unet.parameters()).dtype),
        "layers": text_layers(model),
        "end_layers": list(capture.end_layers),
        "end_token": capture.end_token,
        "derived": list(capture.derived),
        "curvature_vectors": capture.curvature_vectors,
        "self_attention_layers": self_attention_layers(model.unet) if "self_attention" in capture.derived else [],
        "pads_masked": bool(getattr(model, "mask_pads", False)),
        "versions": versions,
    }
