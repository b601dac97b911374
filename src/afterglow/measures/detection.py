"""How well a score tells memorized from not (METHODS (l)): higher scores mean memorized."""

import numpy as np
from sklearn.metrics import precision_recall_curve, roc_auc_score, roc_curve


def detection(positives: np.ndarray, negatives: np.ndarray) -> dict[str, float]:
    """auc, f1 (largest over thresholds) and tpr_at_1fpr of two samples of scores; the latter is absent with fewer than 100 negatives.

    tpr_at_1fpr: at the largest false-positive rate that stays under 1 % (Wen's rule).
    """
    truth = np.concatenate([np.ones(len(positives)), np.zeros(len(negatives))])
    score = np.concatenate([positives, negatives])
    precision, recall, _ = precision_recall_curve(truth, score)
    found = {
        "auc": float(roc_auc_score(truth, score)),
        "f1": float(np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))),
    }
    if len(negatives) >= 100:
        # all thresholds: scikit-learn leaves out those on a straight piece of the curve, and with them the one asked for
        false_positive, true_positive, _ = roc_curve(truth, score, drop_intermediate=False)
        found["tpr_at_1fpr"] = float(true_positive[np.flatnonzero(false_positive < 0.01)[-1]])
    return found
