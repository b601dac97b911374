"""Latent updates outside the region of ordinary generations (Huang et al. 2026, "Broken Memories"; docs/methods.md#update-norm)."""

from collections.abc import Iterable

import torch
from torch import Tensor

from afterglow.generations import Generations

ORDINARY = "heldout"  # captions that were never trained on define the region
MIN_ORDINARY = 8  # generations below which a standard deviation means little


def update_deviation(generations: Generations) -> Tensor:
    """max_t | ||z_t - z_{t+1}|| - mu_t | / sigma_t, [B], in standard deviations of ordinary generations; NaN without enough of them."""
    mean, deviation = generations.extras["update_region"].unbind(1)
    return ((generations.extras["update_norms"] - mean).abs() / deviation).amax(1)


def ordinary_norms(parts: Iterable[Generations]) -> Tensor:
    """extras['update_norms'] of the held-out captions' generations, [N, T]; of no generations where none was recorded."""
    recorded = [part for part in parts if "update_norms" in part.extras and part.kind]
    found = [part.extras["update_norms"][[kind == ORDINARY for kind in part.kind]] for part in recorded]
    return torch.cat(found) if found else torch.empty(0, 1)


def with_update_region(generations: Generations, ordinary: Tensor) -> Generations:
    """The same generations with extras['update_region'], mu_t and sigma_t over ordinary generations, [B, 2, T], NaN of too few.

    Args:
        generations: with extras['update_norms']; without, nothing is added.
        ordinary: `ordinary_norms` of generations of the same model and sampler, [N, T].
    """
    if "update_norms" not in generations.extras:
        return generations
    region = torch.full((2, len(generations.timesteps)), torch.nan)
    if len(ordinary) >= MIN_ORDINARY:
        region = torch.stack([ordinary.mean(0), ordinary.std(0)])
    return generations.with_extras(update_region=region.expand(len(generations), -1, -1))
