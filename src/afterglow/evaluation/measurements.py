"""Generations to tidy measurements: one row per plant, seed and measure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import save
from torch import Tensor

from afterglow.analysis.summary import ALL_SEEDS, CLUSTER_SIZE, NEAREST_CLUSTER
from afterglow.cache import atomic_path
from afterglow.functional.localization import held_out_iou
from afterglow.functional.pixels import resize
from afterglow.generations import Generations
from afterglow.measures import memorized
from afterglow.measures.registry import available_maps, available_scores, compute_measures, filter_measures
from afterglow.measures.tables import map_auc_rows, map_control_rows, plant_ids, value_rows
from afterglow.measures.update_norm import ordinary_norms, with_update_region
from afterglow.planting.targets import Target


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
        own = self.generations[rows].tensors()
        tensors = {name: own[name] for name in ("images", "plant_id", "seed", "eval_mask", "region")}
        tensors |= {f"map/{name}": values[rows].half() for name, values in self.maps.items()}
        tensors |= {f"mask/{name}": self.mask(name)[rows] for name in self.maps if name in self.thresholds}
        with atomic_path(path) as file:
            file.write_bytes(save({name: tensor.contiguous() for name, tensor in tensors.items()}))  # a full disk is an OSError here


def measure_generations(generations: Generations, patterns: Sequence[str] = ("*",)) -> EvaluationResult:
    """Measure generations: every named score and map whose inputs they have, and memorized wherever there is ground truth.

    Args:
        patterns: names of measures, with wildcards.

    Returns:
        The measurements and maps. A local plant's threshold is chosen on the other plants; all other generations get the median.
    """
    scores = filter_measures(available_scores(generations), ("memorized", *patterns))
    values = compute_measures(with_update_region(generations, ordinary_norms([generations])), scores)
    soft = compute_measures(generations, filter_measures(available_maps(generations), patterns))
    frames = [value_rows(generations, torch.arange(len(generations)), values)]
    thresholds: dict[str, Tensor] = {}
    if generations.region is not None:
        frames.append(map_auc_rows(generations, soft))
        if soft:
            frames.append(map_control_rows(generations, soft))
        local, overlaps = torch.tensor([row for row, kind in enumerate(generations.kind) if kind == "local"], dtype=torch.long), {}
        for name, of_each in soft.items() if len(set(plant_ids(generations)[local].tolist())) > 1 else ():
            overlaps[f"iou.{name}"], used = held_out_iou(of_each[local], generations.region[local], plant_ids(generations)[local].tolist())
            thresholds[name] = torch.full((len(generations),), float(used.median())).index_put((local,), used.float())
        frames.append(value_rows(generations, local, overlaps))
    if "memorized" in values:
        frames.append(_plant_rows(generations, values["memorized"]))
    return EvaluationResult(generations, pd.concat(frames, ignore_index=True).dropna(subset="value"), soft, thresholds)


def shape_rows(generations: Generations, shape: str) -> pd.DataFrame:
    """memorized_in.<shape> of controls whose ground truth has the mask of a plant's shape."""
    return value_rows(generations, torch.arange(len(generations)), {f"memorized_in.{shape}": memorized.memorized(generations)})


def region_rows(generations: Generations) -> pd.DataFrame:
    """Rows of global plants whose mask is the region that they have in the other arm: verdicts, and the distances of both rules."""
    copied, everything = memorized.memorized(generations), torch.arange(len(generations))
    values = {"memorized": copied, "calibrated_l2": memorized.calibrated_l2(generations), "nn_ratio": memorized.nn_ratio(generations)}
    own = value_rows(generations, everything, {f"{name}.region": of_each for name, of_each in values.items()})
    plants = _plant_rows(generations, copied)
    plants = plants[plants["measure"] == "plant_memorized"]
    return pd.concat([own, plants.assign(measure="plant_memorized.region")], ignore_index=True).dropna(subset="value")


