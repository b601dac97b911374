"""Training timesteps drawn from a truncated normal distribution (after Vu et al. 2026; docs/methods.md#timestep-sampling)."""

import torch
from torch import Tensor

from afterglow.errors import require
from afterglow.models.denoiser import Denoiser, TrainingMitigation


class TimestepSampling(TrainingMitigation):
    """Timesteps from a normal distribution truncated to the schedule, instead of a uniform one.

    Each uniform timestep is mapped through the inverse distribution function, so that no random number changes.

    Args:
        mean: mean of the distribution, as a fraction of the schedule: 0 is the clean image, 1 pure noise.
        std: standard deviation, likewise; the larger, the nearer to uniform.
    """

    def __init__(self, mean: float = 0.25, std: float = 0.25) -> None:
        require("TimestepSampling: mean", mean, 0 <= mean <= 1, "a number from 0 to 1")
        require("TimestepSampling: std", std, 0 < std < float("inf"), "greater than 0 and finite")
        self.mean, self.std = mean, std

    def change_timesteps(self, model: Denoiser, timesteps: Tensor) -> Tensor:
        count = len(model.scheduler)
        low, high = (torch.special.ndtr(torch.tensor((end - self.mean) / self.std, dtype=torch.float64)) for end in (0.0, 1.0))
        table = torch.special.ndtri(low + (torch.arange(count, dtype=torch.float64) + 0.5) / count * (high - low)) * self.std + self.mean
        mapped = (table * count).long().clamp(0, count - 1)
        return mapped.to(timesteps.device, non_blocking=True)[timesteps]
