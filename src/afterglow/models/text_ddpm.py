"""A diffusion model in pixels that is told a caption."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from torch import Tensor

from afterglow.models.ddpm import load_network
from afterglow.models.denoiser import Denoiser, TextConditioning, build
from afterglow.models.text_ddpm_pipeline import TextConditionalPipeline
from afterglow.models.text_encoder import TextEncoder

log = logging.getLogger(__name__)


class TextConditionalDDPM(Denoiser):
    """A `UNet2DConditionModel` in pixel space with a text encoder; class labels are captions.

    Args:
        unet: arguments of diffusers' UNet2DConditionModel, or a folder or hub id to fine-tune from.
        text: a folder, hub id or package of a frozen `transformers` encoder, or arguments of a CLIPTextConfig for one trained along.
        tokenizer: of another folder, hub id or package than the encoder's.
        text_length: tokens that a caption is padded or cut to.
        mask_padding: whether the U-Net is kept from attending to pads (Stable Diffusion attends to them).
    """

    has_text = True

    def __init__(
        self,
        unet: str | Mapping[str, Any],
        text: str | Mapping[str, Any] | None = None,
        tokenizer: str | None = None,
        text_length: int = 16,
        mask_padding: bool = False,
        resolution: int = 16,
        channels: int = 3,
        **training: Any,
    ) -> None:
        super().__init__(**training)
        self.save_hyperparameters()
        self.text = TextEncoder(text if text is not None else SMALL_TEXT, tokenizer, text_length)
        self.side, self.mask_padding = resolution, mask_padding
        if isinstance(unet, str):
            self.unet = load_network(UNet2DConditionModel, unet, resolution)
        else:
            filled = {"sample_size": resolution, "in_channels": channels, "out_channels": channels, "cross_attention_dim": self.text.width}
            self.unet = build(UNet2DConditionModel, filled | dict(unet), "unet")
        wanted = {"in_channels": channels, "cross_attention_dim": self.text.width}
        for name, value in wanted.items():
            if self.unet.config[name] != value:
                raise ValueError(f"The U-Net's {name} is {self.unet.config[name]}, and the data or the text encoder needs {value}.")
        self.check_resolution(resolution, len(self.unet.config.block_out_channels))

    @property
    def tokenizer(self) -> Any:
        return self.text.tokenizer

    def shape(self) -> tuple[int, int, int]:
        return self.unet.config.in_channels, self.side, self.side

    def condition(self, captions: Sequence[str]) -> TextConditioning:
        states, lengths = self.text(captions)
        positions = torch.arange(self.text.length)
        mask = positions < lengths[:, None] if self.mask_padding else torch.ones(len(captions), self.text.length, dtype=torch.bool)
        return TextConditioning(states, mask, lengths).to(self.device)

    def forward(self, noisy: Tensor, timesteps: Tensor, condition: TextConditioning | None) -> Tensor:
        assert condition is not None
        mask = condition.mask if self.mask_padding else None
        return self.unet(noisy, timesteps, condition.states, encoder_attention_mask=mask).sample

    def on_fit_start(self) -> None:
        planted = self.trainer.datamodule.planted  # type: ignore[attr-defined]
        captions = sorted({plant.caption for plant in planted.plants} | set(planted.captions))
        if cut := self.text.num_cut(captions):
            length = self.text.length
            log.warning(
                "%d of %d captions are longer than %d tokens and are cut; they still end in the end token.", cut, len(captions), length
            )

    def pipeline(self) -> DiffusionPipeline:
        text = self.text
        return TextConditionalPipeline(self.unet, self.scheduler, text.encoder, text.tokenizer, text.length, self.mask_padding)


SMALL_TEXT = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}  # CLIP's architecture
