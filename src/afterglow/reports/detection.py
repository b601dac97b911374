"""Results of `afterglow detect` as text, and intervals of detectors or maps as a figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from afterglow.analysis.detection import detection_table
from afterglow.kinds import KINDS, NEGATIVES
from afterglow.measures.registry import is_detector
from afterglow.reports.figures import PLAIN_STYLE, new_figure, save_figure
from afterglow.reports.tables import interval_text, text_table

OTHER_STYLE = {"color": "#444444", "marker": "o"}
MAX_LINES = 40


def detection_text(table: pd.DataFrame, metrics: Sequence[str], limit: int | None = None) -> str:
    """One table per pair of kinds and number of images: one row per detector, best AUC first, one column per metric.

    Args:
        table: as `detection_table` returns it.
        metrics: columns, as far as the table holds them.
        limit: number of rows of each table; default: all.
    """
    blocks = []
    for (positive, negative, images), part in table.groupby(["positive", "negative", "images"], sort=False):
        first = part.iloc[0]
        size = f"mean over {images} image{'s' if images > 1 else ''}" if images else "single generations"
        runs = f"{first['runs']} run{'s' if first['runs'] > 1 else ''}"
        title = f"{positive} ({first['positives']}) against {negative} ({first['negatives']}), {size}, {runs}"
        order = part[part["metric"] == "auc"].sort_values("value", ascending=False, kind="stable")["detector"][:limit]
        cells = {(row.detector, row.metric): interval_text(row) for row in part.itertuples()}
        present = [metric for metric in metrics if metric in set(part["metric"])]
        rows = [[name, *(cells.get((name, metric), "-") for metric in present)] for name in order]
        blocks.append(f"{title}\n\n{text_table(['detector', *present], rows)}")
    return "\n\n".join(blocks)


def copies_detected_text(runs: Mapping[str, pd.DataFrame], num_images: int) -> str:
    """AUC of every detector for memorized local plants against each kind of negative.

    Args:
        runs: {run: measurements of its generations}. A plant is memorized if at least half of its generations are.
        num_images: generations of a caption, whose mean score counts; captions with fewer are left out.

    Returns:
        One table: a row per detector, a column per kind of negative (mean over runs, interval); empty without scores.
    """
    tables = []
    for run, rows in runs.items():
        copied = rows[(rows["measure"] == "memorized") & (rows["kind"] == "local")].groupby("plant_id")["value"].mean() >= 0.5
        tables.append(rows[(rows["kind"] != "local") | rows["plant_id"].isin(copied[copied].index)].assign(run=run))
    rows = pd.concat(tables) if tables else pd.DataFrame({"measure": []})
    names = [name for name in rows["measure"].unique() if is_detector(name)]
    table = detection_table(rows, names, [("local", kind) for kind in NEGATIVES], (num_images,)) if names else pd.DataFrame()
    if table.empty:
        return ""
    table = table[table["metric"] == "auc"]
    negatives = [kind for kind in NEGATIVES if kind in set(table["negative"])]
    cells = {(row.detector, row.negative): interval_text(row) for row in table.itertuples()}
    counts = {row.negative: f"{row.negative} ({row.positives} against {row.negatives})" for row in table.itertuples()}
    lines = [[name, *(cells.get((name, kind), "-") for kind in negatives)] for name in names]
    return text_table(["detector", *(counts[kind] for kind in negatives)], lines)


def interval_figure(table: pd.DataFrame, name: str, color: str, title: str, paths: Sequence[Path], *, panel: str | None = None) -> None:
    """Value and interval of the best detectors or maps, one line each.

    Args:
        table: columns value, low, high and those named below.
        name: column with the detector or map; the best MAX_LINES of the first color are drawn.
        color: column that sets the color.
        title: label of the x axis.
        paths: files to write.
        panel: column whose values are drawn side by side.
    """
    first = table[table[color] == table[color].iloc[0]]
    order = first.groupby(name, sort=False)["value"].mean().sort_values(kind="stable").tail(MAX_LINES).index
    panels = list(dict.fromkeys(table[panel])) if panel else [""]
    with matplotlib.rc_context(PLAIN_STYLE):
        figure = new_figure(4 + 3.2 * len(panels), 0.24 * len(order) + 1.4)
        for axes, key in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True):
            _intervals(axes, table[table[panel] == key] if panel else table, name, color, order)
            axes.set(yticks=range(len(order)), yticklabels=order, xlabel=title, title=str(key), ylim=(-0.7, len(order) - 0.3))
            axes.tick_params(axis="y", labelsize=7)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=7, frameon=False)
        save_figure(figure, paths)


def _intervals(axes: Axes, table: pd.DataFrame, name: str, color: str, order: pd.Index) -> None:
    groups = list(dict.fromkeys(table[color]))
    for place, group in enumerate(groups):
        part = table[(table[color] == group) & table[name].isin(order)]
        y = np.array([order.get_loc(key) for key in part[name]]) + 0.3 - 0.6 * (place + 0.5) / len(groups)
        errors = np.stack([part["value"] - part["low"], part["high"] - part["value"]]).clip(0)
        kind = KINDS.get(str(group).split()[0])
        style: dict[str, Any] = {"color": kind.color, "marker": kind.marker} if kind else OTHER_STYLE
        axes.errorbar(part["value"], y, xerr=errors, linestyle="", markersize=3.5, elinewidth=1, label=str(group), **style)
    axes.axvline(0.5, color="#999999", linewidth=0.8, linestyle=":")
