"""ROC curves of detectors, their metrics by named rules, and bootstrap resamples of both (docs/methods.md#detection-metrics).

Scores are high for positives. W is the number of weightings of the samples: a resample is a row of integer weights.
"""

from dataclasses import dataclass

import numpy as np

from afterglow.functional.statistics import NUM_RESAMPLES, random_folds

METRICS = ("auc", "f1", "f1_held_out", "balanced_accuracy", "tpr_at_1fpr_under", "tpr_at_1fpr_nearest")
MIN_NEGATIVES = 100  # fewer negatives cannot show a false-positive rate of 1 %


@dataclass(frozen=True)
class RocCurve:
    """True and false positives at each threshold, from no sample called positive to all: float [W, K + 1] for K distinct scores.

    positives, negatives: totals, [W]. thresholds: [K + 1]; a score of at least the threshold is called positive; the first is infinite.
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


def roc_curve(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> RocCurve:
    """ROC curve of a score; equal scores share a threshold.

    Args:
        scores: float [N].
        labels: bool [N].
        weights: [W, N]; by default one row of ones.

    >>> roc_auc(roc_curve(np.array([3.0, 2.0, 1.0]), np.array([True, False, True])))
    array([0.5])
    """
    weights = np.ones((1, len(scores))) if weights is None else weights
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    ends = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)  # last of each run of equal scores
    hits, alarms = (np.cumsum(weights[:, order] * members[order], axis=1)[:, ends] for members in (labels, ~labels))
    hits, alarms = (np.pad(counts, ((0, 0), (1, 0))) for counts in (hits, alarms))
    return RocCurve(hits, alarms, (weights * labels).sum(1), (weights * ~labels).sum(1), np.append(np.inf, ordered[ends]))


def roc_auc(curve: RocCurve) -> np.ndarray:
    """Area under the curve by trapezoids, [W]: ties count half."""
    x, y = curve.rates
    return ((x[:, 1:] - x[:, :-1]) * (y[:, 1:] + y[:, :-1]) / 2).sum(1)


def f1_scores(curve: RocCurve) -> np.ndarray:
    """2 TP / (2 TP + FP + FN) at each threshold, [W, K + 1]."""
    return 2 * curve.true_positives / np.maximum(1e-12, curve.true_positives + curve.false_positives + curve.positives[:, None])


def balanced_accuracy(curve: RocCurve) -> np.ndarray:
    """Largest 1 - (FPR + 1 - TPR) / 2 over thresholds, [W]; Wen's rule chooses the threshold on the evaluated sample itself."""
    x, y = curve.rates
    return (1 - (x + 1 - y) / 2).max(1)


def tpr_under(curve: RocCurve, limit: float = 0.01) -> np.ndarray:
    """TPR at the last threshold whose FPR is below the limit, [W] (Wen's rule: strict and conservative)."""
    x, y = curve.rates
    return np.where(x < limit, y, 0).max(1)


def tpr_nearest(curve: RocCurve, limit: float = 0.01) -> np.ndarray:
    """TPR at the first threshold whose FPR is nearest to the limit, [W] (Ren's rule: the FPR may exceed the limit)."""
    x, y = curve.rates
    return np.take_along_axis(y, np.abs(x - limit).argmin(1)[:, None], axis=1)[:, 0]


def f1_held_out(scores: np.ndarray, labels: np.ndarray, folds: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """F1 of each fold at the threshold that is best on the other, mean of both, [W]. folds: 0 or 1 for each sample, [N]."""
    found = []
    for inside in (folds == 0, folds == 1):
        chooser = roc_curve(scores[~inside], labels[~inside], weights[:, ~inside])
        threshold = chooser.thresholds[f1_scores(chooser).argmax(1)]
        called = scores[inside][None] >= threshold[:, None]
        hits = (weights[:, inside] * (called & labels[inside])).sum(1)
        all_called, positives = (weights[:, inside] * called).sum(1), (weights[:, inside] * labels[inside]).sum(1)
        found.append(2 * hits / np.maximum(1e-12, all_called + positives))
    return np.mean(found, axis=0)


def stratified_weights(labels: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Weights [1 + NUM_RESAMPLES, N]: the sample itself, then bootstrap samples drawn within each class of each fold."""
    generator = np.random.default_rng(0)
    weights = np.ones((1 + NUM_RESAMPLES, len(labels)))
    for stratum in (0, 1, 2, 3):
        members = np.flatnonzero(2 * labels + folds == stratum)
        if len(members):
            weights[1:, members] = generator.multinomial(len(members), np.full(len(members), 1 / len(members)), size=NUM_RESAMPLES)
    return weights


def detection_metrics(positives: np.ndarray, negatives: np.ndarray) -> dict[str, float]:
    """AUC, the largest F1 over thresholds, and TPR at 1 % FPR (`tpr_under`; absent with fewer than 100 negatives) of two samples.

    >>> detection_metrics(np.array([2.0, 3.0]), np.array([0.0, 1.0]))
    {'auc': 1.0, 'f1': 1.0}
    """
    scores = np.concatenate([positives, negatives])
    curve = roc_curve(scores, np.arange(len(scores)) < len(positives))
    found = {"auc": roc_auc(curve), "f1": f1_scores(curve).max(1)}
    if len(negatives) >= MIN_NEGATIVES:
        found["tpr_at_1fpr"] = tpr_under(curve)
    return {name: float(value[0]) for name, value in found.items()}


def resampled_metrics(
    positives: np.ndarray, negatives: np.ndarray, plants: tuple[np.ndarray, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """Each metric of METRICS for two samples of scores, and its bootstrap resamples, float [1 + NUM_RESAMPLES].

    The folds of `f1_held_out` are `random_folds`. The TPR at 1 % FPR is absent with fewer than 100 negatives, the held-out F1 where a
    fold lacks a class.

    Args:
        positives: scores, [P].
        negatives: scores, [N].
        plants: the plant of each positive and of each negative; default: each sample is another plant.
    """
    scores = np.concatenate([positives, negatives])
    labels = np.arange(len(scores)) < len(positives)
    folds = np.concatenate(random_folds(*(plants or (np.arange(len(positives)), len(positives) + np.arange(len(negatives))))))
    weights = stratified_weights(labels, folds)
    curve = roc_curve(scores, labels, weights)
    found = {"auc": roc_auc(curve), "f1": f1_scores(curve).max(1), "balanced_accuracy": balanced_accuracy(curve)}
    if len(np.unique(2 * labels + folds)) == 4:
        found["f1_held_out"] = f1_held_out(scores, labels, folds, weights)
    if len(negatives) >= MIN_NEGATIVES:
        found |= {"tpr_at_1fpr_under": tpr_under(curve), "tpr_at_1fpr_nearest": tpr_nearest(curve)}
    return found
