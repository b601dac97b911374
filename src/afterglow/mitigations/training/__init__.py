"""Mitigations of memorization while a model trains; recipes name them as `afterglow.mitigations.training.SampleDropping`."""

from afterglow.mitigations.training.caption_perturbation import (
    CaptionWordRepetition,
    GaussianNoise,
    MultipleCaptions,
    RandomCaption,
    RandomTokens,
)
from afterglow.mitigations.training.sample_dropping import SampleDropping
from afterglow.mitigations.training.timestep_sampling import TimestepSampling

__all__ = [
    "CaptionWordRepetition",
    "GaussianNoise",
    "MultipleCaptions",
    "RandomCaption",
    "RandomTokens",
    "SampleDropping",
    "TimestepSampling",
]
