"""What the bench found, as text, as figures and as images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from afterglow.analysis.localization import CollectedMaps as Located
from afterglow.analysis.localization import example_rows as examples
from afterglow.reports.kinds import KINDS

PLAIN: Any = {"svg.fonttype": "none", "svg.hashsalt": "afterglow", "axes.spines.top": False, "axes.spines.right": False}
OTHER_COLOR = "#444444"
MOST_LINES = 40


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown, its columns aligned for a terminal."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines)


def interval(row: Any) -> str:
    """'0.88 [0.83, 0.91]'."""
    return f"{row.value:.2f} [{row.low:.2f}, {row.high:.2f}]"


def detection_text(table: pd.DataFrame, metrics: Sequence[str]) -> str:
    """A block for each pair of kinds and number of images: a row a detector, best AUC first, a column a metric."""
    blocks = []
    for (positive, negative, images), some in table.groupby(["positive", "negative", "images"], sort=False):
        counts = some.iloc[0]
        about = f"{positive} ({counts['positives']}) against {negative} ({counts['negatives']})"
        title = f"{about}, {f'n = {images} images' if images else 'generations'}, {counts['runs']} run(s)"
        auc = some[some["metric"] == "auc"].sort_values("value", ascending=False, kind="stable")
        cells = {(row.detector, row.metric): interval(row) for row in some.itertuples()}
        shown = [metric for metric in metrics if metric in set(some["metric"])]
        rows = [[name, *(cells.get((name, metric), "-") for metric in shown)] for name in auc["detector"]]
        blocks.append(f"{title}\n\n{text_table(['detector', *shown], rows)}")
    return "\n\n".join(blocks)


def localization_text(table: pd.DataFrame, by: Sequence[str]) -> str:
    """A row a map, best mean AUC on local plants first; AUC of each kind (and shape), IoU of local plants."""
    table = table.assign(label=table[list(by)].agg(" ".join, axis=1) if len(by) > 1 else table[by[0]])
    auc = table[table["metric"] == "auc"]
    labels = list(dict.fromkeys(auc["label"]))
    labels.sort(key=lambda label: (not label.startswith("local"), label))
    cells = {(row.map, row.label, row.metric): interval(row) for row in table.itertuples()}
    order = auc[auc["label"] == labels[0]].sort_values("value", ascending=False, kind="stable")["map"]
    overlaps = [label for label in labels if any((name, label, "iou") in cells for name in order)]
    counts = {row.label: row.plants for row in auc.itertuples()}
    head = ["map", *(f"AUC {label} ({counts[label]})" for label in labels), *(f"IoU {label}" for label in overlaps)]
    rows = [
        [name, *(cells.get((name, label, "auc"), "-") for label in labels), *(cells.get((name, label, "iou"), "-") for label in overlaps)]
        for name in order
    ]
    return text_table(head, rows)


def interval_figure(table: pd.DataFrame, name: str, color: str, title: str, paths: Sequence[Path], *, panel: str | None = None) -> None:
    """One line a detector or map (column `name`): its value and interval, one color a value of the column `color`.

    panel: a column whose values stand side by side. The best 40 are shown, by the first color's mean value.
    """
    first = table[table[color] == table[color].iloc[0]]
    order = first.groupby(name, sort=False)["value"].mean().sort_values(kind="stable").tail(MOST_LINES).index
    panels = list(dict.fromkeys(table[panel])) if panel else [""]
    with matplotlib.rc_context(PLAIN):
        figure = Figure(figsize=(4 + 3.2 * len(panels), 0.24 * len(order) + 1.4), layout="constrained")
        FigureCanvasAgg(figure)
        for axes, key in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True):
            _intervals(axes, table[table[panel] == key] if panel else table, name, color, order)
            axes.set(yticks=range(len(order)), yticklabels=order, xlabel=title, title=str(key), ylim=(-0.7, len(order) - 0.3))
            axes.tick_params(axis="y", labelsize=7)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=7, frameon=False)
        _save(figure, paths)


def _intervals(axes: Axes, table: pd.DataFrame, name: str, color: str, order: pd.Index) -> None:
    groups = list(dict.fromkeys(table[color]))
    for place, group in enumerate(groups):
        some = table[(table[color] == group) & table[name].isin(order)]
        y = np.array([order.get_loc(key) for key in some[name]]) + 0.3 - 0.6 * (place + 0.5) / len(groups)
        spread = np.stack([some["value"] - some["low"], some["high"] - some["value"]]).clip(0)
        kind = KINDS.get(str(group).split()[0])
        look: dict[str, Any] = {"color": kind.color, "marker": kind.marker} if kind else {"color": OTHER_COLOR, "marker": "o"}
        axes.errorbar(some["value"], y, xerr=spread, linestyle="", markersize=3.5, elinewidth=1, label=str(group), **look)
    axes.axvline(0.5, color="#999999", linewidth=0.8, linestyle=":")


def gallery_figure(located: Located, rows: pd.DataFrame, names: Sequence[str], paths: Sequence[Path]) -> None:
    """For each map the generations that it locates best, middling and worst: image, planted mask, map."""
    about = pd.DataFrame(located.samples)
    images, regions = torch.cat(located.images), torch.cat(located.regions)
    place = {key: row for row, key in enumerate(zip(about["run"], about["plant_id"], about["seed"], strict=True))}
    figure = Figure(figsize=(9 * 1.05, 1.25 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    cells = figure.subplots(len(names), 9, squeeze=False)
    for line, name in zip(cells, names, strict=True):
        soft = torch.cat(located.maps[name])
        for turn, example in enumerate(examples(rows, name).itertuples()):
            row = place[example.run, example.plant_id, example.seed]
            shown = [images[row].movedim(0, -1).squeeze(-1).numpy(), regions[row, 0].numpy(), soft[row].float().numpy()]
            for cell, values, look in zip(line[3 * turn : 3 * turn + 3], shown, ("gray", "gray", "magma"), strict=True):
                brightest = np.quantile(values, 0.98) if look == "magma" else None  # one bright pixel would leave the rest black
                cell.imshow(values, cmap=look, interpolation="nearest", vmax=brightest)
            line[3 * turn].set_title(f"{('best', 'middle', 'worst')[turn]}: AUC {example.auc:.2f}", fontsize=6, loc="left")
        line[0].text(-0.05, 0.5, name.replace(".", "\n"), transform=line[0].transAxes, fontsize=5, ha="right", va="center")
    for cell in cells.flat:
        cell.set_axis_off()
    _save(figure, paths)


def _save(figure: Figure, paths: Sequence[Path]) -> None:
    for path in paths:
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
