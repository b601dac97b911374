"""Plant images in a training set, train a diffusion model on it, and measure which of them the model memorizes.

Example: generate samples of a model and measure them. A run folder, a checkpoint, a diffusers folder or a hub id opens with
`afterglow.open_model(...)`; here a tiny random model stands in for it.

>>> import afterglow
>>> from afterglow.testing.tiny_sd import tiny_sd
>>> sampler = afterglow.Sampler(steps=2)
>>> result = afterglow.evaluate(tiny_sd(32, 8), ["a red apple"], sampler, measures=["guidance_norm.*"])
>>> sorted(set(result.measurements["measure"]))
['guidance_norm.1', 'guidance_norm.all']
"""

import importlib
from typing import Any

_DEFINED_IN = {
    "AfterglowError": "errors.AfterglowError",
    "Generations": "generations.Generations",
    "Sampler": "sampling.loop.Sampler",
    "evaluate": "evaluation.evaluate.evaluate",
    "open_model": "models.io.open_model",
    "plant_images": "planting.planner.plant_images",
}
_MODULES = ("measures", "mitigations")
__all__ = [*_DEFINED_IN, *_MODULES]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import afterglow` is cheap."""
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _DEFINED_IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _DEFINED_IN[name].rpartition(".")
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
