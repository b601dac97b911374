"""Room 6: the only act that turns a model into evidence."""

from afterglow.attention import self_attention_layers
from afterglow.collect.assign import assign
from afterglow.collect.generate import Sampler, generate, text_layers
from afterglow.collect.losses import denoising_errors, denoising_losses, loss_times
from afterglow.collect.observers import NEEDS_TEXT
from afterglow.collect.patches import with_patch_distance
from afterglow.collect.shards import Order, collect
from afterglow.collect.tape import Capture, capture_for
from afterglow.collect.truth import annotate, annotate_prompts, with_latent_difference

__all__ = [
    "NEEDS_TEXT",
    "Capture",
    "Order",
    "Sampler",
    "annotate",
    "annotate_prompts",
    "assign",
    "capture_for",
    "collect",
    "denoising_errors",
    "denoising_losses",
    "generate",
    "loss_times",
    "self_attention_layers",
    "text_layers",
    "with_latent_difference",
    "with_patch_distance",
]
