import json

import pandas as pd
import pytest

from afterglow.analysis.emergence_table import emergence_of, emergence_summary, memorized_history
from afterglow.analysis.summary import ALL_SEEDS

STEPS = [0, 20, 30, 45, 60]


def table(histories, kinds, *, confirmations=(), steps=STEPS):
    """Rows of a run: histories {plant_id: text of 0 and 1, one a probe, - where it was not looked at}."""
    rows = []
    for number, text in histories.items():
        for step, seen in zip(steps, text, strict=True):
            if seen != "-":
                rows.append((step, number, "plant_memorized", float(seen)))
                rows.append((step, number, "outside_diversity", 0.5))
    rows += [(steps[-1], number, f"confirm.{turn}", value) for number, turn, value in confirmations]
    frame = pd.DataFrame(rows, columns=["step", "plant_id", "measure", "value"])
    frame = frame.assign(kind=frame["plant_id"].map(kinds), seed=ALL_SEEDS, epoch=0.0, seconds=0.0, caption="x")
    return frame.sample(frac=1, random_state=0).reset_index(drop=True)  # in no order


def test_the_history_of_a_plant_is_in_the_order_of_the_steps():
    rows = table({3: "00111", 8: "1-0-1"}, {3: "global", 8: "control"})
    assert memorized_history(rows) == {
        3: (STEPS, [False, False, True, True, True]),
        8: ([0, 30, 60], [True, False, True]),
    }


def test_emergence_of_a_small_run():
    histories = {0: "00111", 1: "01111", 2: "00000", 3: "00001", 4: "00011", 5: "00000", 9: "----1", 10: "----0"}
    kinds = {0: "global", 1: "global", 2: "global", 3: "local", 4: "local", 5: "phantom", 9: "control", 10: "control"}
    # the second confirmation of plant 3 fails; plant 4 needs one
    rows = table(histories, kinds, confirmations=[(3, 1, 1.0), (3, 2, 0.0), (4, 1, 1.0)])
    found = emergence_of(rows)
    assert found["evaluation_steps"] == STEPS and found["probe_ratio"] == pytest.approx(1.5)  # 30 / 20, and 45 / 30
    about = found["kinds"]
    assert about["global"]["intervals"] == {"0": [20, 30], "1": [0, 20], "2": [60, None]}
    assert {key: about["global"][key] for key in ("plants", "memorized", "censored")} == {"plants": 3, "memorized": 2, "censored": 1}
    assert about["global"]["median"]["step"] == 30
    assert about["local"]["intervals"] == {"3": [60, None], "4": [30, 45]}
    assert about["local"]["memorized"] == 2 and about["local"]["censored"] == 1
    assert about["phantom"]["median"] == {"step": None, "low": None, "high": None}
    assert about["control"] == {"plants": 2, "memorized": 1}  # the last probe says whether, not when
    assert json.loads(json.dumps(found, allow_nan=False)) == found and "neighbor_clusters" not in found
    neighbors = {"measure": "neighbor_clusters", "kind": "control", "plant_id": -4, "value": 31.0}
    counted = emergence_of(pd.concat([rows, pd.DataFrame([rows.iloc[-1].to_dict() | neighbors])]))
    assert counted == found | {"neighbor_clusters": 31}
    size = rows[rows["plant_id"] == 9].assign(measure="cluster_size", value=4.0)
    about = emergence_of(pd.concat([rows, size]))["kinds"]
    assert (about["control"], about["control_family"]) == ({"plants": 1, "memorized": 0}, {"plants": 1, "memorized": 1})


def test_confirmations_are_taken_in_their_order():
    kinds = {0: "local"}
    for values, interval in (((1.0, 1.0), [45, 60]), ((0.0, 1.0), [60, None])):
        rows = table({0: "00001"}, kinds, confirmations=[(0, turn + 1, value) for turn, value in enumerate(values)])
        assert emergence_of(rows)["kinds"]["local"]["intervals"]["0"] == interval
    assert emergence_of(table({0: "00001"}, kinds))["kinds"]["local"]["intervals"]["0"] == [45, None]
    # the probe before the last needs only the first of two
    rows = table({0: "00011"}, kinds, confirmations=[(0, 2, 0.0), (0, 1, 1.0)])
    assert emergence_of(rows)["kinds"]["local"]["intervals"]["0"] == [30, 45]


def test_the_largest_ratio_of_neighboring_evaluations():
    def ratio(steps):
        return emergence_of(table({0: "0" * len(steps)}, {0: "local"}, steps=steps))["probe_ratio"]

    assert ratio([0, 10, 12, 24, 30]) == 2.0
    assert ratio([0, 10]) is None


def test_the_summary_names_the_median_of_every_kind_that_has_one():
    rows = table({0: "00111", 1: "00111", 5: "00000", 9: "----1"}, {0: "global", 1: "global", 5: "phantom", 9: "control"})
    assert emergence_summary(emergence_of(rows)) == {
        "emergence/global_step": 30.0,
        "emergence/global_interval": [30.0, 30.0],
        "emergence/global_censored": 0,
        "emergence/phantom_step": None,
        "emergence/phantom_interval": [None, None],
        "emergence/phantom_censored": 1,
    }


def test_completions_have_an_emergence_of_their_own():
    kinds = {0: "local", 1: "local"}
    rows = pd.concat(
        [
            table({0: "00001", 1: "00000"}, kinds),
            table({0: "01111", 1: "00111"}, kinds).replace({"measure": {"plant_memorized": "plant_memorized.outpainted"}}),
            table({0: "00001"}, kinds, confirmations=[(0, 1, 1.0), (0, 2, 1.0)]).replace(
                {"measure": {name: f"{name}.outpainted_fresh" for name in ("plant_memorized", "confirm.1", "confirm.2")}}
            ),
        ]
    )
    found = emergence_of(rows)
    assert found["kinds"]["local"]["intervals"] == {"0": [45, None], "1": [60, None]}
    assert found["outpainted"]["kinds"]["local"]["intervals"] == {"0": [0, 20], "1": [20, 30]}
    assert found["outpainted_fresh"]["kinds"]["local"]["intervals"] == {"0": [45, 60]}
    assert "at least half of the completions have" in found["outpainted"]["definition"]
    assert emergence_summary(found)["emergence/local_outpainted_step"] == 20
