"""Room 6: the only act that turns a model into evidence."""

from afterglow.collect.generate import Capture, Sampler, generate
from afterglow.collect.losses import denoising_losses
from afterglow.collect.truth import annotate

__all__ = ["Capture", "Sampler", "annotate", "denoising_losses", "generate"]
