import json
import math

import pandas as pd
import pytest

from afterglow.reports import comparison_charts as charts
from afterglow.reports.charts import VEGA_LITE

PLANTS = pd.DataFrame(
    [
        {"x": x, "kind": kind, "run": f"r{x}", "seed": 0, "unit": unit, "lower": 10.0 * x, "upper": upper, "steps": 100}
        for x in (1.0, 2.0)
        for kind, upper in (("global", 20.0 * x), ("local", math.inf))
        for unit in range(3)
    ]
)


def test_emergence_against_has_a_median_for_each_value_and_kind_and_marks_open_ends() -> None:
    chart = charts.emergence_against(PLANTS, "copies")
    medians = {(row["x"], row["kind"]): (row["step"], row["open"]) for row in chart["data"]["values"] if row["median"]}
    assert medians == {("1", "global"): (20, False), ("1", "local"): (100, True), ("2", "global"): (40, False), ("2", "local"): (100, True)}


def test_group_curves_are_means_over_the_runs_of_a_group() -> None:
    chart = charts.group_curves([("a", 0, 0.0), ("a", 0, 1.0), ("b", 5, 1.0)], "memorized fraction")
    assert chart is not None and charts.group_curves([], "x") is None
    assert chart["data"]["values"] == [
        {"group": "a", "step": 0, "value": 0.5, "runs": 2},
        {"group": "b", "step": 5, "value": 1.0, "runs": 1},
    ]


def test_charts_are_valid_vega_lite() -> None:
    vl_convert = pytest.importorskip("vl_convert")
    for spec in (charts.emergence_against(PLANTS, "copies"), charts.group_curves([("a", 0, 0.0), ("b", 5, 1.0)], "x")):
        assert spec is not None
        assert "<svg" in vl_convert.vegalite_to_svg(json.dumps({**spec, "width": 300, "autosize": "pad"}), vl_version=VEGA_LITE)
