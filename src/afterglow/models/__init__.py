"""Denoising networks and how a batch becomes a loss."""

import importlib
from typing import Any

_MODULES = {
    "DDPM": "ddpm",
    "Denoiser": "denoiser",
    "OptimalDenoiser": "optimal",
    "StableDiffusion": "stable_diffusion",
    "TextConditionalDDPM": "text_ddpm",
    "WarmupEMA": "ema",
}


def __getattr__(name: str) -> Any:
    """Import a class when it is first used: `afterglow.models.DDPM` is a class path in recipes."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
