"""Tables of how well maps locate planted regions: AUC, and IoU at a held-out threshold (docs/methods.md#localization-metrics)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from afterglow.analysis.detection import NO_SEEDS, Seeds
from afterglow.analysis.summary import INVERTED, INVERTIBLE
from afterglow.errors import AfterglowError
from afterglow.functional.localization import held_out_iou, map_auc, permuted_auc, prior_auc, shape_class
from afterglow.functional.pixels import resize
from afterglow.functional.statistics import bootstrap_runs, exact_at_bounds, resample
from afterglow.generations import Generations
from afterglow.kinds import NOT_MEMORIZED
from afterglow.measures.registry import COPY_MEASURES, available_maps, compute_measures, filter_measures
from afterglow.measures.tables import rows_with_region

TRUE_KINDS = ("local", "natural")
MAP_METRICS = ("auc", "permuted_auc", "iou")
MASK_PRIOR = "mask_prior"


@dataclass
class CollectedMaps:
    """Maps of the samples that have a region and an outside, at image size.

    samples: run, plant_id, kind, shape, seed, caption, memorized of each; images: uint8 [B, C, H, W] per part; regions: bool
    [B, 1, H, W] per part; maps: {name: [B, H, W] per part}.
    """

    samples: list[dict[str, Any]] = field(default_factory=list)
    images: list[Tensor] = field(default_factory=list)
    regions: list[Tensor] = field(default_factory=list)
    maps: dict[str, list[Tensor]] = field(default_factory=dict)

    def add(self, run: str, generations: Generations, patterns: Sequence[str]) -> None:
        """Compute and keep the maps of one part of a collection."""
        rows = rows_with_region(generations)
        if not len(rows):
            return
        part = generations[rows]
        assert part.region is not None and part.plant_id is not None
        copied = compute_measures(part, filter_measures(COPY_MEASURES, ["memorized"])).get("memorized", torch.full((len(part),), torch.nan))
        columns = zip(part.plant_id.tolist(), part.kind, part.shape, part.seed.tolist(), part.caption, copied.tolist(), strict=True)
        names = ("plant_id", "kind", "shape", "seed", "caption", "memorized")
        self.samples += [{"run": run} | dict(zip(names, of_sample, strict=True)) for of_sample in columns]
        self.images.append(part.images)
        self.regions.append(part.region)
        for name, values in compute_measures(part, filter_measures(available_maps(part), patterns)).items():
            self.maps.setdefault(name, []).append(resize(values.float(), part.images.shape[-2:]))


def collect_maps(parts: Iterable[tuple[Path, Generations]], patterns: Sequence[str] = ("*",)) -> CollectedMaps:
    """Compute maps for all parts of collections. parts: as `read_parts` yields them; patterns: names of maps, with shell wildcards.

    Raises:
        AfterglowError: no sample has a region and an outside.
    """
    collected = CollectedMaps()
    for folder, generations in parts:
        collected.add(folder.name, generations, patterns)
    if not collected.samples:
        raise AfterglowError("No sample has a planted region and an outside: maps are evaluated on local plants (collect with --run).")
    return collected


def map_rows(collected: CollectedMaps) -> pd.DataFrame:
    """AUC and IoU of each sample and map: columns run, plant_id, kind, shape, seed, caption, memorized, map, auc, permuted_auc, iou.

    Local plants of which fewer than half of the samples are memorized have the kind NOT_MEMORIZED, as in `summary.plant_means`.
    Of local plants only, within one run and NaN with one plant: permuted_auc, against the masks of other plants of the shape class; iou,
    at a threshold chosen on other plants. Controls are maps of their own: trivial maps with the opposite sign (NAME.inverted), and the
    mean of the other plants' masks (mask_prior).
    """
    samples = pd.DataFrame(collected.samples)
    regions = torch.cat(collected.regions)
    local = []  # rows of the local plants of each run, their numbers and shape classes
    for _, rows in samples[samples["kind"].isin(TRUE_KINDS)].groupby("run"):
        if rows["plant_id"].nunique() > 1:
            local.append((rows.index.to_numpy(), rows["plant_id"].tolist(), rows["shape"].map(shape_class).tolist()))
    share = samples.groupby(["run", "plant_id"])["memorized"].transform("mean")
    samples["kind"] = samples["kind"].mask((samples["kind"] == "local") & (share < 0.5), NOT_MEMORIZED)
    frames = []
    for name, parts in collected.maps.items():
        values = torch.cat(parts)
        overlap, permuted = np.full((2, len(samples)), np.nan)
        for index, plants, shapes in local:
            overlap[index] = held_out_iou(values[index], regions[index], plants)[0].numpy()
            permuted[index] = permuted_auc(values[index], regions[index], plants, shapes).numpy()
        frames.append(samples.assign(map=name, auc=map_auc(values, regions).numpy(), permuted_auc=permuted, iou=overlap))
        if name in INVERTIBLE:
            frames.append(frames[-1].assign(map=name + INVERTED, auc=1 - frames[-1]["auc"], permuted_auc=1 - permuted, iou=np.nan))
    for index, plants, _ in local:
        priors = {"map": MASK_PRIOR, "auc": prior_auc(regions[index], plants).numpy(), "permuted_auc": np.nan, "iou": np.nan}
        frames.append(samples.iloc[index].assign(**priors))
    return pd.concat(frames, ignore_index=True)


def chosen_layers(rows: pd.DataFrame, seeds: Seeds = NO_SEEDS, prefix: str = "end_token.") -> pd.DataFrame:
    """For each training seed the map with a prefix that is best on the local plants of the other seeds, and its AUC on this seed.

    Returns:
        Columns seed, map, auc; empty with one seed or without such a map.
    """
    own = rows[rows["kind"].isin(TRUE_KINDS) & rows["map"].str.startswith(prefix)]
    own = own.assign(training=[seeds.get(run, run) for run in own["run"]])
    means = own.groupby(["map", "training", "run", "plant_id"])["auc"].mean().groupby(["map", "training"]).mean().unstack()
    chosen = [(seed, means.drop(columns=seed).mean(axis=1).idxmax()) for seed in means.columns] if means.shape[1] > 1 else []
    return pd.DataFrame([(seed, name, means.loc[name, seed]) for seed, name in chosen], columns=["seed", "map", "auc"])


def localization_table(rows: pd.DataFrame, by: Sequence[str] = ("kind",), seeds: Seeds = NO_SEEDS) -> pd.DataFrame:
    """Mean over plants (of the mean over seeds) and runs; intervals resample training seeds, then runs, then plants.

    Args:
        rows: as `map_rows` returns them.
        by: kind, or kind and shape.
        seeds: {run: training seed}; a run that is not listed has its own seed.

    Returns:
        Columns map, *by, metric, value, low, high, plants, runs.
    """
    plants = rows.groupby(["map", *by, "run", "plant_id"], sort=False)[list(MAP_METRICS)].mean().reset_index()
    table = []
    for key, part in plants.groupby(["map", *by], sort=False):
        columns = dict(zip(["map", *by], key if isinstance(key, tuple) else (key,), strict=True))
        for metric in MAP_METRICS:
            runs = {run: values.to_numpy() for run, values in part.dropna(subset=metric).groupby("run")[metric]}
            if runs:
                labels, sizes = [seeds.get(run, run) for run in runs], [len(values) for values in runs.values()]
                estimate = bootstrap_runs([resample(values) for values in runs.values()], labels)
                distinct = int(pd.Series(sizes).groupby(labels).max().sum())  # runs of one seed share their plants
                estimate = exact_at_bounds(estimate, distinct)
                table.append(columns | {"metric": metric, **vars(estimate), "plants": sum(sizes), "runs": len(runs)})
    return pd.DataFrame(table)


def example_rows(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """The samples of local plants with the highest, middle and lowest AUC of one map: three rows, in this order."""
    of_local = rows[(rows["map"] == name) & rows["kind"].isin((*TRUE_KINDS, NOT_MEMORIZED))]
    ordered = of_local.sort_values("auc", ascending=False, kind="stable")
    return ordered.iloc[[0, len(ordered) // 2, len(ordered) - 1]]
