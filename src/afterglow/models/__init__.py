"""Models: denoising networks and their training loss."""

import importlib
from typing import Any

_MODULES = {
    "DDPM": "ddpm",
    "Denoiser": "denoiser",
    "OptimalDenoiser": "optimal",
    "StableDiffusion": "stable_diffusion",
    "TextConditionalDDPM": "text_ddpm",
}


def __getattr__(name: str) -> Any:
    """Import a class on first use; recipes name classes as `afterglow.models.DDPM`."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
