"""Denoising loss of pictures: whether a model has learned the set, beside whether it copies it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from afterglow.models import Denoiser
from afterglow.models.course import initial_noise


@torch.no_grad()
def denoising_losses(model: Denoiser, images: Tensor, captions: Sequence[str], *, num_times: int = 8, seed: int = 0) -> Tensor:
    """Mean squared error of the predicted noise at `num_times` evenly spaced timesteps, float32 [B, num_times].

    images: uint8 [B, C, H, W]. Noise is fixed by the seed, so that probes of one run compare. The error is that of eps,
    whatever the network predicts, so that models compare.
    """
    clean = model.encode(images.float().to(model.device) / 127.5 - 1)
    total = len(model.scheduler)
    times = [int((i + 0.5) * total / num_times) for i in range(num_times)]
    condition = model.condition(captions)
    columns = []
    for time in times:
        generators = [torch.Generator().manual_seed(seed * 1_000_003 + time * 10_007 + row) for row in range(len(images))]
        noise = initial_noise(clean.shape[1:], generators).to(clean)
        timestep = torch.full((len(images),), time, device=clean.device)
        noisy = model.scheduler.add_noise(clean, noise, timestep)
        predicted = model.to_noise(model(noisy, timestep, condition), noisy, time)
        columns.append((predicted - noise).float().square().flatten(1).mean(1).cpu())
    return torch.stack(columns, dim=1)
