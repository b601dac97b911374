"""A model whose captions are heard, and what its passes look like before any remedy."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from afterglow.collect import Capture, Sampler, generate
from afterglow.measures.thresholds import Thresholds
from afterglow.mitigations.passes import first_magnitude
from afterglow.models import CaptionDDPM
from afterglow.models.course import Course

CAPTIONS, SEEDS = ["a red circle", "dog", "two words"], [0, 1, 2]
SAMPLER = Sampler(steps=6, guidance_scale=2.0)
NOTHING = Capture(guidance=False, tokens=False, end_steps=())


@pytest.fixture(scope="session")
def sampler() -> Sampler:
    return SAMPLER


@pytest.fixture(scope="session")
def nothing() -> Capture:
    return NOTHING


@pytest.fixture(scope="session")
def heard(small_captioned: Callable[..., CaptionDDPM]) -> CaptionDDPM:
    model = small_captioned()
    for name, parameter in model.named_parameters():
        if "attn2" in name:
            parameter.data *= 4
    return model


@pytest.fixture(scope="session")
def course(heard: CaptionDDPM) -> Course:
    return SAMPLER.course(heard, CAPTIONS, SEEDS)


@pytest.fixture(scope="session")
def thresholds(heard: CaptionDDPM, course: Course) -> Thresholds:
    """So low that every caption of the course is over them."""
    with torch.no_grad():
        first = float(first_magnitude(heard, course).min())
    return Thresholds((first / 2,) * SAMPLER.steps, first / 2, 0.9 * first, "a test")


@pytest.fixture(scope="session")
def pixels(heard: CaptionDDPM) -> Callable[[Any], torch.Tensor]:
    """pixels(remedy) => what the model decodes to, not rounded, [B, 3, H, W] in [0, 1]."""

    def make(remedy: Any) -> torch.Tensor:
        seen: list[torch.Tensor] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(heard, "decode", lambda values: seen.append(values) or values)
            generate(heard, CAPTIONS, SEEDS, SAMPLER, NOTHING, remedy=remedy)
        return (seen[0] / 2 + 0.5).clamp(0, 1)

    return make


@pytest.fixture(scope="session")
def untouched(pixels: Callable[[Any], torch.Tensor]) -> torch.Tensor:
    return pixels(None)
