"""Generations => tidy rows, one for every plant, seed and measure."""

from collections import Counter
from collections.abc import Iterable, Sequence

import pandas as pd
import torch
from torch import Tensor

from afterglow.analysis.summary import ALL_SEEDS
from afterglow.functional.localization import held_out_iou as held_out_overlap
from afterglow.generations import Generations
from afterglow.measures import memorized
from afterglow.measures.registry import chosen, maps, measure, scores
from afterglow.measures.tables import frame, ids, localization_rows
from afterglow.planting.targets import Target


def judge(generations: Generations, patterns: Sequence[str] = ("*",)) -> tuple[pd.DataFrame, dict[str, Tensor], dict[str, Tensor]]:
    """Rows (plant_id, kind, caption, seed, measure, value), every map [B, h, w], and the threshold of each map [B].

    patterns: of the names of measures. A local plant's threshold was chosen on other plants; everything else is shown at the
    median of these.
    """
    found = measure(generations, chosen(scores(generations), ("memorized", *patterns)))  # without it nothing else means anything
    soft = measure(generations, chosen(maps(generations), patterns))
    frames = [frame(generations, torch.arange(len(generations)), name, values) for name, values in found.items()]
    frames += localization_rows(generations, soft)
    thresholds: dict[str, Tensor] = {}
    local = _rows_of(generations, ("local",))
    if len(set(ids(generations, local))) > 1:
        for name, values in soft.items():
            assert generations.region is not None
            shares, used = held_out_overlap(values[local], generations.region[local], ids(generations, local))
            frames.append(frame(generations, local, f"iou.{name}", shares))
            thresholds[name] = torch.full((len(generations),), float(used.median())).index_put((local,), used.float())
    frames.append(_plants(generations, found["memorized"]))
    return pd.concat(frames, ignore_index=True).dropna(subset="value"), soft, thresholds


def memorized_in(generations: Generations, shape: str) -> pd.DataFrame:
    """Rows of controls that were judged in the mask of a plant's shape."""
    return frame(generations, torch.arange(len(generations)), f"memorized_in.{shape}", memorized.memorized(generations))


def in_region(generations: Generations) -> pd.DataFrame:
    """Rows of global plants that were judged inside the region that they have in the other half of two runs (seed -1: the plant)."""
    copied = memorized.memorized(generations)
    frames = [frame(generations, torch.arange(len(generations)), "memorized.region", copied)]
    plants = _plants(generations, copied)
    plants = plants[plants["measure"] == "plant_memorized"]
    return pd.concat([*frames, plants.assign(measure="plant_memorized.region")], ignore_index=True)


def captured(generations: Generations, plants: Sequence[Target], num_generations: int) -> pd.DataFrame:
    """Rows of plants that a model cannot be asked for, given the generations that were assigned to them (seed -1).

    captured: their share of all generations; plant_memorized: whether there is one at least.
    """
    counts = Counter(ids(generations, torch.arange(len(generations)))) if len(generations) else Counter()
    rows = []
    for plant in plants:
        about = {"plant_id": plant.plant_id, "kind": plant.kind, "caption": plant.caption, "seed": ALL_SEEDS}
        rows.append(about | {"measure": "extracted", "value": counts[plant.plant_id] / num_generations})
        rows.append(about | {"measure": "plant_memorized", "value": float(counts[plant.plant_id] > 0)})
    return pd.DataFrame(rows)


def _plants(generations: Generations, copied: Tensor) -> pd.DataFrame:
    """Rows of whole plants (seed -1): memorized by half of the seeds; area and shape of a region; diversity outside a local mask."""
    rows = []
    for number in dict.fromkeys(ids(generations, torch.arange(len(generations)))):
        mine = [i for i, plant_id in enumerate(ids(generations, torch.arange(len(generations)))) if plant_id == number]
        about = {"plant_id": number, "kind": generations.kind[mine[0]], "caption": generations.caption[mine[0]], "seed": ALL_SEEDS}
        rows.append(about | {"measure": "plant_memorized", "value": memorized.plant_memorized(copied[mine])})
        share = float(generations.region[mine[0]].float().mean())  # type: ignore[index]
        if 0 < share < 1:
            rows.append(about | {"measure": "area", "value": share})
            rows.append(about | {"measure": f"shape.{generations.shape[mine[0]]}", "value": 1.0})
        if about["kind"] in ("local", "natural") and len(mine) > 1:
            one = generations[mine]
            rows.append(about | {"measure": "outside_diversity", "value": memorized.outside_diversity(one)})
            rows.append(about | {"measure": "local_to_global", "value": memorized.local_to_global(one)})
    return pd.DataFrame(rows)


def _rows_of(generations: Generations, kinds: Iterable[str]) -> Tensor:
    return torch.tensor([i for i, kind in enumerate(generations.kind) if kind in tuple(kinds)], dtype=torch.long)
