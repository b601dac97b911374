"""What one probe saw, and the file that keeps its maps and masks."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import save
from torch import Tensor

from afterglow.functional.pixels import resize
from afterglow.generations import Generations


@dataclass(frozen=True)
class EvaluationResult:
    """rows: tidy numbers; maps: {name: soft [B, h, w]}; thresholds: {name: [B]}, chosen on other plants than they are used on."""

    rows: pd.DataFrame
    generations: Generations
    maps: Mapping[str, Tensor]
    thresholds: Mapping[str, Tensor]

    def mask(self, name: str) -> Tensor:
        """The predicted masks of one map at image size, bool [B, H, W]."""
        return resize(self.maps[name].float(), self.generations.images.shape[-2:]) > self.thresholds[name][:, None, None]

    def rows_of(self, *kinds: str) -> list[int]:
        return [row for row, kind in enumerate(self.generations.kind) if kind in kinds]

    def save(self, path: Path) -> None:
        """Images, truth, soft maps (fp16) and predicted masks of everything but controls, in one safetensors file."""
        rows = torch.tensor([row for row, kind in enumerate(self.generations.kind) if kind != "control"])
        kept = self.generations[rows]
        assert kept.plant_id is not None and kept.eval_mask is not None and kept.region is not None
        tensors = {
            "images": kept.images,
            "plant_id": kept.plant_id,
            "seed": kept.seed,
            "eval_mask": kept.eval_mask,
            "region": kept.region,
        }
        for name, values in self.maps.items():
            tensors[f"map/{name}"] = values[rows].half()
            if name in self.thresholds:
                tensors[f"mask/{name}"] = self.mask(name)[rows]
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{path.name}.unfinished")
        unfinished.write_bytes(save({name: tensor.contiguous() for name, tensor in tensors.items()}))  # a full disk is an OSError here
        os.replace(unfinished, path)
