"""Mitigations in an unchanged diffusers pipeline: hooks on its U-Net for one call."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from afterglow.errors import AfterglowError
from afterglow.models.conditioning import TextConditioning
from afterglow.models.denoiser import Denoiser
from afterglow.models.noise import noise_schedule, scheduler_class
from afterglow.models.pipelines import PIPELINES, encode_prompts, tokenize
from afterglow.sampling.guidance import CFGOutputs
from afterglow.sampling.setup import Mitigation, SamplingSetup, encode_cfg_batch

GUIDED_SCALE = 2.0  # any scale at which StableDiffusionPipeline computes both halves


class PipelineModel(Denoiser):
    """The parts of a pipeline of PIPELINES, or of a TextConditionalPipeline, as a model; AfterglowError if it is of another class."""

    has_text = True

    def __init__(self, pipeline: DiffusionPipeline) -> None:
        super().__init__()
        self.kind = PIPELINES.get(type(pipeline).__name__)
        # recognized by its method: an exported TextConditionalPipeline is loaded from its folder's code, as another class
        if self.kind is None and not hasattr(pipeline, "encode"):
            raise AfterglowError(f"Mitigations act on captions, and Afterglow cannot read the captions of a {type(pipeline).__name__}.")
        self.unet, self.tokenizer = pipeline.unet, pipeline.tokenizer
        config = pipeline.scheduler.config
        self.scheduler = noise_schedule(scheduler_class(config).from_config(config))
        self.source = pipeline
        self.to(pipeline.device)

    def latent_shape(self) -> tuple[int, int, int]:
        size = self.unet.config.sample_size
        return self.unet.config.in_channels, size, size

    @torch.no_grad()
    def condition(self, captions: Sequence[str]) -> TextConditioning:
        if self.kind is not None:
            states, pooled = encode_prompts(self.source, captions, self.source.device)
            mask = tokenize(self.tokenizer, captions)["attention_mask"].to(states.device)
            return TextConditioning(states, torch.ones_like(mask, dtype=torch.bool), mask.sum(1), pooled)
        states, mask = self.source.encode(captions)
        masked = self.source.config.mask_padding
        return TextConditioning(states, mask.bool() if masked else torch.ones_like(mask, dtype=torch.bool), mask.sum(1))

    def forward(self, noisy: Tensor, timesteps: Tensor, condition: TextConditioning | None) -> Tensor:
        assert condition is not None
        if self.kind is not None:
            return self.kind.call(self.unet, noisy, timesteps, condition, self.source.vae_scale_factor)
        mask = None if condition.attention_mask.all() else condition.attention_mask
        states = condition.encoder_hidden_states
        return self.unet(noisy, timestep=timesteps, encoder_hidden_states=states, encoder_attention_mask=mask).sample


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
    """A context in which one call of a pipeline is mitigated.

    `with mitigated(pipe, StaticTransition(), ["a dog"], [0]) as call: images = pipe(**call).images`

    Args:
        pipeline: a pipeline of PIPELINES, or a TextConditionalPipeline.
        mitigation: the mitigation.
        prompts: B prompts.
        seeds: B seeds.
        steps: number of sampler steps.
        scale: guidance scale.

    Yields:
        Arguments of the call.

    Raises:
        AfterglowError: if the pipeline has no captions, or the mitigation uses other timesteps than the pipeline.
    """
    model = PipelineModel(pipeline)

    def scheduler() -> Any:
        new = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
        new.set_timesteps(steps)
        return new

    with torch.no_grad():
        setup = mitigation(model, SamplingSetup(tuple(prompts), tuple(seeds), encode_cfg_batch(model, prompts), scale, scheduler))
    if len(setup.scheduler().timesteps) != len(scheduler().timesteps):
        raise AfterglowError(f"{mitigation} uses its own timesteps, which a pipeline does not support: generate with `afterglow mitigate`.")
    handles = _add_hooks(model, setup)
    try:
        with setup.attention_context():
            yield {
                "prompt": list(setup.captions),
                "generator": setup.generators(),
                "num_inference_steps": steps,
                # any scale gives the same result: both halves are returned equal, as the mitigation guides
                "guidance_scale": scale if scale > 1 else GUIDED_SCALE,
            }
    finally:
        for handle in handles:
            handle.remove()


def _add_hooks(model: PipelineModel, setup: SamplingSetup) -> list[Any]:
    """Hooks that give the pipeline's U-Net the setup's embeddings, and replace both halves of its output by the guided output."""
    assert setup.condition is not None
    states, num, step = setup.condition.encoder_hidden_states, len(setup.seeds), 0
    guiding = False  # while the setup itself calls the network

    def before(_unet: Any, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        if guiding:
            return args, kwargs
        if len(args) > 2:
            return (*args[:2], states, *args[3:]), kwargs
        return args, kwargs | {"encoder_hidden_states": states}

    def after(_unet: Any, args: tuple, kwargs: dict[str, Any], output: Any) -> Any:
        nonlocal guiding, step
        if guiding:
            return output
        uncond, cond = output[0].chunk(2)
        guiding = True
        timestep = args[1] if len(args) > 1 else kwargs["timestep"][0]
        guided = setup.guide(CFGOutputs(step, timestep.item(), args[0][:num], uncond, cond, setup.scale))
        guiding, step = False, step + 1
        both = torch.cat([guided, guided])
        return (both,) if isinstance(output, tuple) else type(output)(sample=both)

    return [model.unet.register_forward_pre_hook(before, with_kwargs=True), model.unet.register_forward_hook(after, with_kwargs=True)]