def copied_whole(generations: Generations, copied: Tensor) -> Tensor | None:
    """1 for a copy that copies one of its plant's images outside the mask too, else 0, [B]; NaN for plants without a finite set of images.

    That is: the calibrated distance to the nearest of these images, outside the mask, is below 1 as well (docs/methods.md#memorized).
    copied: 0 or 1 inside the mask, [B]. None without a training set.
    """
    outside = generations.extras.get("background_distance")
    return None if outside is None else torch.where(outside.isfinite(), copied * (outside < 1), torch.nan)


def nearest_cluster_rows(generations: Generations) -> pd.DataFrame:
    """nearest_cluster of generations without a caption: the near-duplicate cluster of the training image that each is compared with.

    With it, copies are counted in distinct clusters at any limit of the distance.
    """
    rows = torch.tensor([row for row, kind in enumerate(generations.kind) if kind == "unprompted"], dtype=torch.long)
    if not len(rows):
        return pd.DataFrame()
    assert generations.neighbors is not None
    return value_rows(generations, rows, {NEAREST_CLUSTER: generations.neighbors.clusters[rows, 0].float()})


def extracted_rows(generations: Generations, plants: Sequence[Target], num_generations: int) -> pd.DataFrame:
    """Rows of plants of an unconditional model, seed -1 (all seeds).

    Args:
        generations: those that were matched to a plant.
        plants: all plants that could be matched.
        num_generations: all generations, matched or not.

    Returns:
        extracted: the fraction of all generations that copies the plant; plant_memorized: whether at least one does;
        plant_memorized.whole: whether at least one copies an image of a family, or of a local plant with finite backgrounds, as a whole.
    """
    whole = copied_whole(generations, torch.ones(len(generations))) if len(generations) else None
    as_whole = set() if whole is None else set(plant_ids(generations)[whole == 1].tolist())
    counts = Counter(plant_ids(generations).tolist()) if len(generations) else Counter()
    rows = []
    for plant in plants:
        about = {"plant_id": plant.plant_id, "kind": plant.kind, "caption": plant.caption, "seed": ALL_SEEDS}
        rows.append(about | {"measure": "extracted", "value": counts[plant.plant_id] / num_generations})
        rows.append(about | {"measure": "plant_memorized", "value": float(counts[plant.plant_id] > 0)})
        if plant.backgrounds is not None:
            rows.append(about | {"measure": "plant_memorized.whole", "value": float(plant.plant_id in as_whole)})
    return pd.DataFrame(rows)


def _plant_rows(generations: Generations, copied: Tensor) -> pd.DataFrame:
    """Rows of whole plants (seed -1): memorized by half of the seeds; area and shape of a region; diversity outside a local mask.

    Of controls also the size of their near-duplicate cluster.
    """
    assert generations.region is not None
    spread, table = generations.extras.get("background_spread"), []
    for number, rows in pd.Series(range(len(generations))).groupby(plant_ids(generations).numpy(), sort=False):
        first, values = int(rows.iloc[0]), {"plant_memorized": memorized.plant_memorized(copied[rows.tolist()])}
        if generations.kind[first] == "control" and "cluster_size" in generations.extras:
            values[CLUSTER_SIZE] = float(generations.extras["cluster_size"][first])
        area = float(generations.region[first].float().mean())
        if 0 < area < 1:
            values |= {"area": area, f"shape.{generations.shape[first]}": 1.0}
        if generations.kind[first] in ("local", "natural") and len(rows) > 1 and spread is not None and spread[first].isfinite():
            plant = generations[rows.tolist()]
            values |= {"outside_diversity": memorized.outside_diversity(plant), "local_to_global": memorized.local_to_global(plant)}
        if (whole := copied_whole(generations, copied)) is not None and whole[first].isfinite():
            values["plant_memorized.whole"] = memorized.plant_memorized(whole[rows.tolist()])
        about = {"plant_id": number, "kind": generations.kind[first], "caption": generations.caption[first], "seed": ALL_SEEDS}
        table += [about | {"measure": name, "value": value} for name, value in values.items()]
    return pd.DataFrame(table)
