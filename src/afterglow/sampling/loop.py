"""The sampling loop, and the generation of images with everything that measures read."""

import importlib.metadata
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import diffusers
import torch
from torch import Tensor

from afterglow.errors import AfterglowError, DivergedError, did_you_mean, one_line, require
from afterglow.functional.pixels import from_signed
from afterglow.generations import Generations
from afterglow.models.denoiser import Denoiser
from afterglow.models.noise import FLOW_SCHEDULERS, is_flow
from afterglow.sampling.attention import cross_attention_layers, self_attention_layers
from afterglow.sampling.guidance import CFGOutputs, delta_norm, guidance_delta, predict_both
from afterglow.sampling.known import KnownPixels
from afterglow.sampling.observers import EXTRAS_NEEDING_TEXT
from afterglow.sampling.recorder import CaptureConfig, TraceRecorder, sink_group
from afterglow.sampling.setup import Mitigation, SamplingSetup, encode_cfg_batch, initial_noise

Predict = Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]  # step index, x_t, timestep => unconditional and conditional output


@dataclass(frozen=True)
class Sampler:
    """How images are generated.

    Args:
        scheduler: class name of a diffusers scheduler.
        steps: number of sampler steps, T.
        guidance_scale: scale of classifier-free guidance; at 1 the conditional prediction alone moves the sampler.
        options: further arguments of the scheduler, such as timestep_spacing.
    """

    scheduler: str = "DDIMScheduler"
    steps: int = 25
    guidance_scale: float = 1.0
    options: Mapping[str, Any] = field(default_factory=lambda: {"timestep_spacing": "trailing"})

    def __post_init__(self) -> None:
        if not hasattr(diffusers, self.scheduler) or not self.scheduler.endswith("Scheduler"):
            known = did_you_mean(self.scheduler, [name for name in dir(diffusers) if name.endswith("Scheduler")])
            raise AfterglowError(f"sampler: diffusers has no scheduler '{self.scheduler}'{known or '.'}")
        require("sampler: steps", self.steps, self.steps >= 1, "at least 1")
        require("sampler: guidance_scale", self.guidance_scale, math.isfinite(self.guidance_scale), "a finite number")
        arguments = inspect.signature(getattr(diffusers, self.scheduler)).parameters
        if unknown := [name for name in self.options if name not in arguments]:
            raise AfterglowError(f"sampler: {self.scheduler} has no option '{unknown[0]}'{did_you_mean(unknown[0], arguments) or '.'}")

    def build(self, trained: Any) -> Any:
        """The scheduler with the noise schedule of a training, its timesteps set; AfterglowError if the two do not fit."""
        if is_flow(trained) != self.scheduler.startswith(FLOW_SCHEDULERS):
            kind = (
                f"by flow matching; give a {FLOW_SCHEDULERS} scheduler" if is_flow(trained) else "to remove noise; give another scheduler"
            )
            raise AfterglowError(
                f"sampler: {self.scheduler} does not sample a model that was trained {kind}, such as {own_scheduler(trained)}."
            )
        try:
            scheduler = getattr(diffusers, self.scheduler).from_config(trained.config, **self.options)
            scheduler.set_timesteps(self.steps)
        except Exception as error:  # diffusers raises many kinds of errors for values that it does not support
            reason = one_line(f"{type(error).__name__} {error}", 130)
            raise AfterglowError(f"sampler: {self.scheduler} does not support {self.steps} steps with these options ({reason}).") from error
        return scheduler

    def setup(self, model: Denoiser, captions: Sequence[str], seeds: Sequence[int]) -> SamplingSetup:
        """The setup of a pass for B captions and seeds without a mitigation."""
        return SamplingSetup(captions, seeds, encode_cfg_batch(model, captions), self.guidance_scale, lambda: self.build(model.scheduler))


def own_scheduler(trained: Any) -> str:
    """The scheduler that samples a model if none is given, by the scheduler of its training."""
    return "FlowMatchEulerDiscreteScheduler" if is_flow(trained) else "DDIMScheduler"


