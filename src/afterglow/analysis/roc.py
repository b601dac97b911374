"""How well a score tells memorized from not (METHODS (l)): higher scores mean memorized."""

import numpy as np
from sklearn.metrics import auc, roc_curve


def detection(positives: np.ndarray, negatives: np.ndarray) -> dict[str, float]:
    """auc, f1 (largest over thresholds) and tpr_at_1fpr of two samples of scores; the latter is absent with fewer than 100 negatives.

    tpr_at_1fpr: at the largest false-positive rate that stays under 1 % (Wen's rule).
    """
    truth = np.concatenate([np.ones(len(positives)), np.zeros(len(negatives))])
    score = np.concatenate([positives, negatives])
    # all thresholds: scikit-learn leaves out those on a straight piece of the curve, and with them the ones asked for
    false_rate, true_rate, _ = roc_curve(truth, score, drop_intermediate=False)
    hits, alarms = true_rate * len(positives), false_rate * len(negatives)
    found = {"auc": float(auc(false_rate, true_rate)), "f1": float(np.max(2 * hits / (len(positives) + hits + alarms)))}
    if len(negatives) >= 100:
        found["tpr_at_1fpr"] = float(true_rate[np.flatnonzero(false_rate < 0.01)[-1]])
    return found
