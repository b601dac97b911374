"""Tables of how well scores detect copies: each metric by its named rule, with intervals (docs/methods.md#detection-metrics)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from afterglow.errors import AfterglowError
from afterglow.functional.roc import METRICS, resampled_metrics
from afterglow.functional.statistics import bootstrap_runs, exact_at_bounds
from afterglow.measures.registry import is_detector

Seeds = Mapping[Any, int | str]
NO_SEEDS: Seeds = MappingProxyType({})


@dataclass(frozen=True)
class Samples:
    """Scores of positives [P] and of negatives [N], and the plant of each."""

    scores: tuple[np.ndarray, np.ndarray]
    plants: tuple[np.ndarray, np.ndarray]


def prompt_scores(rows: pd.DataFrame, num_images: int) -> pd.DataFrame:
    """Mean score over the first samples of each prompt, the authors' aggregation: columns run, kind, plant_id, measure, value.

    Args:
        rows: tidy measurements with a column run.
        num_images: samples per prompt; prompts with fewer are left out.
    """
    keys = ["run", "kind", "plant_id", "measure"]
    ordered = rows.sort_values("seed").groupby(keys, sort=True)
    first = ordered.head(num_images).groupby(keys, sort=True)["value"].agg(["mean", "size"]).reset_index()
    return first[first["size"] == num_images].rename(columns={"mean": "value"}).drop(columns="size")


def detection_table(
    rows: pd.DataFrame, detectors: Sequence[str], pairs: Sequence[tuple[str, str]], num_images: Sequence[int], seeds: Seeds = NO_SEEDS
) -> pd.DataFrame:
    """Label set (i): planted (or listed) prompts against each kind of negative.

    Args:
        rows: tidy measurements with a column run.
        detectors: names of scores.
        pairs: (positive kind, negative kind).
        num_images: numbers of samples per prompt.
        seeds: {run: training seed}, which intervals resample first; a run that is not listed has its own seed.

    Returns:
        One row per detector, pair, number of samples and metric: detector, positive, negative, images, metric, value, low, high,
        positives, negatives, runs.
    """
    table = []
    for count in num_images:
        prompts = prompt_scores(rows[rows["measure"].isin(detectors)], count)
        for detector, of_detector in prompts.groupby("measure", sort=False):
            for positive, negative in pairs:
                samples = {run: _samples(part, part["kind"], positive, negative) for run, part in of_detector.groupby("run")}
                columns = {"detector": detector, "positive": positive, "negative": negative, "images": count}
                table += _metric_rows(samples, columns, seeds)
    return pd.DataFrame(table)


def memorized_table(rows: pd.DataFrame, detectors: Sequence[str], seeds: Seeds = NO_SEEDS) -> pd.DataFrame:
    """Label set (ii): memorized samples against all others, with plants that are not memorized yet among the negatives.

    Intervals resample prompts of each class, not samples, since a prompt's seeds are not independent: a prompt counts once in each
    class in which it has samples, with their mean score. Arguments and columns as in `detection_table`; images is 0.
    """
    table = []
    copied = rows[rows["measure"] == "memorized"].set_index(["run", "plant_id", "seed"])["value"] > 0.5
    for detector in detectors:
        scores = rows[rows["measure"] == detector].set_index(["run", "plant_id", "seed"])
        if not len(scores):
            continue
        scores = scores.assign(copied=copied.reindex(scores.index)).dropna(subset="copied").reset_index()
        means = scores.groupby(["run", "plant_id", "copied"])["value"].mean().reset_index()
        samples = {run: _samples(part, part["copied"].astype(bool), True, False) for run, part in means.groupby("run")}
        table += _metric_rows(samples, {"detector": detector, "positive": "memorized", "negative": "rest", "images": 0}, seeds)
    return pd.DataFrame(table)


def _samples(rows: pd.DataFrame, labels: pd.Series, positive: Any, negative: Any) -> Samples:
    classes = rows[labels == positive], rows[labels == negative]
    scores, plants = ([part[column].to_numpy() for part in classes] for column in ("value", "plant_id"))
    return Samples((scores[0], scores[1]), (plants[0], plants[1]))


def _metric_rows(samples: Mapping[Any, Samples], columns: dict[str, Any], seeds: Seeds) -> list[dict[str, Any]]:
    """Rows of each metric that all runs have, mean over runs; runs without positives or negatives are left out."""
    pairs = {run: found for run, found in samples.items() if all(map(len, found.scores))}
    resampled = [resampled_metrics(*found.scores, found.plants) for found in pairs.values()]
    sizes = [[len(scores) for scores in found.scores] for found in pairs.values()]
    counts = {"positives": sum(p for p, _ in sizes), "negatives": sum(n for _, n in sizes), "runs": len(pairs)}
    labels = [seeds.get(run, run) for run in pairs]
    # pairs of a positive and a negative without a common member; runs of one seed share their plants
    disjoint = pd.Series([min(pair) for pair in sizes], dtype=int).groupby(labels).max().sum() if pairs else 0
    table = []
    for metric in METRICS if pairs else ():
        if all(metric in values for values in resampled):
            estimate = exact_at_bounds(bootstrap_runs([values[metric] for values in resampled], labels), disjoint)
            table.append(columns | {"metric": metric, **vars(estimate)} | counts)
    return table


def evaluate_detectors(
    rows: pd.DataFrame,
    detectors: Sequence[str] | None,
    pairs: Sequence[tuple[str, str]],
    num_images: Sequence[int],
    seeds: Seeds = NO_SEEDS,
) -> pd.DataFrame:
    """`detection_table` and `memorized_table` of some detectors (None: all).

    Raises:
        AfterglowError: a detector has no rows, or no pair of kinds is present.
    """
    known = list(dict.fromkeys(rows["measure"]))
    names = list(detectors) if detectors else [name for name in known if is_detector(name)]
    if missing := [name for name in names if name not in known]:
        raise AfterglowError(f"The files have no measure '{missing[0]}'; they have {', '.join(known[:12])} ...")
    tables = [detection_table(rows, names, pairs, num_images, seeds), memorized_table(rows, names, seeds)]
    table = pd.concat([part for part in tables if len(part)] or [pd.DataFrame()], ignore_index=True)
    if not len(table):
        kinds = ", ".join(sorted(set(rows["kind"])))
        counts = f"with {' or '.join(map(str, num_images))} generations each"
        raise AfterglowError(f"The files contain no prompts of a pair of positives and negatives {counts}; they have the kinds {kinds}.")
    return table
