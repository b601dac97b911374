"""Stable Diffusion 1.x, 2.x (Rombach et al. 2022) and XL (Podell et al. 2023): a U-Net between frozen autoencoder and text encoders."""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, DiffusionPipeline
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor, nn

from afterglow.errors import AfterglowError, import_optional, require
from afterglow.functional.philox import Stream, random_normal
from afterglow.models.conditioning import TextConditioning
from afterglow.models.denoiser import Denoiser
from afterglow.models.latent_cache import cache_latents, cache_reconstructions, cache_text_embeddings
from afterglow.models.noise import noise_schedule
from afterglow.models.pipelines import PIPELINES, PipelineParts, encode_prompts, open_parts, silent_diffusers, tokenize
from afterglow.models.text_encoder import FrozenModule, FrozenTextEncoder
from afterglow.planting.dataset import Batch, PlantedDataset

LORA_LAYERS = ["to_q", "to_k", "to_v", "to_out.0"]


class PipelineTextEncoder(FrozenTextEncoder):
    """The text encoders of a pipeline. A pooled state is one more row of the token embeddings, padded with zeros: [B, L + 1, D]."""

    def __init__(self, parts: PipelineParts) -> None:
        super().__init__(nn.ModuleList(parts.encoders), mask_padding=False)
        self.pipeline = parts.build(None, None)

    def encode(self, captions: Sequence[str], tokens: Mapping[str, Tensor]) -> Tensor:
        states, pooled = encode_prompts(self.pipeline, captions, tokens["input_ids"].device)
        if pooled is None:
            return states
        return torch.cat([states, nn.functional.pad(pooled, (0, states.shape[2] - pooled.shape[1]))[:, None]], dim=1)


