"""A diffusion model without text (Ho et al. 2020)."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
from torch import Tensor

from afterglow.errors import AfterglowError, one_line
from afterglow.models.conditioning import TextConditioning
from afterglow.models.denoiser import Denoiser, build_unet, check_resolution


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


def load_network(cls: Any, source: str, resolution: int) -> Any:
    """Open a network of a diffusers class; an exported pipeline will generate at `resolution`.

    Args:
        cls: the class.
        source: a diffusers folder (of a pipeline or of the network alone) or a hub id.
        resolution: width and height in pixels.

    Raises:
        AfterglowError: there is no such network, or its files are damaged.
    """
    network = load_part(cls.from_pretrained, source, "unet", use_safetensors=True)
    network.register_to_config(sample_size=resolution)
    return network


def load_part(load: Callable[..., Any], source: str, part: str, **options: Any) -> Any:
    """What a loader of diffusers reads from a part of a pipeline's folder or hub id, or from a folder that holds the part alone.

    Raises:
        AfterglowError: there is no such part, or its files are damaged.
    """
    for subfolder in (part,) if (Path(source) / part).is_dir() else (part, None):
        try:
            return load(source, subfolder=subfolder, **options)
        except Exception as error:  # libraries raise many kinds of errors for damaged files
            reason = error
    raise AfterglowError(
        f"No readable {part} in '{source}' ({one_line(str(reason), 80)}): give a diffusers folder, or a hub id if a network is available."
    ) from reason
