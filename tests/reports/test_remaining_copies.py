"""Copies left, paired changes and triggers, on rows whose answers are written down."""

import numpy as np
import pandas as pd
import pytest

from afterglow.reports.remaining_copies import (
    copies_left,
    cost_ratios,
    difference,
    drift,
    left_figure,
    mean_change,
    paired_changes,
    remedies_text,
    tradeoff,
    tradeoff_figure,
    trigger_auc,
    trigger_text,
)


@pytest.fixture
def rows() -> pd.DataFrame:
    """Two runs of 4 global and 4 local plants, one local not memorized; 'cut' removes all global ones and one of the local ones."""
    found = []

    def add(run: str, mitigation: str, strength: float, kind: str, number: int, **values: float) -> None:
        about = {"run": run, "mitigation": mitigation, "strength": strength, "kind": kind, "plant_id": number}
        found.extend(about | {"measure": name.replace("__", "."), "value": value} for name, value in values.items())

    for run in ("a", "b"):
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
    return pd.DataFrame(found)


def test_copies_are_counted_among_those_that_were_there(rows: pd.DataFrame) -> None:
    counts = {(one.mitigation, one.kind): (one.count, one.total) for one in copies_left(rows)}
    assert counts["none", "global"] == (8, 8) and counts["none", "local"] == (6, 6)  # the plant that was never memorized is left out
    assert counts["cut", "global"] == (0, 8) and counts["cut", "local"] == (4, 6)
    text = remedies_text(rows)
    assert "0 of 8 (0% to 32%)" in text and "4 of 6" in text and "2.00x" in text and "1.00x" in text


def test_changes_and_costs_are_paired_within_a_run(rows: pd.DataFrame) -> None:
    one = mean_change(paired_changes(rows, "global", "correlation.inside"))
    assert one.value == pytest.approx(-0.4) and one.low == pytest.approx(-0.4) and one.high == pytest.approx(-0.4)
    costs = cost_ratios(rows)
    assert set(costs[costs["measure"] == "cost.evaluations"]["ratio"]) == {1.0, 2.0}
    assert drift(rows)["cut", 1.0] == pytest.approx(1.5)


def test_a_trigger_is_judged_against_controls(rows: pd.DataFrame) -> None:
    assert trigger_auc(rows, "wen.ld", "local").value == 1.0 and trigger_auc(rows, "wen.magnitude", "local").value == 0.0
    assert trigger_auc(rows, "wen.magnitude", "global").value == 1.0
    assert "LD" in trigger_text(rows)
    same = rows.assign(value=np.where(rows["measure"] == "mitigation.loss_before", 1.0, rows["value"]))
    assert trigger_auc(same, "wen.ld", "local").value == 0.5  # ties count half
    assert difference(rows, "wen.ld", "wen.magnitude", "local", "memorized").value == 0.0
    changed = rows["mitigation"].eq("wen.ld") & rows["measure"].eq("memorized") & rows["plant_id"].eq(12)
    changed_rows = rows.assign(value=np.where(changed, 0.0, rows["value"]))
    assert difference(changed_rows, "wen.ld", "wen.magnitude", "local", "memorized").value == pytest.approx(-1 / 3)


def test_figures_show_every_remedy(rows: pd.DataFrame) -> None:
    labels = [tick.get_text() for tick in left_figure(copies_left(rows)).axes[0].get_yticklabels()]
    assert labels == ["wen.ld 1", "wen.magnitude 1", "cut 1", "none"]  # none on top
    table = tradeoff(rows, "global", drift).set_index("mitigation")
    assert table.loc["none", "cost"] == 1.0 and table.loc["cut", "left"] == 0.0
    panels = tradeoff_figure(rows).axes
    assert [axes.get_title() for axes in panels] == ["global", "local"]
