"""Denoising losses: of training and held-out images, and each plant's denoising_log_ratio (docs/methods.md#denoising-log-ratio)."""

from collections.abc import Iterator, Sequence
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
    model: Denoiser, images: Tensor, captions: Sequence[str], *, num_times: int = 8, seed: int = 0, batch_size: int = 64
) -> Tensor:
    """Squared error of the predicted noise at `loss_times`, mean over channels.

    Args:
        model: any prediction type; the error is that of eps, so that models are comparable.
        images: uint8 [B, C, H, W].
        captions: one per image.
        num_times: number of timesteps.
        seed: with the time and the row it fixes the noise, so that evaluations of one run are comparable.
        batch_size: images per batch.

    Returns:
        float32 [B, num_times, h, w].
    """
    parts = []
    for start in range(0, len(images), batch_size):
        rows = slice(start, start + batch_size)
        clean = model.encode(to_signed(images[rows]).to(model.device))
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
    """Mean squared error of the predicted noise, float32 [B, num_times]; arguments as in denoising_errors."""
    return denoising_errors(model, images, captions, num_times=num_times, seed=seed).mean((2, 3))


def denoising_loss_rows(model: Denoiser, planted: PlantedSet, *, batch_size: int) -> pd.DataFrame:
    """Rows of one evaluation: losses of held-out and training images and denoising_log_ratio of plants.

    Args:
        model: the model that is evaluated.
        planted: its training set, as decoded by its autoencoder.
        batch_size: images per batch.

    Returns:
        denoising_loss and denoising_loss.t=N of held-out and training images; denoising_log_ratio.inside and .inside.t=N of plants,
        phantoms and training images, .outside of those with a region; empty without held-out and training images.
    """
    names = [f"t={time}" for time in loss_times(model, NUM_TIMES)]
    first_id, full = len(planted.plants), torch.ones(1, *planted.pixels.shape[-2:], dtype=torch.bool)
    heldout, rows = None, []
    for kind, members in (("heldout", planted.heldout[:NUM_IMAGES]), ("control", planted.controls[:NUM_IMAGES])):
        if not len(members):
            continue
        captions = [planted.captions[row] for row in members]
        errors = _errors(model, planted.pixels[members], captions, batch_size)
        heldout = errors if kind == "heldout" else heldout
        for row, caption, error in zip(members.tolist(), captions, errors, strict=True):
            about = {"plant_id": first_id + row, "kind": kind, "caption": caption}
            rows += [about | value for value in _values("denoising_loss", names, error.mean((1, 2)))]
            if kind == "control" and heldout is not None:
                rows += [about | value for value in _values("denoising_log_ratio.inside", names, denoising_log_ratio(error, heldout, full))]
    if heldout is not None:
        rows += _plant_rows(model, planted, heldout, names, batch_size)
    return pd.DataFrame(rows).assign(seed=ALL_SEEDS) if rows else pd.DataFrame()


def _plant_rows(model: Denoiser, planted: PlantedSet, heldout: Tensor, names: list[str], batch_size: int) -> list[dict[str, Any]]:
    plants = planted.of_kind(*COPYABLE)
    if not plants:
        return []
    images = np.stack([_image(planted, plant) for plant in plants])
    errors = _errors(model, images, [plant.caption for plant in plants], batch_size)
    rows = []
    for plant, error in zip(plants, errors, strict=True):
        about = {"plant_id": plant.plant_id, "kind": plant.kind, "caption": plant.caption}
        mask = torch.from_numpy(plant.mask)
        rows += [about | value for value in _values("denoising_log_ratio.inside", names, denoising_log_ratio(error, heldout, mask))]
        if not plant.mask.all():
            rows.append(
                about | {"measure": "denoising_log_ratio.outside", "value": float(denoising_log_ratio(error, heldout, ~mask).mean())}
            )
    return rows


def _image(planted: PlantedSet, plant: Plant) -> np.ndarray:
    """The image of a plant, a local plant or its phantom with one fixed background; uint8 [C, H, W]."""
    if plant.mask.all() or plant.kind == "natural":
        return planted.pixels[plant.members[0]]
    background_pool = plant.backgrounds or tuple(planted.background_pool.tolist())
    return planted.compose(plant, 0, background_pool[plant.plant_id % len(background_pool)])


def _errors(model: Denoiser, images: np.ndarray, captions: list[str], batch_size: int) -> Tensor:
    return denoising_errors(model, torch.from_numpy(np.array(images)), captions, num_times=NUM_TIMES, batch_size=batch_size)


def _values(measure: str, names: list[str], values: Tensor) -> Iterator[dict[str, Any]]:
    """The mean over timesteps under the measure's name, and the value at each timestep."""
    yield {"measure": measure, "value": float(values.mean())}
    for name, value in zip(names, values.tolist(), strict=True):
        yield {"measure": f"{measure}.{name}", "value": value}
