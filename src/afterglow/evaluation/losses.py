"""Denoising errors of images: whether a model has learned the set, and which images it knows better than others."""

from collections.abc import Sequence

import torch
from torch import Tensor

from afterglow.models.denoiser import Denoiser
from afterglow.sampling.setup import initial_noise


def loss_times(model: Denoiser, num_times: int) -> list[int]:
    """Evenly spaced timesteps of the training's schedule, each in the middle of its share."""
    return [int((i + 0.5) * len(model.scheduler) / num_times) for i in range(num_times)]


@torch.no_grad()
def denoising_errors(
    model: Denoiser, images: Tensor, captions: Sequence[str], *, num_times: int = 8, seed: int = 0, batch_size: int = 64
) -> Tensor:
    """Squared error of the predicted noise at `loss_times`, mean over channels, float32 [B, num_times, h, w].

    images: uint8 [B, C, H, W]. Noise is fixed by the seed, the time and the row, so that probes of one run compare. The error is that
    of eps, whatever the network predicts, so that models compare.
    """
    parts = []
    for start in range(0, len(images), batch_size):
        rows = slice(start, start + batch_size)
        clean = model.encode(images[rows].float().to(model.device) / 127.5 - 1)
        condition = model.condition(captions[rows])
        columns = []
        for time in loss_times(model, num_times):
            seeds = [seed * 1_000_003 + time * 10_007 + start + row for row in range(len(clean))]
            noise = initial_noise(clean.shape[1:], [torch.Generator().manual_seed(number) for number in seeds]).to(clean)
            timestep = torch.full((len(clean),), time, device=clean.device)
            noisy = model.scheduler.add_noise(clean, noise, timestep)
            predicted = model.to_noise(model(noisy, timestep, condition), noisy, time)
            columns.append((predicted - noise).float().square().mean(1).cpu())
        parts.append(torch.stack(columns, dim=1))
    return torch.cat(parts)


def denoising_losses(model: Denoiser, images: Tensor, captions: Sequence[str], *, num_times: int = 8, seed: int = 0) -> Tensor:
    """Mean squared error of the predicted noise, float32 [B, num_times]; as denoising_errors."""
    return denoising_errors(model, images, captions, num_times=num_times, seed=seed).mean((2, 3))