def sample_steps(model: Denoiser, setup: SamplingSetup, predict: Predict | None = None) -> Iterator[tuple[CFGOutputs, Tensor]]:
    """Run a sampling pass step by step.

    Args:
        model: the model.
        setup: the setup of the pass.
        predict: runs the network on both halves; default: `predict_both`.

    Yields:
        The network's outputs at each step, and the sampler's state after it, [B, C, h, w].
    """

    def plain(_: int, noisy: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor]:
        return predict_both(model, setup.condition, noisy, timestep)

    scheduler, generators, known = setup.scheduler(), setup.generators(), setup.known
    turns = 1 if known is None else known.resamplings
    sample = _initial_sample(model, generators, scheduler)
    # ancestral samplers continue the random stream of the initial noise, as in a diffusers pipeline
    options = {"generator": generators} if "generator" in inspect.signature(scheduler.step).parameters else {}
    with setup.attention_context():
        for index, timestep in enumerate(scheduler.timesteps):
            for turn in range(turns):
                if known is not None:
                    sample = known.insert(sample, scheduler, index, lambda: _noise(model, generators), back=turn > 0)
                call = predict if predict is not None and turn == turns - 1 else plain  # a step that is repeated is recorded once
                noisy = _network_input(scheduler, sample, timestep)
                with torch.no_grad():
                    outputs = CFGOutputs(index, timestep.item(), noisy, *call(index, noisy, timestep), setup.scale)
                    sample = scheduler.step(setup.guide(outputs), timestep, sample, **options).prev_sample
            yield outputs, sample if known is None or index + 1 < len(scheduler.timesteps) else known.restore(sample)


def initial_input(model: Denoiser, setup: SamplingSetup) -> tuple[Tensor, Tensor]:
    """The network's input [B, C, h, w] at the first step of a pass, and its timestep, a scalar tensor."""
    scheduler = setup.scheduler()
    timestep = scheduler.timesteps[0]
    return _network_input(scheduler, _initial_sample(model, setup.generators(), scheduler), timestep), timestep


def initial_delta_norm(model: Denoiser, setup: SamplingSetup) -> Tensor:
    """||Delta||_2 at the first step of a pass, [B]: one call of the network."""
    noisy, timestep = initial_input(model, setup)
    return delta_norm(guidance_delta(model, *predict_both(model, setup.condition, noisy, timestep), noisy, timestep.item()))


def _initial_sample(model: Denoiser, generators: Sequence[torch.Generator], scheduler: Any) -> Tensor:
    return _noise(model, generators) * getattr(scheduler, "init_noise_sigma", 1.0)  # flow matching begins with plain noise


def _network_input(scheduler: Any, sample: Tensor, timestep: Tensor) -> Tensor:
    """The sampler's state as the network takes it; schedulers of flow matching do not scale it."""
    return scheduler.scale_model_input(sample, timestep) if hasattr(scheduler, "scale_model_input") else sample


def _noise(model: Denoiser, generators: Sequence[torch.Generator]) -> Tensor:
    return initial_noise(model.latent_shape(), generators, model.dtype).to(model.device, non_blocking=True)


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
    known: KnownPixels | None = None,
) -> Generations:
    """Generate one image for each caption and seed, the conditional and unconditional halves in one batch if both are needed.

    Args:
        model: the model; without text it ignores the captions and gives neither guidance nor attention.
        captions: N captions.
        seeds: N seeds.
        sampler: how images are generated.
        capture: what is kept beside the images.
        batch_size: images per pass; the images do not depend on it.
        early: an earlier state of the model, for early_difference.
        mitigation: changes the setup of each pass; the generations keep the captions and seeds given here.
        known: pixels of the N images that are kept while the others are outpainted.

    Returns:
        N generations without ground truth.

    Raises:
        AfterglowError: if the model cannot give what `capture` or `mitigation` requires.
    """
    assert len(captions) == len(seeds)
    _check_capture(model, capture, early)
    if known is not None and model.is_latent:
        raise AfterglowError(f"{type(model).__name__} cannot outpaint: known pixels do not determine the latents.")
    if mitigation is not None and not model.has_text:
        raise AfterglowError(f"{type(mitigation).__name__} acts on captions, and {type(model).__name__} has no captions.")
    parts = []
    for start in range(0, len(captions), batch_size):
        rows = slice(start, start + batch_size)
        parts.append(_generate_batch(model, captions[rows], seeds[rows], sampler, capture, early, mitigation, known and known[rows]))
    return Generations.cat(parts)


