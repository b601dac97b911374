"""Networks of diffusers: created from the arguments of a recipe, or opened from a folder or hub id."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from afterglow.errors import AfterglowError, did_you_mean, one_line, require, require_positive


def instantiate(cls: Any, arguments: Mapping[str, Any], option: str) -> Any:
    """Create an object of a library class from the arguments of a recipe.

    Args:
        cls: the class.
        arguments: keyword arguments of its constructor.
        option: name of the recipe's option, for the error.

    Raises:
        AfterglowError: the class has no such argument, or refuses its value.
    """
    known = inspect.signature(cls).parameters
    if unknown := [name for name in arguments if name not in known]:
        raise AfterglowError(f"{option}: {cls.__name__} has no argument '{unknown[0]}'{did_you_mean(unknown[0], known) or '.'}")
    try:
        return cls(**arguments)
    except Exception as error:  # libraries raise many kinds of errors for values that they do not check
        shown = ", ".join(f"{name}={value}" for name, value in arguments.items())
        reason = one_line(f"{type(error).__name__} {error}".strip(), 110)
        raise AfterglowError(f"{option}: {cls.__name__} cannot be created with {one_line(shown, 110)} ({reason}).") from error


def build_unet(cls: Any, arguments: Mapping[str, Any], shape: tuple[int, int, int], **inputs: Tensor) -> Any:
    """Create the network of a recipe; AfterglowError if it cannot be created, or cannot process samples of a shape.

    Args:
        cls: its diffusers class.
        arguments: keyword arguments of its constructor.
        shape: of a sample, (C, H, W).
        inputs: for a network with captions: encoder_hidden_states on the meta device, [1, L, D].
    """
    channels, side, _ = shape
    require("channels", channels, channels >= 1, "at least 1")
    arguments = {"sample_size": side, "in_channels": channels, "out_channels": channels, **arguments}
    require("unet: sample_size", arguments["sample_size"], arguments["sample_size"] == side, f"{side}, the resolution of the data")
    with torch.device("meta"):  # shapes without weights
        trial = instantiate(cls, arguments, "unet")
        check_resolution(trial, side)
        try:
            output = trial(torch.empty(1, *shape), timestep=torch.zeros(1, dtype=torch.long), **inputs).sample
        except Exception as error:  # of any layer
            reason = one_line(f"{type(error).__name__} {error}", 140)
            raise AfterglowError(f"unet: this {cls.__name__} cannot process samples of {channels}x{side}x{side} ({reason}).") from error
    require("unet: out_channels", output.shape[1], output.shape[1] == channels, f"{channels}, as the channels of the data")
    return cls(**arguments)


def check_resolution(unet: Any, resolution: int) -> None:
    """Raise AfterglowError if a U-Net cannot halve images of this side at each level, or a transformer cut them into patches."""
    require_positive(resolution=resolution)
    if patch := unet.config.get("patch_size"):
        require("resolution", resolution, resolution % patch == 0, f"a multiple of {patch}, the size of the transformer's patches")
        return
    num_levels = len(unet.config.block_out_channels)
    if resolution % 2 ** (num_levels - 1):
        raise AfterglowError(
            f"resolution {resolution} cannot be halved {num_levels - 1} times, which a U-Net of {num_levels} levels requires."
        )


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
