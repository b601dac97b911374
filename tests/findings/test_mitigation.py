"""The committed page follows from the committed rows, and its statistics agree with hand-made rows."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

FINDINGS = Path(__file__).parents[2] / "docs" / "findings"


@pytest.fixture(scope="module")
def make(load_finding):
    return load_finding("mitigation")


def test_page_equals_the_committed_page(make) -> None:
    text, figures = make.page()
    assert text == (FINDINGS / "mitigation.md").read_text(encoding="utf-8")
    assert all((FINDINGS / "mitigation" / f"{name}.png").is_file() for name in figures)


@pytest.fixture
def rows() -> pd.DataFrame:
    """Two runs of 4 global and 4 local plants, one local not memorized; 'cut' removes all global ones and one of the local ones."""
    table = []

    def add(run: str, mitigation: str, strength: float, kind: str, number: int, **values: float) -> None:
        row = {"run": run, "mitigation": mitigation, "strength": strength, "kind": kind, "plant_id": number}
        table.extend(row | {"measure": name.replace("__", "."), "value": value} for name, value in values.items())

    for run in ("a0", "b1"):
        for mitigation, strength in (("none", 0.0), ("cut", 1.0), ("wen.magnitude", 1.0), ("wen.ld", 1.0)):
            touched = mitigation != "none"
            for number in range(4):
                add(run, mitigation, strength, "global", number, memorized=float(not touched), correlation__inside=0.9 - 0.4 * touched)
                copied = number > 0 and not (touched and number == 1)
                add(run, mitigation, strength, "local", 10 + number, memorized=float(copied), correlation__outside=0.1)
                add(run, mitigation, strength, "heldout", 20 + number, distance__training=0.2 + 0.1 * touched)
                if mitigation.startswith("wen"):
                    high = 3.0 if mitigation == "wen.ld" else 0.5
                    add(run, mitigation, strength, "local", 10 + number, mitigation__loss_before=high)
                    add(run, mitigation, strength, "global", number, mitigation__loss_before=5.0)
                    add(run, mitigation, strength, "control", 30 + number, mitigation__loss_before=1.0)
            add(run, mitigation, strength, "all", -1, cost__evaluations=24.0 * (1 + touched), cost__gflops=2.0)
    return pd.DataFrame(table)


def test_remaining_copies_count_plants_that_the_baseline_memorizes(make, rows: pd.DataFrame) -> None:
    counts = {(entry.mitigation, entry.kind): (entry.count, entry.total) for entry in make.remaining_copies(rows)}
    assert counts["none", "global"] == (8, 8) and counts["none", "local"] == (6, 6)  # the plant that was never memorized is left out
    assert counts["cut", "global"] == (0, 8) and counts["cut", "local"] == (4, 6)
    text = make.mitigations_text(rows)
    assert "0 of 8 (0, 0)" in text and "4 of 6" in text and "2.00x" in text and "1.00x" in text


def test_few_and_below_half_hold_in_each_seed(make) -> None:
    entry = make.RemainingCopies("cut", 1.0, "global", {"0": (2, 16), "1": (0, 16)})
    assert entry.few and entry.below_half and entry.text == "2 of 32 (2, 0)" and entry.range == (0, 0.125)
    uneven = make.RemainingCopies("cut", 1.0, "global", {"0": (8, 16), "1": (0, 16)})
    assert not uneven.few and not uneven.below_half  # 8 of 32 in all, but half of a seed


def test_one_schedule_ignores_seconds_only(make, rows: pd.DataFrame) -> None:
    copy = rows[rows["mitigation"] == "cut"].assign(mitigation="same")
    seconds = copy.tail(1).assign(measure="cost.seconds")
    other = copy.assign(mitigation="other", value=copy["value"] + 0.1)
    table = pd.concat([rows, copy, other, seconds.assign(value=1.0), seconds.assign(mitigation="cut", value=9.0)])
    assert make.one_schedule(table, "cut", "same") and not make.one_schedule(table, "cut", "other")


def test_removed_copies_leave_out_those_that_remain(make, rows: pd.DataFrame) -> None:
    removed = make.removed_only(rows, "local", "correlation.outside")
    assert set(removed[removed["mitigation"] == "cut"]["plant_id"]) == {11} and len(removed[removed["mitigation"] == "cut"]) == 2
    assert make.removed_only(rows, "global", "correlation.inside")["value"].to_list() == pytest.approx([0.5] * 24)


def test_changes_and_costs_are_paired_within_a_run(make, rows: pd.DataFrame) -> None:
    change = make.mean_by_runs(make.heldout_changes(rows))
    assert change.runs == pytest.approx({"a0": 0.1, "b1": 0.1})
    costs = make.cost_ratios(rows)
    assert costs["none", 0.0, "cost.evaluations"] == 1.0 and costs["cut", 1.0, "cost.evaluations"] == 2.0
    assert make.heldout_distance(rows)["cut", 1.0] == pytest.approx(1.5)


def test_trigger_auc_compares_memorized_plants_with_controls(make, rows: pd.DataFrame) -> None:
    assert make.trigger_auc(rows, "wen.ld", "local").value == 1.0 and make.trigger_auc(rows, "wen.magnitude", "local").value == 0.0
    assert make.trigger_auc(rows, "wen.magnitude", "global").value == 1.0
    assert "LD" in make.trigger_text(rows)
    same = rows.assign(value=np.where(rows["measure"] == "mitigation.loss_before", 1.0, rows["value"]))
    assert make.trigger_auc(same, "wen.ld", "local").value == 0.5  # ties count half
    assert make.loss_difference(rows, "memorized").value == 0.0
    changed = rows["mitigation"].eq("wen.ld") & rows["measure"].eq("memorized") & rows["plant_id"].eq(12)
    changed_rows = rows.assign(value=np.where(changed, 0.0, rows["value"]))
    assert make.loss_difference(changed_rows, "memorized").value == pytest.approx(-1 / 3)


def test_figures_show_every_mitigation(make, rows: pd.DataFrame) -> None:
    labels = [tick.get_text() for tick in make.remaining_figure(make.remaining_copies(rows)).axes[0].get_yticklabels()]
    assert labels == ["wen.ld 1", "wen.magnitude 1", "cut 1", "none"]  # the baseline on top
    panels = make.tradeoff_figure(rows).axes
    assert [axes.get_title() for axes in panels] == ["global", "local"]


def test_run_means_print_two_seeds_and_the_interval_of_three(make) -> None:
    found = make.RunMeans({"demo": 0.2, "shapes-0": 0.4, "seed1": 0.9, "shapes-1": 0.7})
    assert found.value == pytest.approx(0.55) and found.text() == "0.55 (0.30, 0.80)"
    assert make.RunMeans({"a-0": -0.125, "a-1": -1 / 7, "a-2": 0.5}).text() == "0.08 [-0.83, 0.99]"
    assert make.RunMeans({"a-0": 1.0, "a-1": 1.0, "a-2": 1.0}, 24).text() == "1.00 [0.86, 1.00]" and make.RunMeans({}).text() == "-"