def _check_capture(model: Denoiser, capture: CaptureConfig, early: Denoiser | None) -> None:
    for name in capture.extras:
        if name in ("sharpness", "curvature") and model.dtype != torch.float32:
            raise AfterglowError(f"{name} is a product with a Jacobian and requires float32: use --mixed_precision no, or leave it out.")
        if name in EXTRAS_NEEDING_TEXT and not model.has_text:
            raise AfterglowError(f"{name} compares predictions with and without a caption, and {type(model).__name__} has no captions.")
        if name == "early_difference" and early is None:
            raise AfterglowError("early_difference requires an early checkpoint of the same run.")


def _basin_curve(model: Denoiser, captions: Sequence[str], seeds: Sequence[int], sampler: Sampler) -> Tensor:
    """||Delta_t||_2 along a pass of its own without guidance, [B, T] (docs/methods.md#basin)."""
    unguided = replace(sampler, guidance_scale=0.0)
    result = _generate_batch(model, captions, seeds, unguided, CaptureConfig(tokens=False, end_steps=()))
    assert result.guidance is not None and result.guidance_rms is not None
    return result.guidance_rms.T * math.sqrt(result.guidance[0, 0].numel())


def _generate_batch(
    model: Denoiser,
    captions: Sequence[str],
    seeds: Sequence[int],
    sampler: Sampler,
    capture: CaptureConfig,
    early: Denoiser | None = None,
    mitigation: Mitigation | None = None,
    known: KnownPixels | None = None,
) -> Generations:
    setup = replace(sampler.setup(model, captions, seeds), known=known)
    sink = sink_group(model, setup) if capture.end_steps else None
    setup = setup if mitigation is None else mitigation(model, setup)
    timesteps, condition = setup.scheduler().timesteps, setup.condition
    if condition is not None and mitigation is None and setup.scale == 1 and not capture.needs_both:
        condition = condition[setup.cond_slice]  # half of the work: the other prediction moves nothing, and nobody reads it
    recorder = TraceRecorder(model, capture, condition, len(timesteps), seeds, early)
    sample, norms = _initial_sample(model, setup.generators(), setup.scheduler()), list[Tensor]()
    for _, state in sample_steps(model, setup, recorder.predict):
        norms.append((state - sample).flatten(1).norm(dim=1).float())  # ||z_t - z_{t+1}||
        sample = state
    pixels = model.decode(sample)
    if not pixels.isfinite().all():
        raise DivergedError(f"{type(model).__name__} generated images that are not finite: it diverged or overflows in {model.dtype}.")
    own = {"update_norms": torch.stack(norms, dim=1).to("cpu", non_blocking=True)} if "update_norms" in capture.extras else {}
    with model.full_precision():  # half tensors of the CPU cannot be stacked in its autocast
        recorded = recorder.result()
    extras = recorded.pop("extras") | own | dict(setup.extras)
    if "basin_curve" in capture.extras:
        extras["basin_curve"] = _basin_curve(model, captions, seeds, sampler)
    return Generations(
        images=from_signed(pixels).cpu(),
        caption=tuple(captions),
        seed=torch.tensor(list(seeds)),
        timesteps=torch.as_tensor(timesteps).round().long().cpu(),
        prompt_length=None if condition is None else condition.prompt_length[-len(captions) :].cpu(),
        provenance=_provenance(model, sampler, capture) | {"sink": sink} | ({"mitigation": str(mitigation)} if mitigation else {}),
        extras=extras,
        **recorded,
    )


def _provenance(model: Denoiser, sampler: Sampler, capture: CaptureConfig) -> dict[str, Any]:
    return {
        "model": type(model).__name__,
        "origin": model.name_or_path,
        "scheduler": sampler.scheduler,
        "steps": sampler.steps,
        "guidance_scale": sampler.guidance_scale,
        "scheduler_options": dict(sampler.options),
        "dtype": str(model.dtype),
        "layers": cross_attention_layers(model.unet),
        "end_layers": list(capture.end_layers),
        "end_token": capture.end_token,
        "extras": list(capture.extras),
        "curvature_vectors": capture.curvature_vectors,
        "self_attention_layers": self_attention_layers(model.unet) if "self_attention" in capture.extras else [],
        "pads_masked": bool(getattr(model, "mask_padding", False)),
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "diffusers", "transformers")},
    }
