"""A model whose captions are heard, and what its passes look like before any mitigation."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from afterglow.analysis.thresholds import Thresholds
from afterglow.models.text_ddpm import TextConditionalDDPM
from afterglow.sampling.loop import Sampler, generate, initial_delta_norm
from afterglow.sampling.recorder import CaptureConfig
from afterglow.sampling.setup import SamplingSetup

CAPTIONS, SEEDS = ["a red circle", "dog", "two words"], [0, 1, 2]
SAMPLER = Sampler(steps=6, guidance_scale=2.0)
NO_PLANTS = CaptureConfig(guidance=False, tokens=False, end_steps=())


@pytest.fixture(scope="session")
def sampler() -> Sampler:
    return SAMPLER


@pytest.fixture(scope="session")
def nothing() -> CaptureConfig:
    return NO_PLANTS


@pytest.fixture(scope="session")
def heard(small_captioned: Callable[..., TextConditionalDDPM]) -> TextConditionalDDPM:
    model = small_captioned()
    for name, parameter in model.named_parameters():
        if "attn2" in name:
            parameter.data *= 4
    return model


@pytest.fixture(scope="session")
def setup(heard: TextConditionalDDPM) -> SamplingSetup:
    return SAMPLER.setup(heard, CAPTIONS, SEEDS)


@pytest.fixture(scope="session")
def thresholds(heard: TextConditionalDDPM, setup: SamplingSetup) -> Thresholds:
    """So low that every caption of the course is over them."""
    with torch.no_grad():
        first = float(initial_delta_norm(heard, setup).min())
    return Thresholds((first / 2,) * SAMPLER.steps, first / 2, 0.9 * first, "a test")


@pytest.fixture(scope="session")
def pixels(heard: TextConditionalDDPM) -> Callable[[Any], torch.Tensor]:
    """pixels(mitigation) => what the model decodes to, not rounded, [B, 3, H, W] in [0, 1]."""

    def make(mitigation: Any) -> torch.Tensor:
        seen: list[torch.Tensor] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(heard, "decode", lambda values: seen.append(values) or values)
            generate(heard, CAPTIONS, SEEDS, SAMPLER, NO_PLANTS, mitigation=mitigation)
        return (seen[0] / 2 + 0.5).clamp(0, 1)

    return make


@pytest.fixture(scope="session")
def untouched(pixels: Callable[[Any], torch.Tensor]) -> torch.Tensor:
    return pixels(None)
