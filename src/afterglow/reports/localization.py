"""Results of `afterglow localize` as text and as a gallery."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from afterglow.analysis.localization import CollectedMaps, example_rows
from afterglow.reports.figures import new_figure, save_figure
from afterglow.reports.run_tables import TRIVIAL
from afterglow.reports.tables import interval_text, text_table

WIDTH = 100  # of a terminal
MAPS_NOTE = """AUC of each map against the planted region, with 95 % intervals. "On other masks": against the
masks of other plants of the same shape class, where a map that finds its own region is lower.
Trivial maps and mask_prior (the mean of the other plants' masks) use no model; inverted: the same
map with the opposite sign."""


def localization_text(table: pd.DataFrame, by: Sequence[str], chosen: pd.DataFrame | None = None, limit: int | None = None) -> str:
    """Tables of at most WIDTH columns with one row per map of `localization_table`, best mean AUC on local plants first.

    by: columns that make a group, as there. chosen: as `chosen_layers` returns it. limit: of maps that are not trivial; default: all.
    """
    table = table.assign(label=table[list(by)].agg(" ".join, axis=1) if len(by) > 1 else table[by[0]])
    auc = table[table["metric"] == "auc"]
    labels = sorted(dict.fromkeys(auc["label"]), key=lambda label: (not label.startswith("local"), label))
    cells = {(row.map, row.label, row.metric): interval_text(row) for row in table.itertuples()}
    order = auc[auc["label"] == labels[0]].sort_values("value", ascending=False, kind="stable")["map"].tolist()
    best = [name for name in order if name not in TRIVIAL][:limit]
    order = [name for name in order if name in TRIVIAL or name in best]
    counts = {row.label: row.plants for row in auc.itertuples()}
    heads = {"auc": "AUC {} ({})", "permuted_auc": "on other masks, {}", "iou": "IoU {}"}
    columns = [
        [head.format(label, counts[label]), *(cells.get((name, label, metric), "-") for name in order)]
        for label in labels
        for metric, head in heads.items()
        if any((name, label, metric) in cells for name in order)
    ]
    parts = [MAPS_NOTE, *_packed(["map", *order], columns)]
    if chosen is not None and len(chosen):
        rows = [[str(row.seed), row.map, f"{row.auc:.2f}"] for row in chosen.itertuples()]
        parts.append(text_table(["evaluated on", "end-token map chosen on the other runs", "AUC"], rows))
    return "\n\n".join(parts)


def _packed(first: Sequence[str], columns: Sequence[Sequence[str]]) -> list[str]:
    """Tables of at most WIDTH columns, each with the first column. columns: head and cells of each."""
    tables: list[list[Sequence[str]]] = [[first]]
    for column in columns:
        width = 1 + sum(max(map(len, of)) + 3 for of in (*tables[-1], column))
        if width > WIDTH and len(tables[-1]) > 1:
            tables.append([first])
        tables[-1].append(column)
    return [text_table(head, rows) for head, *rows in (list(zip(*table, strict=True)) for table in tables)]


def gallery_figure(collected: CollectedMaps, rows: pd.DataFrame, names: Sequence[str], paths: Sequence[Path]) -> None:
    """For each map the generations with the best, the median and the worst AUC: image, planted mask, map.

    Args:
        collected: images, masks and maps of all generations.
        rows: AUC of each generation and map.
        names: maps, one line each.
        paths: files to write.
    """
    keys = pd.DataFrame(collected.samples)
    images, regions = torch.cat(collected.images), torch.cat(collected.regions)
    row_of = {key: row for row, key in enumerate(zip(keys["run"], keys["plant_id"], keys["seed"], strict=True))}
    figure = new_figure(9 * 1.05, 1.25 * len(names))
    cells = figure.subplots(len(names), 9, squeeze=False)
    for line, name in zip(cells, names, strict=True):
        maps = torch.cat(collected.maps[name])
        for place, example in enumerate(example_rows(rows, name).itertuples()):
            row = row_of[example.run, example.plant_id, example.seed]
            columns = [images[row].movedim(0, -1).squeeze(-1).numpy(), regions[row, 0].numpy(), maps[row].float().numpy()]
            for axes, values, colors in zip(line[3 * place : 3 * place + 3], columns, ("gray", "gray", "magma"), strict=True):
                maximum = np.quantile(values, 0.98) if colors == "magma" else None  # one bright pixel would leave the rest black
                axes.imshow(values, cmap=colors, interpolation="nearest", vmax=maximum)
            line[3 * place].set_title(f"{('best', 'median', 'worst')[place]}: AUC {example.auc:.2f}", fontsize=6, loc="left")
        line[0].text(-0.05, 0.5, name.replace(".", "\n"), transform=line[0].transAxes, fontsize=5, ha="right", va="center")
    for axes in cells.flat:
        axes.set_axis_off()
    save_figure(figure, paths)
