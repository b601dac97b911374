"""The bench against scikit-learn and against plain loops, with ties."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, roc_auc_score, roc_curve

from afterglow.analysis import detection
from afterglow.analysis.detection import (
    area,
    balanced_accuracy,
    curve,
    detection_table,
    f1_held_out,
    f1_scores,
    judge,
    memorized_table,
    over_runs,
    resamples,
    scores_of_prompts,
    tpr_nearest,
    tpr_under,
)


def sample(levels, seed=0, positives=70, negatives=130):
    generator = np.random.default_rng(seed)
    truth = np.arange(positives + negatives) < positives
    return generator.integers(0, levels, len(truth)) + generator.integers(0, levels, len(truth)) * truth, truth


@pytest.mark.parametrize("levels", [2, 7, 10**6])
def test_every_metric_against_scikit_learn(levels):
    scores, truth = sample(levels)
    scores = scores.astype(float)
    c = curve(scores, truth)
    assert area(c)[0] == pytest.approx(roc_auc_score(truth, scores))
    false_rate, true_rate, thresholds = roc_curve(truth, scores, drop_intermediate=False)
    np.testing.assert_allclose(np.stack(c.rates)[:, 0], [false_rate, true_rate])
    np.testing.assert_array_equal(c.thresholds[1:], thresholds[1:])
    assert f1_scores(c).max() == pytest.approx(max(f1_score(truth, scores >= t, zero_division=0) for t in thresholds))
    assert balanced_accuracy(c)[0] == pytest.approx((1 - (false_rate + 1 - true_rate) / 2).max())
    assert tpr_under(c)[0] == true_rate[np.flatnonzero(false_rate < 0.01)[-1]]
    assert tpr_nearest(c)[0] == true_rate[np.abs(false_rate - 0.01).argmin()]


def test_the_two_rules_for_one_percent_differ_where_no_threshold_is_under_it():
    scores = np.concatenate([np.full(10, 5.0), np.full(100, 1.0), [6.0, 6.0]])  # two negatives are above every positive
    c = curve(scores, np.arange(112) < 10)
    assert tpr_under(c)[0] == 0.0 and tpr_nearest(c)[0] == 0.0  # 0 and 2 of 102 are as near to 1 %: the first
    c = curve(np.append(scores[:-1], 1.0), np.arange(112) < 10)
    assert tpr_under(c)[0] == 1.0 and tpr_nearest(c)[0] == 0.0  # 1 of 102 is under .01


def test_weights_are_repeated_prompts():
    scores, truth = sample(9, seed=3)
    weights = np.random.default_rng(0).integers(0, 3, (4, len(scores))).astype(float)
    c = curve(scores, truth, weights)
    for row, counts in enumerate(weights.astype(int)):
        again = curve(np.repeat(scores, counts), np.repeat(truth, counts))
        assert area(c)[row] == pytest.approx(area(again)[0])
        assert f1_scores(c)[row].max() == pytest.approx(f1_scores(again).max())
        assert tpr_under(c)[row] == pytest.approx(tpr_under(again)[0]) and tpr_nearest(c)[row] == pytest.approx(tpr_nearest(again)[0])


def test_the_held_out_f1_uses_the_other_halfs_threshold():
    scores, truth = sample(30, seed=5)
    halves = np.arange(len(scores)) % 2
    expected = []
    for judged in (0, 1):
        mine, other = halves == judged, halves != judged
        best = max(sorted(set(scores[other].tolist()), reverse=True), key=lambda t: f1_score(truth[other], scores[other] >= t))
        expected.append(f1_score(truth[mine], scores[mine] >= best))
    found = f1_held_out(scores.astype(float), truth, halves, np.ones((1, len(scores))))
    assert found[0] == pytest.approx(np.mean(expected)) and found[0] <= f1_scores(curve(scores, truth)).max()


def test_resamples_keep_the_number_of_each_class_in_each_half():
    truth, halves = np.arange(30) < 11, np.arange(30) % 2
    weights = resamples(truth, halves)
    assert (weights[0] == 1).all() and weights.shape == (1 + detection.NUM_RESAMPLES, 30)
    for label in (False, True):
        for half in (0, 1):
            members = (truth == label) & (halves == half)
            assert (weights[:, members].sum(1) == members.sum()).all()
    assert weights[1:].std() > 0.5


def test_intervals_hold_the_value_and_an_interval_of_a_useless_score_holds_chance():
    generator = np.random.default_rng(1)
    useless = judge(generator.random(40), generator.random(60))["auc"]
    low, high = np.quantile(useless[1:], [0.025, 0.975])
    assert low < 0.5 < high and low < useless[0] < high
    assert 0.08 < high - low < 0.35
    perfect = judge(np.arange(10.0) + 100, np.arange(120.0) / 2)
    assert all((perfect[name] == 1).all() for name in ("auc", "f1", "balanced_accuracy", "tpr_at_1fpr_under"))
    # of thresholds with equally near rates the nearest rule takes the first: at an FPR of 0 that is the one that calls nothing
    assert perfect["tpr_at_1fpr_nearest"][0] == 1 and set(perfect["tpr_at_1fpr_nearest"].tolist()) == {0.0, 1.0}
    assert "tpr_at_1fpr_under" not in judge(np.ones(4), np.zeros(99)) and "f1_held_out" not in judge(np.ones(1), np.zeros(99))


def test_runs_are_resampled_first():
    each = [np.full(1001, value) for value in (0.2, 0.8)]  # no spread inside a run
    value, low, high = over_runs(each)
    assert value == 0.5 and low == pytest.approx(0.2) and high == pytest.approx(0.8)


def rows():
    """Two runs; of each 6 local and 6 phantom prompts of 4 seeds; 'good' knows the kind, 'flat' does not."""
    generator, found = np.random.default_rng(0), []
    for run in ("a", "b"):
        for number in range(12):
            kind = "local" if number < 6 else "phantom"
            for seed in range(4):
                about = {"run": run, "kind": kind, "plant_id": number, "seed": seed, "shape": "box"}
                copied = kind == "local" and number < 3
                for measure, value in (("good", 10 * (kind == "local") + generator.random()), ("flat", 1.0), ("memorized", float(copied))):
                    found.append(about | {"measure": measure, "value": value})
    return pd.DataFrame(found)


def test_prompts_are_means_over_the_first_images():
    table = rows()
    found = scores_of_prompts(table[table["measure"] == "good"], 2)
    one = table[(table["run"] == "a") & (table["plant_id"] == 3) & (table["measure"] == "good") & (table["seed"] < 2)]["value"].mean()
    assert found[(found["run"] == "a") & (found["plant_id"] == 3)]["value"].item() == pytest.approx(one)
    assert len(scores_of_prompts(table, 5)) == 0


def test_the_table_of_label_set_one():
    table = detection_table(rows(), ["good", "flat"], [("local", "phantom"), ("local", "decoy")], [1, 4, 16])
    assert set(table["images"]) == {1, 4} and set(table["negative"]) == {"phantom"}
    good = table[(table["detector"] == "good") & (table["images"] == 4)].set_index("metric")
    assert good.loc["auc", "value"] == 1 and good.loc["auc", "low"] == 1
    assert (good["positives"] == 12).all() and (good["negatives"] == 12).all() and (good["runs"] == 2).all()
    flat = table[(table["detector"] == "flat") & (table["metric"] == "auc")]
    assert (flat["value"] == 0.5).all()
    assert not set(table["metric"]) & {"tpr_at_1fpr_under", "tpr_at_1fpr_nearest"}  # fewer than 100 negatives


def test_the_table_of_label_set_two_counts_plants_that_are_not_memorized_as_negatives():
    table = memorized_table(rows(), ["good", "absent"])
    auc = table[table["metric"] == "auc"].iloc[0]
    assert (auc["positive"], auc["negative"], auc["positives"], auc["negatives"]) == ("memorized", "rest", 6, 18)
    assert 0.6 < auc["value"] < 1  # three of the plants that it scores high are not memorized
