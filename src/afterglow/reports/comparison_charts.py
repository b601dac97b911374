"""Charts of the page that compares runs, as Vega-Lite specifications."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from afterglow.analysis.scaling import bootstrap_table
from afterglow.kinds import KINDS
from afterglow.reports.charts import SHARED, step_axis
from afterglow.reports.emergence import median

GROUP_COLORS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#888888",
)  # Okabe and Ito; dashes for repeated ones
GROUP_DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3])
MAX_GROUPS = len(GROUP_COLORS) * len(GROUP_DASHES)


def emergence_against(plants: pd.DataFrame, label: str) -> dict[str, Any]:
    """Step of emergence against a column x: an interval for each plant, the median of each kind with its 95 % interval over runs.

    Args:
        plants: columns of EmergenceTables.plants, x and unit.
        label: title of x.
    """
    values = sorted(plants["x"].unique().tolist())
    names = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
    text, last = dict(zip(values, names, strict=True)), float(plants["steps"].max())
    kinds = [kind for kind in KINDS if kind in set(plants["kind"])]
    rows = _interval_rows(plants, text, last)
    scale = {"domain": kinds, "range": [KINDS[kind].color for kind in kinds]}
    steps = sorted({*(int(row["low"]) for row in rows), *(int(row["high"]) for row in rows)})
    axis = step_axis(steps) | {"title": "training step of emergence"}
    encoding: dict[str, Any] = {
        "x": {"field": "x", "type": "ordinal", "sort": names, "title": label, "axis": {"labelAngle": 0, "labelLimit": 90}},
        "xOffset": {"field": "kind", "sort": kinds},
        "color": {"field": "kind", "type": "nominal", "scale": scale, "legend": {"title": None, "orient": "top"}},
    }
    ends: dict[str, Any] = {"y": axis | {"field": "low"}, "y2": {"field": "high"}}
    tooltip = [{"field": name} for name in ("x", "kind", "plants", "emerged")]
    point = {"y": axis | {"field": "step"}, "tooltip": tooltip}
    layers: list[dict[str, Any]] = [
        {
            "transform": [{"filter": "!datum.median"}],
            "mark": {"type": "rule", "strokeWidth": 9, "opacity": 0.1},
            "encoding": encoding | ends,
        },
        {"transform": [{"filter": "datum.median"}], "mark": {"type": "rule", "strokeWidth": 2.5}, "encoding": encoding | ends},
    ]
    for opened, shape in ((False, "circle"), (True, "triangle-up")):
        if any(row["median"] and row["open"] == opened for row in rows):
            mark = {"type": "point", "filled": True, "size": 90, "shape": shape, "opacity": 1}
            filtered = [{"filter": f"datum.median && datum.open == {str(opened).lower()}"}]
            layers.append({"transform": filtered, "mark": mark, "encoding": encoding | point})
    return {**SHARED, "description": f"Step of emergence against {label}", "data": {"values": rows}, "layer": layers}


def _interval_rows(plants: pd.DataFrame, text: dict[Any, str], last: float) -> list[dict[str, Any]]:
    """One row per plant and one per median; what has not emerged ends at the last step, open."""
    rows: list[dict[str, Any]] = []
    for (value, kind), part in plants.groupby(["x", "kind"]):
        about = {"x": text[value], "kind": kind, "plants": len(part)}
        rows += [
            about | {"low": low, "high": min(high, last), "median": False, "open": not np.isfinite(high)}
            for low, high in zip(part["lower"].tolist(), part["upper"].tolist(), strict=True)
        ]
        found = bootstrap_table(part, median) if np.isfinite(part["upper"]).any() else None
        step, low, high = (last,) * 3 if found is None else (min(end, last) for end in (found.value, found.low, found.high))
        emerged = "after the runs" if found is None or not np.isfinite(found.value) else f"{found.value:g}"
        rows.append(
            about | {"low": low, "high": high, "step": step, "median": True, "open": emerged == "after the runs", "emerged": emerged}
        )
    return rows


def group_curves(values: Iterable[tuple[str, int, float]], title: str) -> dict[str, Any] | None:
    """Mean over the runs of each group at each step, one line per group; a click in the legend shows one group alone.

    Args:
        values: group, step and value of each run; None if there are none.
        title: of the vertical axis.
    """
    table = pd.DataFrame(values, columns=["group", "step", "value"])
    groups = list(dict.fromkeys(table["group"]))[:MAX_GROUPS]
    if not groups:
        return None
    means = table[table["group"].isin(groups)].groupby(["group", "step"], sort=False)["value"].agg(["mean", "count"]).reset_index()
    rows = [{"group": g, "step": int(s), "value": round(float(v), 4), "runs": int(n)} for g, s, v, n in means.itertuples(index=False)]
    legend = {"title": None, "orient": "top", "labelLimit": 220, "columns": 2}
    places = range(len(groups))
    color = {"domain": groups, "range": [GROUP_COLORS[place % len(GROUP_COLORS)] for place in places]}
    dash = {"domain": groups, "range": [GROUP_DASHES[place // len(GROUP_COLORS)] for place in places]}
    encoding = {
        "x": step_axis(sorted({row["step"] for row in rows})),
        "y": {"field": "value", "type": "quantitative", "title": title, "axis": {"format": "%"}, "scale": {"domain": [0, 1]}},
        "color": {"field": "group", "type": "nominal", "scale": color, "legend": legend},
        "strokeDash": {"field": "group", "type": "nominal", "scale": dash, "legend": legend},
        "opacity": {"condition": {"param": "shown", "value": 1}, "value": 0.06},
        "tooltip": [{"field": name} for name in ("group", "step", "value", "runs")],
    }
    shown = {"name": "shown", "select": {"type": "point", "fields": ["group"]}, "bind": "legend"}
    line = {"mark": {"type": "line", "point": {"size": 30}, "clip": False}, "encoding": encoding, "params": [shown]}
    return {**SHARED, "description": f"{title} over training steps, one line per setting", "data": {"values": rows}, "layer": [line]}
