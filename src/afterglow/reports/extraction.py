"""What was extracted from a model, as text and as images."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from afterglow.analysis.extraction import LIMITS, SIMILARITY_QUANTILE, Fraction, distinct_curve
from afterglow.reports.bench import PLAIN, text_table

SHOWN, ACROSS = 24, 6  # pairs in the gallery, and in one of its lines
ImageOf = Callable[[int], np.ndarray]


def extraction_text(fractions: Sequence[Fraction], table: pd.DataFrame, training: np.ndarray, about: Mapping[str, object]) -> str:
    """One screen: what was asked, the fractions with their intervals, quartiles of the two similarities."""
    head = ["of the generations", "count", "share [95 %]", "distinct groups"]
    rows = []
    for part in fractions:
        low, high = part.interval
        share = f"{part.count / max(1, part.total):.4f} [{low:.4f}, {high:.4f}]"
        rows.append([part.name, f"{part.count} / {part.total}", share, "" if part.distinct is None else str(part.distinct)])
    spread = [
        [name, str(len(values)), *(f"{np.quantile(values, share):.3f}" for share in (0.05, 0.5, 0.95))]
        for name, values in (("generation to training", table["similarity"].to_numpy()), ("training to training", training))
    ]
    said = "\n".join(f"{key}: {value}" for key, value in about.items() if value is not None)
    quantiles = text_table(["similarity", "images", "5 %", "median", "95 %"], spread)
    return f"{said}\n\n{text_table(head, rows)}\n\n{quantiles}"


def histograms_figure(table: pd.DataFrame, training: np.ndarray, space: str, path: Path) -> None:
    """Somepalli's two histograms beside the curve of distinct training groups against generations."""
    with matplotlib.rc_context(PLAIN):
        figure = Figure(figsize=(10, 3.6), layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        values = table["similarity"].to_numpy()
        bins = np.histogram_bin_edges(np.concatenate([values, training]), bins=60)
        for some, label, color in ((values, "generation to training", "#D55E00"), (training, "training to training", "#0072B2")):
            left.hist(some, bins=bins, density=True, alpha=0.55, color=color, label=f"{label} ({len(some)})")
        left.axvline(
            float(np.quantile(training, SIMILARITY_QUANTILE)), color="#444444", linestyle=":", label="95th percentile, training to training"
        )
        left.set(xlabel=f"similarity to the nearest ({space})", ylabel="density")
        left.legend(fontsize=7, framealpha=0.9, edgecolor="none")
        _curves(right, table)
        figure.savefig(path, dpi=150)


def _curves(axes: Axes, table: pd.DataFrame) -> None:
    for column, cluster, where, color in (
        ("calibrated_l2", "cluster", "whole image", "#0072B2"),
        ("tile_calibrated_l2", "tile_cluster", "best tile", "#D55E00"),
    ):
        for limit, style in zip(LIMITS.values(), ("-", "--"), strict=True):
            curve = distinct_curve(table[cluster].to_numpy(), (table[column] < limit).to_numpy())
            axes.plot(np.arange(1, len(curve) + 1), curve, style, color=color, label=f"{where}, under {limit:g}")
    axes.set(xlabel="generations", ylabel="distinct training groups extracted", ylim=(0, None))
    axes.legend(fontsize=7, frameon=False)


def most_certain(table: pd.DataFrame, column: str, cluster: str, count: int) -> pd.DataFrame:
    """The generation with the smallest value of a column for each training group, smallest first, at most `count`."""
    return table.sort_values(column, kind="stable").drop_duplicates(cluster).head(count)


def extracted_figure(table: pd.DataFrame, image_of: ImageOf, training_of: ImageOf, grid: int, path: Path) -> None:
    """Generations beside their training images: the most certain extractions of whole images, then of tiles alone.

    image_of: the number of a generation => uint8 [C, H, W]; training_of: a row of the training set => alike.
    """
    whole = most_certain(table, "calibrated_l2", "cluster", SHOWN)
    alone = table[table["calibrated_l2"] >= LIMITS["extracted"]] if grid > 1 else table.iloc[:0]
    local = most_certain(alone, "tile_calibrated_l2", "tile_cluster", SHOWN // 2)
    lines = -(-len(whole) // ACROSS), -(-len(local) // ACROSS)
    figure = Figure(figsize=(ACROSS * 2.1, 1.25 * sum(lines)))
    FigureCanvasAgg(figure)
    edges = {"left": 0.01, "right": 0.99, "bottom": 0.01, "top": 1 - 0.2 / sum(lines), "wspace": 0.05, "hspace": 0.25}
    cells = figure.subplots(sum(lines), 2 * ACROSS, squeeze=False, gridspec_kw=edges)  # a layout engine takes seconds for so many
    for cell in cells.flat:
        cell.set_axis_off()
    for number, found in enumerate(whole.itertuples()):
        _pair(cells[number // ACROSS, 2 * (number % ACROSS) :], image_of(found.generation), training_of(found.row), found.calibrated_l2)
    for number, found in enumerate(local.itertuples()):
        pair = cells[lines[0] + number // ACROSS, 2 * (number % ACROSS) :]
        _pair(pair, image_of(found.generation), training_of(found.tile_row), found.tile_calibrated_l2, "tile ")
        for cell in pair[:2]:
            cell.add_patch(_outline(found.tile, image_of(found.generation).shape[-1] // grid, grid))
    figure.savefig(path, dpi=130)


def _pair(cells: np.ndarray, generated: np.ndarray, training: np.ndarray, value: float, where: str = "") -> None:
    for cell, image in zip(cells, (generated, training), strict=False):
        cell.imshow(image.transpose(1, 2, 0).squeeze(-1) if len(image) == 1 else image.transpose(1, 2, 0), cmap="gray", vmin=0, vmax=255)
    extracted = value < LIMITS["extracted"]
    cells[0].set_title(f"{where}{value:.2f}", fontsize=7, loc="left", color="#000000" if extracted else "#999999")
    cells[1].set_title("training", fontsize=7, loc="left", color="#999999")


def _outline(tile: int, size: int, grid: int) -> Rectangle:
    """The border of a tile, numbered row by row."""
    y, x = divmod(tile, grid)
    return Rectangle((x * size - 0.5, y * size - 0.5), size, size, fill=False, edgecolor="#D55E00", linewidth=1.2)
