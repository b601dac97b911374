"""Results of `afterglow localize` as text and as a gallery."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from afterglow.analysis.localization import CollectedMaps, example_rows
from afterglow.reports.figures import new_figure, save_figure
from afterglow.reports.tables import interval_text, text_table


def localization_text(table: pd.DataFrame, by: Sequence[str]) -> str:
    """One row per map of `localization_table`, best mean AUC on local plants first. by: columns that make a group, as there."""
    table = table.assign(label=table[list(by)].agg(" ".join, axis=1) if len(by) > 1 else table[by[0]])
    auc = table[table["metric"] == "auc"]
    labels = sorted(dict.fromkeys(auc["label"]), key=lambda label: (not label.startswith("local"), label))
    cells = {(row.map, row.label, row.metric): interval_text(row) for row in table.itertuples()}
    order = auc[auc["label"] == labels[0]].sort_values("value", ascending=False, kind="stable")["map"]
    overlaps = [label for label in labels if any((name, label, "iou") in cells for name in order)]
    columns = [*((label, "auc") for label in labels), *((label, "iou") for label in overlaps)]
    counts = {row.label: row.plants for row in auc.itertuples()}
    head = ["map", *(f"AUC {label} ({counts[label]})" for label in labels), *(f"IoU {label}" for label in overlaps)]
    return text_table(head, [[name, *(cells.get((name, *column), "-") for column in columns)] for name in order])


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