class StableDiffusion(Denoiser):
    """Stable Diffusion from a diffusers folder or hub id; its U-Net is trained whole, or through low-rank updates (LoRA).

    Args:
        source: folder or hub id of a StableDiffusionPipeline (1.x or 2.x) or StableDiffusionXLPipeline, epsilon or velocity.
        resolution: width and height of the images in pixels; a multiple of 64.
        channels: channels of the images; must be 3.
        lora: rank of the low-rank updates of all attention layers; 0 trains the whole U-Net.
        gradient_checkpointing: save much memory for about a third more time.
        cache: encode images and captions once and keep them on disk, so that training steps do not run the frozen encoders.
        training: arguments that all models share; see Denoiser.
    """

    has_text = True

    def __init__(
        self,
        source: str,
        resolution: int = 512,
        channels: int = 3,
        lora: int = 0,
        gradient_checkpointing: bool = False,
        cache: bool = True,
        **training: Any,
    ) -> None:
        super().__init__(**training)
        self.init_args = {
            "source": source, "resolution": resolution, "channels": channels, "lora": lora,
            "gradient_checkpointing": gradient_checkpointing, "cache": cache, **training,
        }  # fmt: skip
        require("channels", channels, channels == 3, "3 for Stable Diffusion")
        require("lora", lora, lora >= 0, "at least 0")
        parts = open_parts(source)
        self.source, self.resolution, self.cache, self.parts = source, resolution, cache, parts
        # latents are not clipped, whatever the scheduler's default
        options = {"clip_sample": False, **parts.scheduler, **(training.get("noise_scheduler") or {})}
        self.scheduler = noise_schedule(DDPMScheduler.from_config(options))
        self.sampler_class = parts.scheduler_class
        self.unet, self.tokenizer = parts.network.train(), parts.text["tokenizer"]
        self.frozen_vae, self.text = FrozenModule(parts.vae), PipelineTextEncoder(parts)
        self.vae_scale_factor = 2 ** (len(parts.vae.config.block_out_channels) - 1)
        self._check_resolution(resolution)
        self.unet.register_to_config(sample_size=resolution // self.vae_scale_factor)
        if gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
        if lora:
            self._add_lora(lora)

    def _check_resolution(self, resolution: int) -> None:
        factor = self.vae_scale_factor
        multiple = factor * 2 ** (len(self.unet.config.block_out_channels) - 1)
        if resolution % multiple:
            raise AfterglowError(f"resolution must be a multiple of {multiple} (autoencoder {factor}, then U-Net), not {resolution}.")
        channels = self.frozen_vae.module.config.latent_channels
        if self.unet.config.in_channels != channels:
            raise AfterglowError(
                f"The U-Net of '{self.source}' takes {self.unet.config.in_channels} channels, but its latents have {channels}: it was made "
                "for inpainting or another task; give a text-to-image model."
            )

    def _add_lora(self, rank: int) -> None:
        peft = import_optional("peft", "lora")
        self.unet.requires_grad_(False)
        self.unet.add_adapter(peft.LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=LORA_LAYERS))
        self.register_state_dict_post_hook(_keep_lora_weights)
        self.register_load_state_dict_post_hook(_expect_lora_weights)

    def merge_lora(self, file: Path) -> None:
        """Add the low-rank updates of a file, in diffusers' or kohya's format, to the weights of U-Net and text encoder.

        Raises:
            AfterglowError: there is no such file, it holds no LoRA, or it is that of another base model.
        """
        import_optional("peft", "lora")
        if not file.is_file():
            raise AfterglowError(f"There is no LoRA file '{file}'.")
        pipeline = self.pipeline()
        try:
            with silent_diffusers():
                pipeline.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name="merged")
                pipeline.fuse_lora()
                pipeline.unload_lora_weights()
        except Exception as error:  # diffusers, peft and safetensors raise many kinds
            raise AfterglowError(f"'{file}' is not a LoRA of '{self.source}': it is damaged, or that of another base model.") from error

    @property
    def vae(self) -> AutoencoderKL:
        """The frozen autoencoder, on the device and in the data type of the U-Net, or float32 where it would overflow."""
        config = self.frozen_vae.module.config
        overflows = PIPELINES[self.parts.name].upcasts and config.force_upcast and self.dtype == torch.float16
        return self.frozen_vae.on(self.device, torch.float32 if overflows else self.dtype)

    @cached_property
    def scaling_factor(self) -> float:
        """Factor that gives latents unit variance."""
        return float(self.frozen_vae.module.config.scaling_factor)

    @property
    def vae_batch_size(self) -> int:
        """Images per call of the autoencoder: one of 512 pixels, whose activations take gigabytes, or as many smaller ones."""
        return max(1, (512 // self.resolution) ** 2)

    def latent_shape(self) -> tuple[int, int, int]:
        return self.unet.config.in_channels, self.resolution // self.vae_scale_factor, self.resolution // self.vae_scale_factor

    def image_shape(self) -> tuple[int, int, int]:
        return 3, self.resolution, self.resolution

    @torch.no_grad()
    def posterior_moments(self, images: Tensor) -> Tensor:
        """Mean and log-variance [B, 2C, h, w] of the autoencoder's posterior for pixels [B, 3, H, W] in [-1, 1]."""
        with torch.autocast(self.device.type, enabled=False):
            pixels = images.to(self.device, self.vae.dtype)
            return torch.cat([self.vae.encode(one).latent_dist.parameters for one in pixels.split(self.vae_batch_size)])

    def encode(self, images: Tensor) -> Tensor:
        """Convert pixels [B, 3, H, W] in [-1, 1] to latents: the posterior's mean, scaled, [B, C, h, w]."""
        return DiagonalGaussianDistribution(self.posterior_moments(images)).mean * self.scaling_factor

    def target_x0(self, batch: Batch) -> Tensor:
        """One draw from each sample's posterior, [B, C, h, w]; a pure function of the seed and the number of the sample."""
        moments = self.posterior_moments(batch.image) if batch.moments is None else batch.moments.to(self.device, self.dtype)
        posterior = DiagonalGaussianDistribution(moments)
        index = batch.index.to(self.device, non_blocking=True)
        noise = random_normal(self.seed, Stream.POSTERIOR, index, posterior.mean.shape[1:])
        return (posterior.mean + posterior.std * noise.to(moments)) * self.scaling_factor

    @torch.no_grad()
    def decode(self, values: Tensor) -> Tensor:
        with torch.autocast(self.device.type, enabled=False):
            latents = values.to(self.vae.dtype) / self.scaling_factor
            return torch.cat([self.vae.decode(one).sample for one in latents.split(self.vae_batch_size)])

    def reconstruct(self, pixels: np.ndarray) -> np.ndarray:
        return cache_reconstructions(self.frozen_vae.module, lambda images: self.decode(self.encode(images)), pixels)

    def condition(self, captions: Sequence[str]) -> TextConditioning:
        tokens = tokenize(self.tokenizer, captions)
        self.text.module.to(self.device)
        embeddings = self.text(captions, tokens)
        mask = torch.ones_like(tokens["attention_mask"], dtype=torch.bool)  # the U-Net attends to padding
        states, pooled = embeddings[:, : mask.shape[1]], embeddings[:, mask.shape[1] :]
        return TextConditioning(states, mask, tokens["attention_mask"].sum(1), pooled[:, 0] if pooled.shape[1] else None).to(self.device)

    def forward(self, noisy: Tensor, timesteps: Tensor, condition: TextConditioning | None) -> Tensor:
        assert condition is not None
        return PIPELINES[self.parts.name].call(self.unet, noisy, timesteps, condition, self.vae_scale_factor)

    def prepare_training(self, dataset: PlantedDataset, num_samples: int, rank: int, world_size: int, barrier: Callable[[], None]) -> None:
        """Encode the images and captions of the training once, split over the processes."""
        if not self.cache:
            return
        planted = dataset.planted
        captions = list(dict.fromkeys(["", *(plant.caption for plant in planted.plants), *planted.captions]))
        processes = {"rank": rank, "world_size": world_size}
        latents = cache_latents(self.frozen_vae.module, self.posterior_moments, dataset, num_samples, **processes)
        ids, encode = tokenize(self.tokenizer, captions)["input_ids"], lambda texts: self.text(texts, tokenize(self.tokenizer, texts))
        self.text.module.to(self.device)
        embeddings = cache_text_embeddings(list(self.text.module), encode, captions, ids, **processes)
        barrier()
        latents.reload()
        embeddings.reload()
        dataset.latents, self.text.cached = latents, embeddings

    def pipeline(self) -> DiffusionPipeline:
        unet = self.unet
        if getattr(unet, "peft_config", None):
            unet = copy.deepcopy(unet)
            unet.fuse_lora()
            unet.unload_lora()
        scheduler = getattr(diffusers, self.sampler_class).from_config(self.scheduler.config)
        return self.parts.build(unet, scheduler)


def _keep_lora_weights(module: Any, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
    """Remove the U-Net's own weights from a checkpoint with low-rank updates: they are those of the source."""
    for name in [name for name in state if name.startswith(f"{prefix}unet.") and "lora_" not in name]:
        del state[name]


def _expect_lora_weights(module: Any, incompatible: Any) -> None:
    incompatible.missing_keys[:] = [name for name in incompatible.missing_keys if "lora_" in name]
