"""What a model denoises better than what it never saw: losses of training and held-out images, and each plant's denoising_log_ratio."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from afterglow.analysis.summary import ALL_SEEDS
from afterglow.evaluation.losses import denoising_errors, loss_times
from afterglow.functional.guidance import denoising_log_ratio
from afterglow.kinds import COPYABLE
from afterglow.planting.plants import Plant, PlantedSet

NUM_IMAGES, NUM_TIMES = 32, 4  # held-out and training images, and timesteps


def denoising_loss_rows(model: Any, planted: PlantedSet, *, batch_size: int) -> pd.DataFrame:
    """Rows of one probe, from one pass for each timestep.

    denoising_loss and denoising_loss.t=N of held-out and training images; denoising_log_ratio.inside, denoising_log_ratio.outside (of a
    region) and
    denoising_log_ratio.inside.t=N of plants, phantoms and training images.
    """
    times = [f"t={time}" for time in loss_times(model, NUM_TIMES)]
    after, everything = len(planted.plants), np.ones((1, *planted.pixels.shape[-2:]), dtype=bool)
    heldout, rows = None, []
    for kind, images in (("heldout", planted.heldout), ("control", planted.controls)):
        some = images[:NUM_IMAGES]
        if not len(some):
            continue
        captions = [planted.captions[row] for row in some]
        errors = _errors(model, planted.pixels[some], captions, batch_size)
        heldout = errors if kind == "heldout" else heldout
        for row, caption, error in zip(some.tolist(), captions, errors, strict=True):
            about = {"plant_id": after + row, "kind": kind, "caption": caption}
            rows += [about | found for found in _values("denoising_loss", times, error.mean((1, 2)))]
            if kind == "control" and heldout is not None:
                rows += [
                    about | found
                    for found in _values(
                        "denoising_log_ratio.inside", times, denoising_log_ratio(error, heldout, torch.from_numpy(everything))
                    )
                ]
    if heldout is not None:
        rows += _plant_rows(model, planted, heldout, times, batch_size)
    return pd.DataFrame(rows).assign(seed=ALL_SEEDS) if rows else pd.DataFrame()


def _plant_rows(model: Any, planted: PlantedSet, heldout: Tensor, times: list[str], batch_size: int) -> list[dict[str, Any]]:
    plants = planted.of_kind(*COPYABLE)
    if not plants:
        return []
    shown = np.stack([_shown(planted, plant) for plant in plants])
    errors = _errors(model, shown, [plant.caption for plant in plants], batch_size)
    rows = []
    for plant, error in zip(plants, errors, strict=True):
        about = {"plant_id": plant.plant_id, "kind": plant.kind, "caption": plant.caption}
        mask = torch.from_numpy(plant.mask)
        rows += [about | found for found in _values("denoising_log_ratio.inside", times, denoising_log_ratio(error, heldout, mask))]
        if not plant.mask.all():
            rows.append(
                about | {"measure": "denoising_log_ratio.outside", "value": float(denoising_log_ratio(error, heldout, ~mask).mean())}
            )
    return rows


def _shown(planted: PlantedSet, plant: Plant) -> np.ndarray:
    """The image of a plant; of a region with one fixed fill, that of a phantom alike. uint8 [C, H, W]."""
    if plant.mask.all() or plant.kind == "natural":
        return planted.pixels[plant.members[0]]
    background_pool = plant.backgrounds or tuple(planted.background_pool.tolist())
    return planted.compose(plant, 0, background_pool[plant.plant_id % len(background_pool)])


def _errors(model: Any, images: np.ndarray, captions: list[str], batch_size: int) -> Tensor:
    return denoising_errors(model, torch.from_numpy(np.array(images)), captions, num_times=NUM_TIMES, batch_size=batch_size)


def _values(name: str, times: list[str], values: Tensor) -> Iterator[dict[str, Any]]:
    """The mean over timesteps under the measure's name, and each timestep under its own."""
    yield {"measure": name, "value": float(values.mean())}
    for time, value in zip(times, values.tolist(), strict=True):
        yield {"measure": f"{name}.{time}", "value": value}
