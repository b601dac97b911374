"""Stable Diffusion 1.x and 2.x: a U-Net between a frozen autoencoder and a frozen text encoder (Rombach et al. 2022)."""

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, DiffusionPipeline, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from afterglow.models.denoiser import Denoiser, TextConditioning, sample_generator, validate_prediction_type
from afterglow.models.latent_cache import cache_latents, cache_reconstructions, cache_text_embeddings
from afterglow.models.text_encoder import Frozen
from afterglow.planting.dataset import Batch

log = logging.getLogger(__name__)

HOW_TO_GET = (
    "give a folder with model_index.json, unet/, vae/, text_encoder/, tokenizer/ and scheduler/, "
    "or a hub id where there is a network (`hf download CompVis/stable-diffusion-v1-4 --local-dir DIR` makes such a folder elsewhere)"
)
REFUSED = {
    "StableDiffusionXLPipeline": "Stable Diffusion XL has two text encoders and pooled text, and no end token that all layers share",
    "StableDiffusion3Pipeline": "Stable Diffusion 3 has no cross-attention to text: text and pixels are one sequence",
    "FluxPipeline": "Flux has no cross-attention to text: text and pixels are one sequence",
}
LORA_LAYERS = ["to_q", "to_k", "to_v", "to_out.0"]
POSTERIOR_SEED = 0x7AE  # of the draw from the autoencoder's posterior, beside that of the noise


class Beside:
    """A frozen module that is neither trained, averaged nor saved with the one that holds it; the averaged copy shares it."""

    def __init__(self, module: Any) -> None:
        self.module = module.eval().requires_grad_(False)

    def __deepcopy__(self, memo: dict) -> "Beside":
        return self

    def at(self, device: torch.device, dtype: torch.dtype) -> Any:
        """The module, moved where it is needed."""
        if (self.module.device, self.module.dtype) != (device, dtype):
            self.module = self.module.to(device, dtype)
        return self.module


