import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score
from sklearn.metrics import roc_curve as sklearn_curve

from afterglow.functional.roc import (
    balanced_accuracy,
    detection_metrics,
    f1_held_out,
    f1_scores,
    resampled_metrics,
    roc_auc,
    roc_curve,
    stratified_weights,
    tpr_nearest,
    tpr_under,
)
from afterglow.functional.statistics import NUM_RESAMPLES, bootstrap_runs


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
    assert detection_metrics(positives, negatives) == pytest.approx(slow(positives, negatives))


def test_a_threshold_between_two_tied_pairs_is_not_skipped():
    """From the top: ten positives, then three times one positive and one negative with the same score."""
    positives = np.array([9.0] * 10 + [8.0, 7.0, 6.0, 0.0])
    negatives = np.array([8.0, 7.0, 6.0] + [1.0] * 297)
    assert slow(positives, negatives)["tpr_at_1fpr"] == 12 / 14
    assert detection_metrics(positives, negatives)["tpr_at_1fpr"] == pytest.approx(12 / 14)


def test_the_rate_at_one_percent_is_absent_with_fewer_than_a_hundred_negatives():
    scores = np.arange(120.0)
    assert set(detection_metrics(scores[:5], scores[:99])) == {"auc", "f1"}
    assert set(detection_metrics(scores[:5], scores[:100])) == {"auc", "f1", "tpr_at_1fpr"}


def test_perfect_reversed_and_useless_scores():
    low, high = np.arange(100.0), np.arange(100.0) + 1000
    assert detection_metrics(high, low) == {"auc": 1.0, "f1": 1.0, "tpr_at_1fpr": 1.0}
    assert detection_metrics(low, high)["auc"] == 0.0 and detection_metrics(low, high)["tpr_at_1fpr"] == 0.0
    same = detection_metrics(np.ones(50), np.ones(100))
    assert same["auc"] == 0.5 and same["tpr_at_1fpr"] == 0.0 and same["f1"] == pytest.approx(0.5)  # precision 1/3, recall 1


def sample(levels, seed=0, positives=70, negatives=130):
    generator = np.random.default_rng(seed)
    truth = np.arange(positives + negatives) < positives
    return generator.integers(0, levels, len(truth)) + generator.integers(0, levels, len(truth)) * truth, truth


@pytest.mark.parametrize("levels", [2, 7, 10**6])
def test_every_metric_against_scikit_learn(levels):
    scores, truth = sample(levels)
    scores = scores.astype(float)
    c = roc_curve(scores, truth)
    assert roc_auc(c)[0] == pytest.approx(roc_auc_score(truth, scores))
    false_rate, true_rate, thresholds = sklearn_curve(truth, scores, drop_intermediate=False)
    np.testing.assert_allclose(np.stack(c.rates)[:, 0], [false_rate, true_rate])
    np.testing.assert_array_equal(c.thresholds[1:], thresholds[1:])
    assert f1_scores(c).max() == pytest.approx(max(f1_score(truth, scores >= t, zero_division=0) for t in thresholds))
    assert balanced_accuracy(c)[0] == pytest.approx((1 - (false_rate + 1 - true_rate) / 2).max())
    assert tpr_under(c)[0] == true_rate[np.flatnonzero(false_rate < 0.01)[-1]]
    assert tpr_nearest(c)[0] == true_rate[np.abs(false_rate - 0.01).argmin()]


def test_the_two_rules_for_one_percent_differ_where_no_threshold_is_under_it():
    scores = np.concatenate([np.full(10, 5.0), np.full(100, 1.0), [6.0, 6.0]])  # two negatives are above every positive
    c = roc_curve(scores, np.arange(112) < 10)
    assert tpr_under(c)[0] == 0.0 and tpr_nearest(c)[0] == 0.0  # 0 and 2 of 102 are as near to 1 %: the first
    c = roc_curve(np.append(scores[:-1], 1.0), np.arange(112) < 10)
    assert tpr_under(c)[0] == 1.0 and tpr_nearest(c)[0] == 0.0  # 1 of 102 is under .01


def test_weights_are_repeated_prompts():
    scores, truth = sample(9, seed=3)
    weights = np.random.default_rng(0).integers(0, 3, (4, len(scores))).astype(float)
    c = roc_curve(scores, truth, weights)
    for row, counts in enumerate(weights.astype(int)):
        again = roc_curve(np.repeat(scores, counts), np.repeat(truth, counts))
        assert roc_auc(c)[row] == pytest.approx(roc_auc(again)[0])
        assert f1_scores(c)[row].max() == pytest.approx(f1_scores(again).max())
        assert tpr_under(c)[row] == pytest.approx(tpr_under(again)[0]) and tpr_nearest(c)[row] == pytest.approx(tpr_nearest(again)[0])


def test_the_held_out_f1_uses_the_other_halfs_threshold():
    scores, truth = sample(30, seed=5)
    halves = np.arange(len(scores)) % 2
    expected = []
    for evaluated in (0, 1):
        mine, other = halves == evaluated, halves != evaluated
        best = max(sorted(set(scores[other].tolist()), reverse=True), key=lambda t: f1_score(truth[other], scores[other] >= t))
        expected.append(f1_score(truth[mine], scores[mine] >= best))
    found = f1_held_out(scores.astype(float), truth, halves, np.ones((1, len(scores))))
    assert found[0] == pytest.approx(np.mean(expected)) and found[0] <= f1_scores(roc_curve(scores, truth)).max()


def test_resamples_keep_the_number_of_each_class_in_each_half():
    truth, halves = np.arange(30) < 11, np.arange(30) % 2
    weights = stratified_weights(truth, halves)
    assert (weights[0] == 1).all() and weights.shape == (1 + NUM_RESAMPLES, 30)
    for label in (False, True):
        for half in (0, 1):
            members = (truth == label) & (halves == half)
            assert (weights[:, members].sum(1) == members.sum()).all()
    assert weights[1:].std() > 0.5


def test_intervals_hold_the_value_and_an_interval_of_a_useless_score_holds_chance():
    generator = np.random.default_rng(1)
    useless = resampled_metrics(generator.random(40), generator.random(60))["auc"]
    low, high = np.quantile(useless[1:], [0.025, 0.975])
    assert low < 0.5 < high and low < useless[0] < high
    assert 0.08 < high - low < 0.35
    perfect = resampled_metrics(np.arange(10.0) + 100, np.arange(120.0) / 2)
    assert all((perfect[name] == 1).all() for name in ("auc", "f1", "balanced_accuracy", "tpr_at_1fpr_under"))
    # of thresholds with equally near rates the nearest rule takes the first: at an FPR of 0 that is the one that calls nothing
    assert perfect["tpr_at_1fpr_nearest"][0] == 1 and set(perfect["tpr_at_1fpr_nearest"].tolist()) == {0.0, 1.0}
    assert "tpr_at_1fpr_under" not in resampled_metrics(np.ones(4), np.zeros(99)) and "f1_held_out" not in resampled_metrics(
        np.ones(1), np.zeros(99)
    )


def test_runs_are_resampled_first():
    each = [np.full(1001, value) for value in (0.2, 0.8)]  # no spread inside a run
    value, low, high = vars(bootstrap_runs(each)).values()
    assert value == 0.5 and low == pytest.approx(0.2) and high == pytest.approx(0.8)
