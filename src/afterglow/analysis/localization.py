"""The bench that maps are judged on: generations, part by part => AUC of every map, and its overlap at a held-out threshold."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from afterglow.analysis.detection import over_runs
from afterglow.generations import Generations
from afterglow.measures import masks
from afterglow.measures.localization import held_out_overlap, map_auc, overlaps
from afterglow.measures.registry import chosen, maps, measure

NUM_RESAMPLES = 1000
TRUE_KINDS = ("local", "natural")


@dataclass(frozen=True)
class MaskOptions:
    """What is done to every map before it is judged: nothing by default.

    Args:
        normalize: none, minmax or sum, map by map.
        sigma: of a Gaussian, in pixels of the map.
        resize: bilinear or nearest, to the image.
        threshold: held_out (chosen on other plants), or a rule that looks at no truth: otsu, quantile, fixed.
        value: of the rules quantile and fixed.
    """

    normalize: str = "none"
    sigma: float = 0.0
    resize: str = "bilinear"
    threshold: str = "held_out"
    value: float = 0.5

    def __post_init__(self) -> None:
        if self.threshold not in ("held_out", *masks.THRESHOLDS):
            raise ValueError(f"A threshold rule is held_out, {', '.join(masks.THRESHOLDS)}, and not '{self.threshold}'.")

    def overlap(self, maps: Tensor, regions: Tensor, plants: Sequence[int]) -> np.ndarray:
        """IoU of each map with its region under the rule, [B]; NaN where it needs other plants and there is one."""
        if self.threshold == "held_out":
            return held_out_overlap(maps, regions, plants)[0].numpy() if len(set(plants)) > 1 else np.full(len(maps), np.nan)
        levels = masks.threshold(maps, self.threshold, self.value)
        each = zip(maps.flatten(1).numpy(), regions.flatten(1).numpy(), levels.numpy(), strict=True)
        return np.array([overlaps(soft[None], truth[None], np.array([level]))[0, 0] for soft, truth, level in each])

    def apply(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """[B, h, w] => [B, *size]."""
        return masks.resize_to(masks.smooth(masks.normalize(maps.float(), self.normalize), self.sigma), size, self.resize)


@dataclass
class Located:
    """Generations with a region and an outside. about: run, plant_id, kind, shape, seed, caption of each; soft: {map: [B, H, W]}."""

    about: list[dict] = field(default_factory=list)
    images: list[Tensor] = field(default_factory=list)
    regions: list[Tensor] = field(default_factory=list)
    soft: dict[str, list[Tensor]] = field(default_factory=dict)

    def add(self, run: str, generations: Generations, patterns: Sequence[str], options: MaskOptions) -> None:
        """Keep what can be judged of one part; maps stay in half precision, so that memory grows with what is judged only."""
        assert generations.region is not None and generations.plant_id is not None
        share = generations.region.flatten(1).float().mean(1)
        rows = ((share > 0) & (share < 1)).nonzero()[:, 0]
        if not len(rows):
            return
        some = generations[rows]
        assert some.region is not None and some.plant_id is not None
        names = zip(some.plant_id.tolist(), some.kind, some.shape, some.seed.tolist(), some.caption, strict=True)
        self.about += [{"run": run, "plant_id": p, "kind": k, "shape": s, "seed": n, "caption": c} for p, k, s, n, c in names]
        self.images.append(some.images)
        self.regions.append(some.region)
        size = (some.images.shape[-2], some.images.shape[-1])
        for name, values in measure(some, chosen(maps(some), patterns)).items():
            self.soft.setdefault(name, []).append(options.apply(values, size))


def locate(parts: Iterable[tuple[Path, Generations]], patterns: Sequence[str] = ("*",), options: MaskOptions = MaskOptions()) -> Located:
    """Everything that can be judged in a stream of generations; ValueError where nothing has a region and an outside."""
    found = Located()
    for folder, generations in parts:
        if generations.region is not None:
            found.add(folder.name, generations, patterns, options)
    if not found.about:
        raise ValueError("No generation has a planted region and an outside: maps are judged on local plants (collect with --planted).")
    return found


def judged_rows(located: Located, options: MaskOptions = MaskOptions()) -> pd.DataFrame:
    """run, plant_id, kind, shape, seed, caption, map, auc, iou: one row for each generation and map.

    iou: overlap of local plants with their region, by default at a threshold chosen on other plants of the same run; NaN for other kinds.
    """
    about = pd.DataFrame(located.about)
    regions = torch.cat(located.regions)
    frames = []
    for name, parts in located.soft.items():
        values = torch.cat(parts).float()
        overlap = np.full(len(about), np.nan)
        for _, rows in about[about["kind"].isin(TRUE_KINDS)].groupby("run"):
            index = torch.from_numpy(rows.index.to_numpy())
            overlap[rows.index] = options.overlap(values[index], regions[index], rows["plant_id"].tolist())
        frames.append(about.assign(map=name, auc=map_auc(values, regions).numpy(), iou=overlap))
    return pd.concat(frames, ignore_index=True)


def means(values: np.ndarray, seed: int = 0) -> np.ndarray:
    """Mean over plants, and over bootstrap samples of them: [1 + R]."""
    drawn = np.random.default_rng(seed).choice(values, size=(NUM_RESAMPLES, len(values))).mean(1)
    return np.append(values.mean(), drawn)


def localization_table(rows: pd.DataFrame, by: Sequence[str] = ("kind",)) -> pd.DataFrame:
    """Mean over plants (of the mean over seeds), runs first: map, *by, metric, value, low, high, plants, runs.

    by: kind, or kind and shape. Intervals: 95 %, runs resampled first and plants within runs second.
    """
    plants = rows.groupby(["map", *by, "run", "plant_id"], sort=False)[["auc", "iou"]].mean().reset_index()
    found = []
    for key, some in plants.groupby(["map", *by], sort=False):
        about = dict(zip(["map", *by], key if isinstance(key, tuple) else (key,), strict=True))
        for metric in ("auc", "iou"):
            each = [part[metric].dropna().to_numpy() for _, part in some.groupby("run")]
            each = [values for values in each if len(values)]
            if each:
                value, low, high = over_runs([means(values) for values in each])
                count = sum(map(len, each))
                found.append(about | {"metric": metric, "value": value, "low": low, "high": high, "plants": count, "runs": len(each)})
    return pd.DataFrame(found)


def examples(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """The generations of local plants that one map locates best, middling and worst: three rows, in this order."""
    some = rows[(rows["map"] == name) & rows["kind"].isin(TRUE_KINDS)].sort_values("auc", ascending=False, kind="stable")
    return some.iloc[[0, len(some) // 2, len(some) - 1]]
