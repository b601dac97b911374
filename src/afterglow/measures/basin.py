"""The attraction basin (Jain et al. 2025; docs/methods.md#basin): without guidance, the guidance norm of a copy falls to a first minimum.

Both scores read extras['basin_curve'] [B, T]: ||Delta_t|| under zero guidance, in units of eps.
"""

import torch
from torch import Tensor

from afterglow.functional.guidance import first_local_minimum
from afterglow.generations import Generations


def basin_step(generations: Generations) -> Tensor:
    """Sampler step of the first local minimum, [B]; NaN where there is none. The transition is detected one step later."""
    steps = [first_local_minimum(curve) for curve in generations.extras["basin_curve"]]
    return torch.tensor([torch.nan if step is None else float(step) for step in steps])


def basin_depth(generations: Generations) -> Tensor:
    """Share of its first value by which the curve has fallen at its first local minimum, [B]; NaN where there is none."""
    curves = generations.extras["basin_curve"]
    steps = [first_local_minimum(curve) for curve in curves]
    depths = [torch.nan if step is None else float(1 - curve[step] / curve[0]) for step, curve in zip(steps, curves, strict=True)]
    return torch.tensor(depths)
