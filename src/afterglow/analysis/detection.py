"""The bench that detectors are judged on (METHODS (l)): every metric by its named rule, with intervals, ties counted as they fall.

Scores high for positives. W: resamples, as integer weights of prompts; the first row of weights is the sample itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from afterglow.measures.registry import is_detector

NUM_RESAMPLES = 1000
METRICS = ("auc", "f1", "f1_held_out", "balanced_accuracy", "tpr_at_1fpr_under", "tpr_at_1fpr_nearest")


@dataclass(frozen=True)
class Curve:
    """True and false positives at every threshold, from none called positive to all: [W, K + 1] each, K distinct scores.

    positives, negatives: their totals, [W]. thresholds: [K + 1], a score is called positive from the threshold on; the first is infinite.
    """

    true_positives: np.ndarray
    false_positives: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray
    thresholds: np.ndarray

    @property
    def rates(self) -> tuple[np.ndarray, np.ndarray]:
        """False-positive and true-positive rate, [W, K + 1]."""
        return self.false_positives / self.negatives[:, None], self.true_positives / self.positives[:, None]


def curve(scores: np.ndarray, truth: np.ndarray, weights: np.ndarray | None = None) -> Curve:
    """scores: [N]; truth: bool [N]; weights: [W, N], all ones by default. Equal scores share a threshold."""
    weights = np.ones((1, len(scores))) if weights is None else weights
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    ends = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)  # last of each run of equal scores
    hits, alarms = (np.cumsum(weights[:, order] * chosen[order], axis=1)[:, ends] for chosen in (truth, ~truth))
    hits, alarms = (np.pad(counts, ((0, 0), (1, 0))) for counts in (hits, alarms))
    return Curve(hits, alarms, (weights * truth).sum(1), (weights * ~truth).sum(1), np.append(np.inf, ordered[ends]))


def area(c: Curve) -> np.ndarray:
    """Area under the ROC curve by trapezoids, [W]: ties count half."""
    x, y = c.rates
    return ((x[:, 1:] - x[:, :-1]) * (y[:, 1:] + y[:, :-1]) / 2).sum(1)


def f1_scores(c: Curve) -> np.ndarray:
    """2 TP / (2 TP + FP + FN) at every threshold, [W, K + 1]."""
    return 2 * c.true_positives / np.maximum(1e-12, c.true_positives + c.false_positives + c.positives[:, None])


def balanced_accuracy(c: Curve) -> np.ndarray:
    """Max 1 - (FPR + 1 - TPR) / 2 over thresholds, [W] (Wen's notebook: the threshold is chosen on the sample it is judged on)."""
    x, y = c.rates
    return (1 - (x + 1 - y) / 2).max(1)


def tpr_under(c: Curve, limit: float = 0.01) -> np.ndarray:
    """TPR at the last threshold whose FPR is under the limit, [W] (Wen's rule: strict, conservative)."""
    x, y = c.rates
    return np.where(x < limit, y, 0).max(1)


def tpr_nearest(c: Curve, limit: float = 0.01) -> np.ndarray:
    """TPR at the threshold whose FPR is nearest to the limit, the first of equals, [W] (Ren's rule: it may exceed the limit)."""
    x, y = c.rates
    return np.take_along_axis(y, np.abs(x - limit).argmin(1)[:, None], axis=1)[:, 0]


def f1_held_out(scores: np.ndarray, truth: np.ndarray, halves: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """F1 at the threshold that is best on the other half, mean of both ways, [W]; halves: 0 or 1 of each prompt, by groups."""
    found = []
    for judged in (0, 1):
        mine, other = halves == judged, halves != judged
        chooser = curve(scores[other], truth[other], weights[:, other])
        threshold = chooser.thresholds[f1_scores(chooser).argmax(1)]
        called = scores[mine][None] >= threshold[:, None]
        hits = (weights[:, mine] * (called & truth[mine])).sum(1)
        all_called, positives = (weights[:, mine] * called).sum(1), (weights[:, mine] * truth[mine]).sum(1)
        found.append(2 * hits / np.maximum(1e-12, all_called + positives))
    return np.mean(found, axis=0)


def resamples(truth: np.ndarray, halves: np.ndarray, seed: int = 0) -> np.ndarray:
    """Weights [1 + R, N]: the sample itself, and R bootstrap samples of the prompts of each class in each half."""
    generator = np.random.default_rng(seed)
    weights = np.ones((1 + NUM_RESAMPLES, len(truth)))
    for label in (False, True):
        for half in (0, 1):
            members = np.flatnonzero((truth == label) & (halves == half))
            if len(members):
                drawn = generator.multinomial(len(members), np.full(len(members), 1 / len(members)), size=NUM_RESAMPLES)
                weights[1:, members] = drawn
    return weights


def judge(positives: np.ndarray, negatives: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """Every metric of one detector on one set of prompts, [1 + R] each: the value, and those of the resamples.

    Halves are every other prompt of each class, in the order given. TPR at 1 % FPR is absent with fewer than 100 negatives,
    the held-out F1 with fewer than two prompts of a class.
    """
    scores = np.concatenate([positives, negatives])
    truth = np.arange(len(scores)) < len(positives)
    halves = np.concatenate([np.arange(len(positives)) % 2, np.arange(len(negatives)) % 2])
    weights = resamples(truth, halves, seed)
    c = curve(scores, truth, weights)
    found = {"auc": area(c), "f1": f1_scores(c).max(1), "balanced_accuracy": balanced_accuracy(c)}
    if min(len(positives), len(negatives)) > 1:
        found["f1_held_out"] = f1_held_out(scores, truth, halves, weights)
    if len(negatives) >= 100:
        found |= {"tpr_at_1fpr_under": tpr_under(c), "tpr_at_1fpr_nearest": tpr_nearest(c)}
    return found


def over_runs(each: Sequence[np.ndarray], seed: int = 0) -> tuple[float, float, float]:
    """Mean over runs of one metric and its 95 % interval: runs are resampled first, prompts within runs second. each: [1 + R] a run."""
    values = np.stack(each)
    drawn = np.random.default_rng(seed).integers(len(values), size=(len(values), values.shape[1] - 1))
    means = np.take_along_axis(values[:, 1:], drawn, axis=0).mean(0)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values[:, 0].mean()), float(low), float(high)


def scores_of_prompts(rows: pd.DataFrame, num_images: int) -> pd.DataFrame:
    """Mean over the first `num_images` generations of each prompt (the authors' aggregation): run, kind, shape, plant_id, measure, value.

    rows: tidy, with a column run. Prompts with fewer generations are left out.
    """
    keys = ["run", "kind", "plant_id", "measure"]
    ordered = rows.sort_values("seed").groupby(keys, sort=True)
    first = ordered.head(num_images).groupby(keys, sort=True)["value"].agg(["mean", "size"]).reset_index()
    return first[first["size"] == num_images].rename(columns={"mean": "value"}).drop(columns="size")


def detection_table(
    rows: pd.DataFrame, detectors: Sequence[str], pairs: Sequence[tuple[str, str]], num_images: Sequence[int]
) -> pd.DataFrame:
    """Label set (i): planted (or listed) prompts against each kind of negative, apart: one row for each detector, pair, n and metric.

    Columns: detector, positive, negative, images, metric, value, low, high, positives, negatives, runs.
    """
    found = []
    for count in num_images:
        prompts = scores_of_prompts(rows[rows["measure"].isin(detectors)], count)
        for detector, some in prompts.groupby("measure", sort=False):
            for positive, negative in pairs:
                each = {run: _pair(part, positive, negative) for run, part in some.groupby("run")}
                each = {run: pair for run, pair in each.items() if all(map(len, pair))}
                found += _judged(each, {"detector": detector, "positive": positive, "negative": negative, "images": count})
    return pd.DataFrame(found)


def _pair(rows: pd.DataFrame, positive: str, negative: str) -> tuple[np.ndarray, np.ndarray]:
    kinds = rows["kind"].to_numpy()
    values = rows["value"].to_numpy()
    return values[kinds == positive], values[kinds == negative]


def _judged(each: dict[str, tuple[np.ndarray, np.ndarray]], about: dict) -> list[dict]:
    """Rows of every metric that every run has, mean over runs."""
    if not each:
        return []
    judged = [judge(*pair) for pair in each.values()]
    counts = {"positives": sum(len(p) for p, _ in each.values()), "negatives": sum(len(n) for _, n in each.values()), "runs": len(each)}
    found = []
    for metric in METRICS:
        if all(metric in values for values in judged):
            value, low, high = over_runs([values[metric] for values in judged])
            found.append(about | {"metric": metric, "value": value, "low": low, "high": high} | counts)
    return found


def memorized_table(rows: pd.DataFrame, detectors: Sequence[str]) -> pd.DataFrame:
    """Label set (ii): generations that are memorized against all others, plants not memorized yet among the negatives; as (i).

    Intervals resample prompts of each class, not generations: a prompt's seeds are not independent; here each counts once for
    each class in which it has generations, with their mean score.
    """
    found = []
    copied = rows[rows["measure"] == "memorized"].set_index(["run", "plant_id", "seed"])["value"] > 0.5
    for detector in detectors:
        some = rows[rows["measure"] == detector].set_index(["run", "plant_id", "seed"])
        if not len(some):
            continue
        some = some.assign(copied=copied.reindex(some.index)).dropna(subset="copied").reset_index()
        means = some.groupby(["run", "plant_id", "copied"])["value"].mean().reset_index()
        each = {
            run: tuple(part[part["copied"].astype(bool) == label]["value"].to_numpy() for label in (True, False))
            for run, part in means.groupby("run")
        }
        each = {run: pair for run, pair in each.items() if all(map(len, pair))}
        found += _judged(each, {"detector": detector, "positive": "memorized", "negative": "rest", "images": 0})
    return pd.DataFrame(found)


def both_tables(
    rows: pd.DataFrame, detectors: Sequence[str] | None, pairs: Sequence[tuple[str, str]], num_images: Sequence[int]
) -> pd.DataFrame:
    """Both label sets, of the detectors named (all by default); ValueError where one is not there or nothing can be told apart."""
    known = list(dict.fromkeys(rows["measure"]))
    asked = list(detectors) if detectors else [name for name in known if is_detector(name)]
    if missing := [name for name in asked if name not in known]:
        raise ValueError(f"There is no measure '{missing[0]}' in the files; they have {', '.join(known[:12])} ...")
    tables = [detection_table(rows, asked, pairs, num_images), memorized_table(rows, asked)]
    found = pd.concat([table for table in tables if len(table)] or [pd.DataFrame()], ignore_index=True)
    if not len(found):
        raise ValueError(f"Nothing can be told apart: the files hold the kinds {', '.join(sorted(set(rows['kind'])))} only.")
    return found
