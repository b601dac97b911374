"""A diffusion model in pixel space with captions: a U-Net or a transformer."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import diffusers
import torch
from torch import Tensor

from afterglow.errors import AfterglowError, require
from afterglow.models.conditioning import TextConditioning
from afterglow.models.denoiser import Denoiser
from afterglow.models.networks import build_unet, check_resolution, load_network
from afterglow.models.text_encoder import SMALL_TEXT, TextEncoder
from afterglow.planting.dataset import PlantedDataset

log = logging.getLogger(__name__)
TEXT_WIDTHS = {
    "UNet2DConditionModel": "cross_attention_dim",
    "PixArtTransformer2DModel": "caption_channels",
}  # option with the text's width


class TextConditionalDDPM(Denoiser):
    """A network in pixel space with a text encoder; class labels are captions.

    Args:
        unet: arguments of the network, or a folder or hub id of a network to fine-tune.
        text: folder, hub id or Python package of a frozen `transformers` encoder (`afterglow text-encoder` writes one), or arguments of a
            CLIPTextConfig for a causal encoder that is trained along with Stable Diffusion's conventions; null: a small one.
        tokenizer: folder, hub id or package of the tokenizer; default: the encoder's own.
        text_length: number of tokens to which a caption is padded or cut.
        mask_padding: mask padding tokens in the network's attention (Stable Diffusion does not).
        network: class of the network in diffusers: UNet2DConditionModel, or PixArtTransformer2DModel, a transformer over patches of the
            image whose blocks attend to the text (Peebles and Xie 2023, Chen et al. 2024).
        resolution: width and height of the images in pixels; linked to the data.
        channels: channels of the images; linked to the data.
        training: arguments that all models share; see Denoiser.
    """

    has_text = True

    def __init__(
        self,
        unet: str | Mapping[str, Any],
        text: str | Mapping[str, Any] | None = None,
        tokenizer: str | None = None,
        text_length: int = 16,
        mask_padding: bool = False,
        network: str = "UNet2DConditionModel",
        resolution: int = 16,
        channels: int = 3,
        **training: Any,
    ) -> None:
        super().__init__(**training)
        self.init_args = {
            "unet": unet, "text": text, "tokenizer": tokenizer, "text_length": text_length, "mask_padding": mask_padding,
            "network": network, "resolution": resolution, "channels": channels, **training,
        }  # fmt: skip
        self.text = TextEncoder(text if text is not None else SMALL_TEXT, tokenizer, text_length)
        self.resolution, self.mask_padding = resolution, mask_padding
        require("network", network, network in TEXT_WIDTHS, f"one of {', '.join(TEXT_WIDTHS)}")
        network_class, text_width = getattr(diffusers, network), TEXT_WIDTHS[network]
        if isinstance(unet, str):
            self.unet = load_network(network_class, unet, resolution)
            check_resolution(self.unet, resolution)
        else:
            shape, states = (channels, resolution, resolution), torch.empty(1, text_length, self.text.width, device="meta")
            self.unet = build_unet(network_class, {text_width: self.text.width, **unet}, shape, encoder_hidden_states=states)
        for name, value in {"in_channels": channels, text_width: self.text.width}.items():
            if self.unet.config[name] != value:
                raise AfterglowError(
                    f"The network's {name} is {self.unet.config[name]}, but the data or the text encoder requires {value}."
                )

    @property
    def tokenizer(self) -> Any:
        return self.text.tokenizer

    def latent_shape(self) -> tuple[int, int, int]:
        return self.unet.config.in_channels, self.resolution, self.resolution

    def condition(self, captions: Sequence[str]) -> TextConditioning:
        states, lengths = self.text(captions)
        positions = torch.arange(self.text.length)
        mask = positions < lengths[:, None] if self.mask_padding else torch.ones(len(captions), self.text.length, dtype=torch.bool)
        return TextConditioning(states, mask, lengths).to(self.device)

    def forward(self, noisy: Tensor, timesteps: Tensor, condition: TextConditioning | None) -> Tensor:
        assert condition is not None
        mask = condition.attention_mask if self.mask_padding else None
        states = condition.encoder_hidden_states
        return self.unet(noisy, timestep=timesteps, encoder_hidden_states=states, encoder_attention_mask=mask).sample

    def prepare_training(self, dataset: PlantedDataset, num_samples: int, rank: int, world_size: int, barrier: Callable[[], None]) -> None:
        """Warn if captions are longer than the text length."""
        captions = sorted({plant.caption for plant in dataset.planted.plants} | set(dataset.planted.captions))
        if num_cut := self.text.num_cut(captions):
            text = "%d of %d captions are longer than %d tokens and are cut; the end token is kept."
            log.warning(text, num_cut, len(captions), self.text.length)

    def pipeline(self) -> "diffusers.DiffusionPipeline":
        from afterglow.models.text_ddpm_pipeline import TextConditionalPipeline

        text = self.text
        return TextConditionalPipeline(self.unet, self.scheduler, text.encoder, text.tokenizer, text.length, self.mask_padding)
