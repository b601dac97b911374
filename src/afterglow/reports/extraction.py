"""Results of `afterglow extract` as text and as figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from afterglow.analysis.extraction import LIMITS, MIN_CHOOSING, SIMILARITY_QUANTILE, UNSEEN_FRACTION, Fraction, distinct_curve
from afterglow.reports.figures import PLAIN_STYLE, new_figure
from afterglow.reports.tables import count_text, text_table

TILE_NOTE = "The limit of the best tile was chosen on every second unseen image, at most 1, and tested on the others."
NO_TILES = (
    "There is no verdict on tiles: their limit is chosen on every second unseen image, and with {chosen} of them the expected "
    f"false-positive rate is 1/{{number}} = {{rate:.1%}}, above {UNSEEN_FRACTION:.0%}. {2 * MIN_CHOOSING - 1} unseen images are enough: "
    "name a folder with --heldout, or hold more images out of the training (num_heldout)."
)
NO_HELDOUT_IMAGES = (
    "No held-out images are known, so the false-positive rate is unknown, and no interval and no verdict on tiles are given: "
    "name a folder with --heldout, or hold images out of the training (num_heldout)."
)


def extraction_text(fractions: Sequence[Fraction], table: pd.DataFrame, training: np.ndarray, settings: Mapping[str, object]) -> str:
    """The settings, the extracted fractions with their intervals, and quantiles of the two similarities.

    Args:
        fractions: of the generations.
        table: one row per generation.
        training: similarity of training images to their nearest other training image, [N].
        settings: of the generation and the comparison.
    """
    head, rows = ["of the generations", "count", "fraction [95 %]", "distinct clusters", "unseen images that pass (false positives)"], []
    for part in fractions:
        low, high = part.interval
        interval = "" if part.unseen is None else f" [{low:.4f}, {high:.4f}]"
        distinct = "" if part.distinct is None else str(part.distinct)
        false_positives = "-" if part.unseen is None else count_text(*part.unseen, digits=1)
        rows.append(
            [part.name, f"{part.count} / {part.total}", f"{part.count / max(1, part.total):.4f}{interval}", distinct, false_positives]
        )
    used = (
        f"{table['neighbors'].min()}" if table["neighbors"].nunique() == 1 else f"{table['neighbors'].min()} to {table['neighbors'].max()}"
    )
    notes = [f"Other clusters that calibrate a whole image: {used}.", _tile_note(fractions)]
    quantiles = [
        [name, str(len(values)), *(f"{np.quantile(values, level):.3f}" for level in (0.05, 0.5, 0.95))]
        for name, values in (("generation to training", table["similarity"].to_numpy()), ("training to training", training))
    ]
    header = "\n".join(f"{key}: {value}" for key, value in settings.items() if value is not None)
    similarity = text_table(["similarity", "images", "5 %", "median", "95 %"], quantiles)
    return "\n\n".join([header, text_table(head, rows), *notes, similarity])


def _tile_note(fractions: Sequence[Fraction]) -> str:
    """How the limit of the best tile was chosen, or why there is none."""
    unseen = fractions[0].unseen
    if unseen is None:
        return NO_HELDOUT_IMAGES
    if any(part.key == "tile" for part in fractions):
        return TILE_NOTE
    chosen = (unseen[1] + 1) // 2
    return NO_TILES.format(chosen=chosen, number=chosen + 1, rate=1 / (chosen + 1))


def histograms_figure(table: pd.DataFrame, training: np.ndarray, space: str, path: Path, limit: float | None) -> None:
    """Histograms of similarity (Somepalli et al. 2023), beside the number of distinct training clusters against generations.

    Arguments as in `extraction_text`; space: name of the similarity; path: PNG to write; limit: of the best tile, None: no curve.
    """
    with matplotlib.rc_context(PLAIN_STYLE):
        figure = new_figure(10, 3.6)
        left, right = figure.subplots(1, 2)
        values = table["similarity"].to_numpy()
        bins = np.histogram_bin_edges(np.concatenate([values, training]), bins=60)
        for part, label, color in ((values, "generation to training", "#D55E00"), (training, "training to training", "#0072B2")):
            left.hist(part, bins=bins, density=True, alpha=0.55, color=color, label=f"{label} ({len(part)})")
        left.axvline(
            float(np.quantile(training, SIMILARITY_QUANTILE)), color="#444444", linestyle=":", label="95th percentile, training to training"
        )
        left.set(xlabel=f"similarity to the nearest image ({space})", ylabel="density")
        left.legend(fontsize=7, framealpha=0.9, edgecolor="none")
        _curves(right, table, limit)
        figure.savefig(path, dpi=150)


def _curves(axes: Axes, table: pd.DataFrame, tile_limit: float | None) -> None:
    whole, tile = ("calibrated_l2", "cluster", "whole image", "#0072B2"), ("tile_calibrated_l2", "tile_cluster", "best tile", "#D55E00")
    drawn = [(whole, limit, style) for limit, style in zip(LIMITS.values(), ("-", "--"), strict=True)]
    drawn += [] if tile_limit is None else [(tile, tile_limit, "-")]
    for (column, cluster, where, color), limit, style in drawn:
        curve = distinct_curve(table[cluster].to_numpy(), (table[column] < limit).to_numpy())
        axes.plot(np.arange(1, len(curve) + 1), curve, style, color=color, label=f"{where}, under {limit:.3g}")
    axes.set(xlabel="generations", ylabel="distinct training clusters extracted", ylim=(0, None))
    axes.legend(fontsize=7, frameon=False)
