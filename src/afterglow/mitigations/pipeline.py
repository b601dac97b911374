"""Mitigations in a diffusers pipeline as it is: hooks on its U-Net for one call, nothing patched, nothing left."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import DDPMScheduler, DiffusionPipeline
from torch import Tensor

from afterglow.models.denoiser import Denoiser, TextConditioning, validate_prediction_type
from afterglow.sampling.setup import CFGOutputs, Mitigation, SamplingSetup, encode_cfg_batch

BOTH_HALVES = 2.0  # any scale at which StableDiffusionPipeline computes both


class PipelineModel(Denoiser):
    """The parts of a living StableDiffusionPipeline or TextConditionalPipeline as a model that mitigations can ask."""

    has_text = True

    def __init__(self, pipeline: DiffusionPipeline) -> None:
        super().__init__()
        # by what they can do: an exported TextConditionalPipeline is opened from code of its own folder, as another class
        encoders = {"encode_prompt": self._by_latents, "encode": self._by_pixels}
        found = next((encoder for name, encoder in encoders.items() if hasattr(pipeline, name)), None)
        if found is None:
            raise ValueError(f"A mitigation changes what a caption does, and {type(pipeline).__name__} encodes none.")
        self.encode_text = found
        self.unet, self.tokenizer = pipeline.unet, pipeline.tokenizer
        self.scheduler = validate_prediction_type(DDPMScheduler.from_config(pipeline.scheduler.config))
        self.pipeline_ = [pipeline]  # in a list, so that it is no part of this module
        self.to(pipeline.device)

    def shape(self) -> tuple[int, int, int]:
        side = self.unet.config.sample_size
        return self.unet.config.in_channels, side, side

    @torch.no_grad()
    def condition(self, captions: Sequence[str]) -> TextConditioning:
        return self.encode_text(list(captions))

    def _by_pixels(self, captions: list[str]) -> TextConditioning:
        states, mask = self.pipeline_[0].encode(captions)
        masked = self.pipeline_[0].config.mask_padding
        return TextConditioning(states, mask.bool() if masked else torch.ones_like(mask, dtype=torch.bool), mask.sum(1))

    def _by_latents(self, captions: list[str]) -> TextConditioning:
        pipeline = self.pipeline_[0]
        states = pipeline.encode_prompt(captions, pipeline.device, 1, False)[0]
        length = self.tokenizer.model_max_length
        tokens = self.tokenizer(captions, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        mask = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
        return TextConditioning(states, mask, tokens["attention_mask"].sum(1).to(states.device))

    def forward(self, noisy: Tensor, timesteps: Tensor, condition: TextConditioning | None) -> Tensor:
        assert condition is not None
        mask = None if condition.mask.all() else condition.mask
        return self.unet(noisy, timesteps, condition.states, encoder_attention_mask=mask).sample


@contextmanager
def mitigated(
    pipeline: DiffusionPipeline,
    mitigation: Mitigation,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    steps: int = 50,
    scale: float = 7.5,
) -> Iterator[dict[str, Any]]:
    """Yield the arguments of one call of the pipeline in which the mitigation acts: one image for each prompt and seed.

    `with mitigated(pipe, StaticTransition(), ["a dog"], [0]) as call: images = pipe(**call).images`
    Raises ValueError for a mitigation that takes other timesteps than the pipeline's, and for a pipeline without captions.
    """
    model = PipelineModel(pipeline)

    def scheduler() -> Any:
        new = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
        new.set_timesteps(steps)
        return new

    with torch.no_grad():
        setup = mitigation(model, SamplingSetup(tuple(prompts), tuple(seeds), encode_cfg_batch(model, prompts), scale, scheduler))
    if len(setup.scheduler().timesteps) != len(scheduler().timesteps):
        raise ValueError(f"{mitigation} takes timesteps of its own, which one call of a pipeline cannot: generate with `mitigate.py`.")
    handles = _steer(model, setup)
    try:
        with setup.edit():
            yield {
                "prompt": list(setup.captions),
                "generator": setup.generators(),
                "num_inference_steps": steps,
                # whatever it is: both halves come back equal, as the mitigation wants the sampler to move
                "guidance_scale": scale if scale > 1 else BOTH_HALVES,
            }
    finally:
        for handle in handles:
            handle.remove()


def _steer(model: PipelineModel, setup: SamplingSetup) -> list[Any]:
    """Hooks by which the pipeline's U-Net is told the course's states, and answers with what the course guides to, in both halves."""
    assert setup.condition is not None
    states, num, turn = setup.condition.states, len(setup.seeds), [0]
    asking = [False]  # whether the course asks the network something of its own

    def before(_unet: Any, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        if asking[0]:
            return args, kwargs
        if len(args) > 2:
            return (*args[:2], states, *args[3:]), kwargs
        return args, kwargs | {"encoder_hidden_states": states}

    def after(_unet: Any, args: tuple, _kwargs: dict[str, Any], output: Any) -> Any:
        if asking[0]:
            return output
        uncond, cond = output[0].chunk(2)
        asking[0] = True
        moved = setup.guide(CFGOutputs(turn[0], int(args[1]), args[0][:num], uncond, cond, setup.scale))
        asking[0], turn[0] = False, turn[0] + 1
        both = torch.cat([moved, moved])
        return (both,) if isinstance(output, tuple) else type(output)(sample=both)

    return [model.unet.register_forward_pre_hook(before, with_kwargs=True), model.unet.register_forward_hook(after, with_kwargs=True)]
