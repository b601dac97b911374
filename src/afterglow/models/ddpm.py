"""A diffusion model without text (Ho et al. 2020)."""

from collections.abc import Mapping
from typing import Any

import diffusers
from torch import Tensor

from afterglow.errors import AfterglowError
from afterglow.models.conditioning import TextConditioning
from afterglow.models.denoiser import Denoiser, instantiate


class DDPM(Denoiser):
    """An unconditional `UNet2DModel`.

    Args:
        unet: arguments of diffusers' UNet2DModel, or a folder or hub id of a network to fine-tune.
        resolution: width and height of the images in pixels; linked to the data.
        channels: channels of the images; linked to the data.
        training: arguments of every Denoiser.
    """

    def __init__(self, unet: str | Mapping[str, Any], resolution: int = 32, channels: int = 3, **training: Any) -> None:
        super().__init__(**training)
        self.init_args = {"unet": unet, "resolution": resolution, "channels": channels, **training}
        if isinstance(unet, str):
            self.unet = load_network(diffusers.UNet2DModel, unet, resolution)
            if self.unet.config.in_channels != channels:
                raise AfterglowError(
                    f"The network in '{unet}' has {self.unet.config.in_channels} channels, but the images have {channels}."
                )
        else:
            defaults = {"sample_size": resolution, "in_channels": channels, "out_channels": channels}
            self.unet = instantiate(diffusers.UNet2DModel, defaults | dict(unet), "unet")
        self.resolution = resolution
        self.check_resolution(resolution, len(self.unet.config.block_out_channels))

    def latent_shape(self) -> tuple[int, int, int]:
        return self.unet.config.in_channels, self.resolution, self.resolution

    def forward(self, noisy: Tensor, timesteps: Tensor, condition: TextConditioning | None = None) -> Tensor:
        return self.unet(noisy, timesteps).sample

    def pipeline(self) -> "diffusers.DiffusionPipeline":
        return diffusers.DDPMPipeline(self.unet, self.scheduler)


def load_network(cls: Any, source: str, resolution: int) -> Any:
    """Open a network.

    Args:
        cls: its diffusers class.
        source: a diffusers folder (of a pipeline or of the network alone) or a hub id.
        resolution: width and height at which an exported pipeline generates.

    Returns:
        The network.

    Raises:
        AfterglowError: if there is no such network.
    """
    for subfolder in ("unet", None):
        try:
            network = cls.from_pretrained(source, subfolder=subfolder, use_safetensors=True)
            network.register_to_config(sample_size=resolution)
            return network
        except OSError as error:
            reason = error
    raise AfterglowError(f"No {cls.__name__} in '{source}': give a diffusers folder, or a hub id if a network is available.") from reason
