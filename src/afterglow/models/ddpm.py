"""A diffusion model without text (Ho et al. 2020)."""

from collections.abc import Mapping
from typing import Any

from diffusers import DDPMPipeline, DiffusionPipeline, UNet2DModel
from torch import Tensor

from afterglow.models.denoiser import Denoiser, TextConditioning, build


class DDPM(Denoiser):
    """An unconditional `UNet2DModel`.

    Args:
        unet: arguments of diffusers' UNet2DModel, or a folder or hub id to fine-tune from.
    """

    def __init__(self, unet: str | Mapping[str, Any], resolution: int = 32, channels: int = 3, **training: Any) -> None:
        super().__init__(**training)
        self.save_hyperparameters()
        if isinstance(unet, str):
            self.unet = load_network(UNet2DModel, unet, resolution)
            _check_channels(self.unet, channels, unet)
        else:
            filled = {"sample_size": resolution, "in_channels": channels, "out_channels": channels}
            self.unet = build(UNet2DModel, filled | dict(unet), "unet")
        self.side = resolution
        self.check_resolution(resolution, len(self.unet.config.block_out_channels))

    def shape(self) -> tuple[int, int, int]:
        return self.unet.config.in_channels, self.side, self.side

    def forward(self, noisy: Tensor, timesteps: Tensor, condition: TextConditioning | None = None) -> Tensor:
        return self.unet(noisy, timesteps).sample

    def pipeline(self) -> DiffusionPipeline:
        return DDPMPipeline(self.unet, self.scheduler)


def load_network(cls: Any, source: str, side: int) -> Any:
    """A network from a diffusers folder (of a pipeline or of the network alone) or hub id; ValueError where there is none."""
    for subfolder in ("unet", None):
        try:
            network = cls.from_pretrained(source, subfolder=subfolder, use_safetensors=True)
            network.register_to_config(sample_size=side)  # the size that an exported pipeline generates
            return network
        except OSError as error:
            reason = error
    raise ValueError(f"No {cls.__name__} in '{source}': give a diffusers folder, or a hub id where there is a network.") from reason


def _check_channels(network: Any, channels: int, source: str) -> None:
    if network.config.in_channels != channels:
        raise ValueError(f"The network in '{source}' has {network.config.in_channels} channels, and the images have {channels}.")
