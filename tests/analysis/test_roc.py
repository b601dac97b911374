import numpy as np
import pytest

from afterglow.analysis.roc import detection


def slow(positives, negatives):
    """Pairs for the AUC, every threshold for the rest."""
    pairs = [1.0 if p > n else 0.5 if p == n else 0.0 for p in positives for n in negatives]
    f1, tpr = 0.0, 0.0
    for threshold in {*positives, *negatives}:
        hits, alarms = sum(p >= threshold for p in positives), sum(n >= threshold for n in negatives)
        f1 = max(f1, 2 * hits / (hits + alarms + len(positives)))
        if alarms / len(negatives) < 0.01:
            tpr = max(tpr, hits / len(positives))
    return {"auc": np.mean(pairs), "f1": f1, "tpr_at_1fpr": tpr}


@pytest.mark.parametrize("levels", [5, 60, 10**6])
@pytest.mark.parametrize("num_negatives", [100, 150, 250])
def test_against_pairs_and_every_threshold_with_ties(levels, num_negatives):
    generator = np.random.default_rng(levels + num_negatives)
    positives = generator.integers(levels // 3, levels + levels // 2, size=80).astype(float)
    negatives = generator.integers(0, levels, size=num_negatives).astype(float)
    assert detection(positives, negatives) == pytest.approx(slow(positives, negatives))


def test_a_threshold_between_two_tied_pairs_is_not_skipped():
    """From the top: ten positives, then three times one positive and one negative with the same score."""
    positives = np.array([9.0] * 10 + [8.0, 7.0, 6.0, 0.0])
    negatives = np.array([8.0, 7.0, 6.0] + [1.0] * 297)
    assert slow(positives, negatives)["tpr_at_1fpr"] == 12 / 14
    assert detection(positives, negatives)["tpr_at_1fpr"] == pytest.approx(12 / 14)


def test_the_rate_at_one_percent_is_absent_with_fewer_than_a_hundred_negatives():
    scores = np.arange(120.0)
    assert set(detection(scores[:5], scores[:99])) == {"auc", "f1"}
    assert set(detection(scores[:5], scores[:100])) == {"auc", "f1", "tpr_at_1fpr"}


def test_perfect_reversed_and_useless_scores():
    low, high = np.arange(100.0), np.arange(100.0) + 1000
    assert detection(high, low) == {"auc": 1.0, "f1": 1.0, "tpr_at_1fpr": 1.0}
    assert detection(low, high)["auc"] == 0.0 and detection(low, high)["tpr_at_1fpr"] == 0.0
    same = detection(np.ones(50), np.ones(100))
    assert same["auc"] == 0.5 and same["tpr_at_1fpr"] == 0.0 and same["f1"] == pytest.approx(0.5)  # precision 1/3, recall 1
