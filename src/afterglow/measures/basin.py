"""The attraction basin of Jain et al. 2025 (METHODS (e)): without guidance the magnitude of a copy falls to a first minimum."""

import torch
from torch import Tensor

from afterglow.generations import Generations


def first_local_minimum(curve: Tensor) -> int | None:
    """K - 1 for the first k at which d[k-2] > d[k-1] and d[k] > d[k-1], strictly; None where there is none. curve: [T]."""
    middle = curve[1:-1]
    found = ((curve[:-2] > middle) & (curve[2:] > middle)).nonzero()
    return int(found[0]) + 1 if len(found) else None


def basin_step(generations: Generations) -> Tensor:
    """Sampler step of the first local minimum of ||Delta_t|| under zero guidance, [B]; NaN where there is none.

    The transition is detected one step later. Reads extras['basin_curve'] [B, T], in units of eps.
    """
    steps = [first_local_minimum(curve) for curve in generations.extras["basin_curve"]]
    return torch.tensor([torch.nan if step is None else float(step) for step in steps])


def basin_depth(generations: Generations) -> Tensor:
    """How far the curve has fallen at its first local minimum, as a share of its first value, [B]; NaN where there is none."""
    curves = generations.extras["basin_curve"]
    steps = [first_local_minimum(curve) for curve in curves]
    fallen = [torch.nan if step is None else float(1 - curve[step] / curve[0]) for step, curve in zip(steps, curves, strict=True)]
    return torch.tensor(fallen)
