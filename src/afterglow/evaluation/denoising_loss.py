"""Denoising losses: of training and held-out images, and each plant's denoising_log_ratio (docs/methods.md#denoising-log-ratio)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from afterglow.analysis.summary import ALL_SEEDS
from afterglow.functional.guidance import denoising_log_ratio
from afterglow.functional.pixels import to_signed
from afterglow.kinds import COPYABLE
from afterglow.models.denoiser import Denoiser
from afterglow.planting.plants import Plant, PlantedSet
from afterglow.sampling.setup import initial_noise

NUM_IMAGES, NUM_TIMES = 32, 4  # held-out and training images, and timesteps


def loss_times(model: Denoiser, num_times: int) -> list[int]:
    """`num_times` timesteps of the training's schedule, in the middles of equal intervals."""
    return [int((i + 0.5) * len(model.scheduler) / num_times) for i in range(num_times)]


@torch.no_grad()
def denoising_errors(
    model: Denoiser, images: Tensor, captions: Sequence[str], *, num_times: int = NUM_TIMES, seed: int = 0, batch_size: int = 64
) -> Tensor:
    """Squared error of the predicted noise at `loss_times`, mean over channels, whatever the network predicts.

    Args:
        images: uint8 [B, C, H, W].
        seed: with the time and the row it fixes the noise, so that evaluations of one run are comparable.

    Returns:
        float32 [B, num_times, h, w].
    """
    parts = []
    for start in range(0, len(images), batch_size):
        rows = slice(start, start + batch_size)
        clean = model.encode(to_signed(images[rows]).to(model.device, non_blocking=True))
        condition, columns = model.condition(captions[rows]), []
        for time in loss_times(model, num_times):
            seeds = [seed * 1_000_003 + time * 10_007 + start + row for row in range(len(clean))]
            noise = initial_noise(clean.shape[1:], [torch.Generator().manual_seed(number) for number in seeds]).to(clean, non_blocking=True)
            timestep = torch.full((len(clean),), time, device=clean.device)
            noisy = model.add_noise(clean, noise, timestep)
            predicted = model.to_noise(model(noisy, timestep, condition), noisy, time)
            columns.append((predicted - noise).float().square().mean(1))
        parts.append(torch.stack(columns, dim=1).cpu())
    return torch.cat(parts)


def denoising_loss_rows(model: Denoiser, planted: PlantedSet, *, batch_size: int) -> pd.DataFrame:
    """Rows of one evaluation: losses of held-out and training images and denoising_log_ratio of plants.

    Returns:
        denoising_loss and denoising_loss.t=N of held-out and training images; denoising_log_ratio.inside and .inside.t=N of plants,
        phantoms and training images, .outside of those with a region; empty without held-out and training images.
    """
    names = [f"t={time}" for time in loss_times(model, NUM_TIMES)]

    def errors_of(images: np.ndarray, captions: list[str]) -> Tensor:
        return denoising_errors(model, torch.from_numpy(np.array(images)), captions, batch_size=batch_size)

    def values(about: Mapping[str, Any], measure: str, of_times: Tensor) -> Iterator[dict[str, Any]]:
        """The mean over timesteps under the measure's name, and the value at each timestep."""
        yield {**about, "measure": measure, "value": float(of_times.mean())}
        yield from ({**about, "measure": f"{measure}.{name}", "value": value} for name, value in zip(names, of_times.tolist(), strict=True))

    heldout, full = None, torch.ones(1, *planted.pixels.shape[-2:], dtype=torch.bool)
    rows: list[dict[str, Any]] = []
    for kind, members in (("heldout", planted.heldout[:NUM_IMAGES]), ("control", planted.controls[:NUM_IMAGES])):
        if not len(members):
            continue
        captions = [planted.captions[row] for row in members]
        errors = errors_of(planted.pixels[members], captions)
        heldout = errors if kind == "heldout" else heldout
        for row, caption, error in zip(members.tolist(), captions, errors, strict=True):
            about = {"plant_id": len(planted.plants) + row, "kind": kind, "caption": caption}
            rows += values(about, "denoising_loss", error.mean((1, 2)))
            if kind == "control" and heldout is not None:
                rows += values(about, "denoising_log_ratio.inside", denoising_log_ratio(error, heldout, full))
    plants = planted.of_kind(*COPYABLE)
    if heldout is not None and plants:
        errors = errors_of(np.stack([_image(planted, plant) for plant in plants]), [plant.caption for plant in plants])
        for plant, error in zip(plants, errors, strict=True):
            about, mask = {"plant_id": plant.plant_id, "kind": plant.kind, "caption": plant.caption}, torch.from_numpy(plant.mask)
            rows += values(about, "denoising_log_ratio.inside", denoising_log_ratio(error, heldout, mask))
            if not mask.all():
                rows.append(next(values(about, "denoising_log_ratio.outside", denoising_log_ratio(error, heldout, ~mask))))
    return pd.DataFrame(rows).assign(seed=ALL_SEEDS) if rows else pd.DataFrame()


def _image(planted: PlantedSet, plant: Plant) -> np.ndarray:
    """The image of a plant, a local plant or its phantom with one fixed background; uint8 [C, H, W]."""
    if plant.mask.all() or plant.kind == "natural":
        return planted.pixels[plant.members[0]]
    background_pool = plant.backgrounds or tuple(planted.background_pool.tolist())
    return planted.compose(plant, 0, background_pool[plant.plant_id % len(background_pool)])
