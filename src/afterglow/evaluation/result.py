"""The result of an evaluation, and the file that keeps its maps and masks."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import save
from torch import Tensor

from afterglow.cache import atomic_path
from afterglow.functional.pixels import resize
from afterglow.generations import Generations


@dataclass(frozen=True)
class EvaluationResult:
    """Generations and what was measured of them.

    Args:
        generations: images with their ground truth, [B] rows.
        measurements: tidy table: plant_id, kind, caption, seed, measure, value; seed -1 stands for all seeds of a plant.
        maps: {name: soft map [B, h, w]}.
        thresholds: {name: threshold of each map, [B]}, chosen on other plants than they are applied to.
    """

    generations: Generations
    measurements: pd.DataFrame
    maps: Mapping[str, Tensor]
    thresholds: Mapping[str, Tensor]

    def mask(self, name: str) -> Tensor:
        """The predicted masks of one map at image size, bool [B, H, W]."""
        return resize(self.maps[name].float(), self.generations.images.shape[-2:]) > self.thresholds[name][:, None, None]

    def rows_of(self, *kinds: str) -> list[int]:
        """The rows of these kinds."""
        return [row for row, kind in enumerate(self.generations.kind) if kind in kinds]

    def save(self, path: Path) -> None:
        """Write images, ground truth, soft maps (fp16) and predicted masks of all kinds but controls to one safetensors file."""
        rows = torch.tensor([row for row, kind in enumerate(self.generations.kind) if kind != "control"])
        subset = self.generations[rows]
        assert subset.plant_id is not None and subset.eval_mask is not None and subset.region is not None
        tensors = {
            "images": subset.images,
            "plant_id": subset.plant_id,
            "seed": subset.seed,
            "eval_mask": subset.eval_mask,
            "region": subset.region,
        }
        for name, values in self.maps.items():
            tensors[f"map/{name}"] = values[rows].half()
            if name in self.thresholds:
                tensors[f"mask/{name}"] = self.mask(name)[rows]
        with atomic_path(path) as file:
            file.write_bytes(save({name: tensor.contiguous() for name, tensor in tensors.items()}))  # a full disk is an OSError here
