"""Captions => images with nothing but diffusers and transformers; `afterglow export` puts this file into every exported folder."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput, PixArtTransformer2DModel, UNet2DConditionModel
from diffusers.utils.torch_utils import randn_tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase


class TextConditionalPipeline(DiffusionPipeline):
    """A caption-conditional diffusion model in pixel space, with classifier-free guidance when guidance_scale is not 1."""

    def __init__(
        self,
        unet: UNet2DConditionModel | PixArtTransformer2DModel,
        scheduler: Any,
        text_encoder: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        text_length: int = 16,
        mask_padding: bool = False,
    ) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler, text_encoder=text_encoder, tokenizer=tokenizer)
        self.register_to_config(text_length=text_length, mask_padding=mask_padding)

    def encode(self, captions: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token states [B, L, D] and attention mask [B, L]."""
        length = self.config.text_length
        tokens = self.tokenizer(list(captions), padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        ids, mask = tokens["input_ids"].to(self.device), tokens["attention_mask"].to(self.device)
        padded_with_end = [self.tokenizer.pad_token_id] == self.tokenizer("")["input_ids"][-1:]  # the encoder then attends to padding
        return self.text_encoder(input_ids=ids, attention_mask=None if padded_with_end else mask).last_hidden_state, mask

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        num_inference_steps: int = 25,
        guidance_scale: float = 1.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
    ) -> ImagePipelineOutput:
        captions = [prompt] if isinstance(prompt, str) else list(prompt)
        states, mask = self.encode([""] * len(captions) + captions)
        side = self.unet.config.sample_size
        image = randn_tensor((len(captions), self.unet.config.in_channels, side, side), generator, self.device, self.unet.dtype)
        self.scheduler.set_timesteps(num_inference_steps)
        image = image * getattr(self.scheduler, "init_noise_sigma", 1.0)  # schedulers of flow matching have neither this nor the next
        scale = getattr(self.scheduler, "scale_model_input", lambda sample, _timestep: sample)
        # ancestral schedulers go on with the stream that drew the first noise
        extra = {"generator": generator} if "generator" in inspect.signature(self.scheduler.step).parameters else {}
        for timestep in self.progress_bar(self.scheduler.timesteps):
            both = scale(torch.cat([image, image]), timestep)
            pads = mask.bool() if self.config.mask_padding else None
            times = timestep.to(image.device).expand(len(both))
            uncond, cond = self.unet(both, timestep=times, encoder_hidden_states=states, encoder_attention_mask=pads).sample.chunk(2)
            output = cond if guidance_scale == 1 else uncond + guidance_scale * (cond - uncond)
            image = self.scheduler.step(output, timestep, image, **extra).prev_sample
        image = (image / 2 + 0.5).clamp(0, 1).cpu().permute(0, 2, 3, 1).numpy()
        return ImagePipelineOutput(images=self.numpy_to_pil(image) if output_type == "pil" else image)
