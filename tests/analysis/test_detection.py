"""Tables of detection metrics on rows whose answer is known."""

import numpy as np
import pandas as pd
import pytest

from afterglow.analysis.detection import detection_table, memorized_table, prompt_scores
from afterglow.functional import roc
from afterglow.functional.statistics import exact_interval


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
    found = prompt_scores(table[table["measure"] == "good"], 2)
    one = table[(table["run"] == "a") & (table["plant_id"] == 3) & (table["measure"] == "good") & (table["seed"] < 2)]["value"].mean()
    assert found[(found["run"] == "a") & (found["plant_id"] == 3)]["value"].item() == pytest.approx(one)
    assert len(prompt_scores(table, 5)) == 0


def test_the_table_of_label_set_one():
    table = detection_table(rows(), ["good", "flat"], [("local", "phantom"), ("local", "decoy")], [1, 4, 16])
    assert set(table["images"]) == {1, 4} and set(table["negative"]) == {"phantom"}
    good = table[(table["detector"] == "good") & (table["images"] == 4)].set_index("metric")
    assert good.loc["auc", "value"] == 1 and good.loc["auc", "low"] == pytest.approx(exact_interval(12, 12)[0])
    assert (good["positives"] == 12).all() and (good["negatives"] == 12).all() and (good["runs"] == 2).all()
    flat = table[(table["detector"] == "flat") & (table["metric"] == "auc")]
    assert (flat["value"] == 0.5).all()
    assert not set(table["metric"]) & {"tpr_at_1fpr_under", "tpr_at_1fpr_nearest"}  # fewer than 100 negatives


def test_the_table_of_label_set_two_counts_plants_that_are_not_memorized_as_negatives():
    table = memorized_table(rows(), ["good", "absent"])
    auc = table[table["metric"] == "auc"].iloc[0]
    assert (auc["positive"], auc["negative"], auc["positives"], auc["negatives"]) == ("memorized", "rest", 6, 18)
    assert 0.6 < auc["value"] < 1  # three of the plants that it scores high are not memorized


def test_the_held_out_threshold_never_sees_a_plant_that_it_is_applied_to(monkeypatch):
    """Plants with a memorized and another generation are in both classes, on one side."""
    seen = {}

    def recorded(scores, labels, folds, weights):
        seen.update(scores=scores, folds=folds)
        return np.zeros(len(weights))

    monkeypatch.setattr(roc, "f1_held_out", recorded)
    plants = [(number, seed) for number in range(9) for seed in (0, 1)]
    about = [{"run": "a", "kind": "local", "plant_id": number, "seed": seed} for number, seed in plants]
    table = [row | {"measure": "good", "value": float(row["plant_id"])} for row in about]  # the score names the plant
    table += [row | {"measure": "memorized", "value": float(row["plant_id"] < 6 and row["seed"] == 0)} for row in about]
    memorized_table(pd.DataFrame(table), ["good"])
    sides = pd.Series(seen["folds"]).groupby(seen["scores"]).nunique()
    assert len(seen["folds"]) == 15 and (sides == 1).all() and set(seen["folds"]) == {0, 1}


def test_detection_table_with_runs_of_one_seed_counts_their_plants_once():
    table = detection_table(rows(), ["good"], [("local", "phantom")], [4], {"a": 0, "b": 0}).set_index("metric")
    assert table.loc["auc", "value"] == 1 and table.loc["auc", "low"] == pytest.approx(exact_interval(6, 6)[0])