class StableDiffusion(Denoiser):
    """Stable Diffusion from a diffusers folder or hub id; its U-Net is trained whole, or through low-rank updates (LoRA).

    Args:
        source: folder or hub id of a StableDiffusionPipeline, 1.x or 2.x, epsilon or velocity.
        resolution: side of the images; a multiple of 64.
        lora: inner dimension of the low-rank updates of all attention layers; 0 trains the whole U-Net.
        gradient_checkpointing: a third more time for much less memory.
        cache: encode images and captions of the training once, to disk, so that autoencoder and text encoder leave the loop.
    """

    has_text = True
    use_fused_adamw = True

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
        self.save_hyperparameters()
        if channels != 3:
            raise ValueError(f"Stable Diffusion's autoencoder has images of 3 channels, and channels is {channels}.")
        parts = open_parts(source)
        self.source, self.side, self.cache = source, resolution, cache
        # latents are not clipped, whatever the scheduler's default
        options = {"clip_sample": False, **parts.scheduler, **(training.get("noise_scheduler") or {})}
        self.scheduler = validate_prediction_type(DDPMScheduler.from_config(options))
        self.sampler_class = parts.scheduler_class
        self.unet, self.tokenizer = parts.unet.train(), parts.tokenizer
        self.beside, self.text = Beside(parts.vae), Frozen(parts.text_encoder, masked=False)
        self.grid = 2 ** (len(parts.vae.config.block_out_channels) - 1)
        self._check(resolution)
        self.unet.register_to_config(sample_size=resolution // self.grid)
        if gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
        if lora:
            self._add_lora(lora)

    def _check(self, resolution: int) -> None:
        multiple = self.grid * 2 ** (len(self.unet.config.block_out_channels) - 1)
        if resolution % multiple:
            raise ValueError(f"resolution must be a multiple of {multiple} (autoencoder {self.grid}, then U-Net), and it is {resolution}.")
        channels = self.beside.module.config.latent_channels
        if self.unet.config.in_channels != channels:
            raise ValueError(
                f"The U-Net of '{self.source}' takes {self.unet.config.in_channels} channels, and its latents have {channels}: it is made "
                "for inpainting or another task; give a text-to-image model."
            )

    def _add_lora(self, size: int) -> None:
        from peft import LoraConfig

        self.unet.requires_grad_(False)
        self.unet.add_adapter(LoraConfig(r=size, lora_alpha=size, init_lora_weights="gaussian", target_modules=LORA_LAYERS))
        self.register_state_dict_post_hook(_keep_updates)
        self.register_load_state_dict_post_hook(_expect_updates)

    @property
    def vae(self) -> AutoencoderKL:
        """Frozen; where the U-Net is, and in the precision of its weights."""
        return self.beside.at(self.device, self.precision)

    @cached_property
    def scaling(self) -> float:
        """What latents are multiplied with to have unit variance."""
        return float(self.beside.module.config.scaling_factor)

    @property
    def at_once(self) -> int:
        """Images that the autoencoder takes together: one of 512 pixels, whose activations are gigabytes, or as many smaller ones."""
        return max(1, (512 // self.side) ** 2)

    def shape(self) -> tuple[int, int, int]:
        return self.unet.config.in_channels, self.side // self.grid, self.side // self.grid

    def image_shape(self) -> tuple[int, int, int]:
        return 3, self.side, self.side

    @torch.no_grad()
    def moments(self, images: Tensor) -> Tensor:
        """Pixels [B, 3, H, W] in [-1, 1] => mean and log-variance of the autoencoder's posterior, [B, 2C, h, w], few at a time."""
        with torch.autocast(self.device.type, enabled=False):
            pixels = images.to(self.device, self.precision)
            return torch.cat([self.vae.encode(one).latent_dist.parameters for one in pixels.split(self.at_once)])

    def encode(self, images: Tensor) -> Tensor:
        """Pixels [B, 3, H, W] in [-1, 1] => the posterior's mean, scaled: [B, C, h, w]."""
        return DiagonalGaussianDistribution(self.moments(images)).mean * self.scaling

    def clean(self, batch: Batch) -> Tensor:
        """One draw from each sample's posterior, a pure function of the seed and the number of the sample."""
        moments = self.moments(batch.image) if batch.moments is None else batch.moments.to(self.device, self.precision)
        posterior = DiagonalGaussianDistribution(moments)
        generators = [sample_generator(self.seed ^ POSTERIOR_SEED, index) for index in batch.index.tolist()]
        noise = torch.stack([torch.randn(posterior.mean.shape[1:], generator=generator) for generator in generators])
        return (posterior.mean + posterior.std * noise.to(moments)) * self.scaling

    @torch.no_grad()
    def decode(self, values: Tensor) -> Tensor:
        with torch.autocast(self.device.type, enabled=False):
            return torch.cat([self.vae.decode(one).sample for one in (values.to(self.precision) / self.scaling).split(self.at_once)])

    def reconstruct(self, pixels: np.ndarray) -> np.ndarray:
        return cache_reconstructions(self, pixels)

    def condition(self, captions: Sequence[str]) -> TextConditioning:
        tokens = self.tokenize(captions)
        self.text.encoder.to(self.device)
        states = self.text(captions, tokens)
        mask = torch.ones(states.shape[:2], dtype=torch.bool)  # the U-Net attends to all pads
        return TextConditioning(states, mask, tokens["attention_mask"].sum(1)).to(self.device)

    def tokenize(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """Token ids and attention mask, int64 [B, 77]: longer captions are cut and still end in the end token."""
        length = self.tokenizer.model_max_length
        return dict(self.tokenizer(list(captions), padding="max_length", truncation=True, max_length=length, return_tensors="pt"))

    def forward(self, noisy: Tensor, timesteps: Tensor, condition: TextConditioning | None) -> Tensor:
        assert condition is not None
        return self.unet(noisy, timesteps, condition.states).sample

    def on_fit_start(self) -> None:
        if not self.cache:
            return
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        total = self.trainer.max_steps * data.batch_size
        data.samples.latents = cache_latents(self, data.samples, total, data.share)
        self.text.stored = cache_text_embeddings(self, data.planted, data.share)
        self.trainer.strategy.barrier()
        data.samples.latents.reload()
        self.text.stored.reload()

    def pipeline(self) -> DiffusionPipeline:
        unet = self.unet
        if getattr(unet, "peft_config", None):
            unet = copy.deepcopy(unet)
            unet.fuse_lora()
            unet.unload_lora()
        scheduler = getattr(diffusers, self.sampler_class).from_config(self.scheduler.config)
        return StableDiffusionPipeline(
            self.vae, self.text.encoder, self.tokenizer, unet, scheduler, None, None, requires_safety_checker=False
        )  # fmt: skip


@dataclass(frozen=True)
class Parts:
    """What a StableDiffusionPipeline's folder holds; scheduler: its configuration, and the name of its class."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    scheduler: dict[str, Any]
    scheduler_class: str


def open_parts(source: str) -> Parts:
    """Open a folder or hub id, safetensors only. Raises ValueError where there is none, or it holds another kind of model."""
    try:
        index = DiffusionPipeline.load_config(source)
    except OSError as error:
        raise ValueError(f"No Stable Diffusion in '{source}': {HOW_TO_GET}.") from error
    check_kind(index, source)
    if index.get("safety_checker", [None])[0] is not None:
        log.info("The safety checker of '%s' is ignored: it would paint memorized images black.", source)
    try:
        return Parts(
            UNet2DConditionModel.from_pretrained(source, subfolder="unet", use_safetensors=True),
            AutoencoderKL.from_pretrained(source, subfolder="vae", use_safetensors=True),
            CLIPTextModel.from_pretrained(source, subfolder="text_encoder", use_safetensors=True),
            CLIPTokenizer.from_pretrained(source, subfolder="tokenizer"),
            {key: value for key, value in DDPMScheduler.load_config(source, subfolder="scheduler").items() if not key.startswith("_")},
            index["scheduler"][1],
        )
    except (OSError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"The Stable Diffusion in '{source}' is not whole ({reason}): {HOW_TO_GET}.") from error


def check_kind(index: dict[str, Any], source: str) -> None:
    """Raises ValueError where model_index.json names another pipeline, saying why it cannot be opened."""
    name = index["_class_name"] if isinstance(index["_class_name"], str) else index["_class_name"][-1]
    if name in REFUSED:
        raise ValueError(f"'{source}' is a {name}, which is refused: {REFUSED[name]}.")
    if name != "StableDiffusionPipeline":
        raise ValueError(f"'{source}' is a {name}, and a StableDiffusionPipeline (1.x or 2.x) was expected.")


def _keep_updates(module: Any, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
    """Of a checkpoint with low-rank updates, only these are kept: the rest is the source's."""
    for name in [name for name in state if name.startswith(f"{prefix}unet.") and "lora_" not in name]:
        del state[name]


def _expect_updates(module: Any, incompatible: Any) -> None:
    incompatible.missing_keys[:] = [name for name in incompatible.missing_keys if "lora_" in name]
