"""A diffusion model without text (Ho et al. 2020)."""

from collections.abc import Mapping
from typing import Any

import diffusers
from torch import Tensor

from afterglow.errors import AfterglowError
from afterglow.models.conditioning import TextConditioning
from afterglow.models.denoiser import Denoiser
from afterglow.models.networks import build_unet, check_resolution, load_network


class DDPM(Denoiser):
    """An unconditional `UNet2DModel`.

    Args:
        unet: arguments of diffusers' UNet2DModel, or a folder or hub id of a network to fine-tune.
        resolution: width and height of the images in pixels; linked to the data.
        channels: channels of the images; linked to the data.
        training: arguments that all models share; see Denoiser.
    """

    def __init__(self, unet: str | Mapping[str, Any], resolution: int = 32, channels: int = 3, **training: Any) -> None:
        super().__init__(**training)
        self.init_args = {"unet": unet, "resolution": resolution, "channels": channels, **training}
        if isinstance(unet, str):
            self.unet = load_network(diffusers.UNet2DModel, unet, resolution)
            check_resolution(self.unet, resolution)
            if self.unet.config.in_channels != channels:
                raise AfterglowError(
                    f"The network in '{unet}' has {self.unet.config.in_channels} channels, but the images have {channels}."
                )
        else:
            self.unet = build_unet(diffusers.UNet2DModel, unet, (channels, resolution, resolution))
        self.resolution = resolution

    def latent_shape(self) -> tuple[int, int, int]:
        return self.unet.config.in_channels, self.resolution, self.resolution

    def forward(self, noisy: Tensor, timesteps: Tensor, condition: TextConditioning | None = None) -> Tensor:
        return self.unet(noisy, timesteps).sample

    def pipeline(self) -> "diffusers.DiffusionPipeline":
        return diffusers.DDPMPipeline(self.unet, self.scheduler)
