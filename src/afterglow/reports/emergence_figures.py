"""Figures of emergence: curves over steps and over exposures, and intervals against what varies between runs."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from afterglow.analysis.scaling import CLOSE_SHARE, Fit, resampled_tables
from afterglow.functional.survival import Interval, turnbull
from afterglow.kinds import KINDS
from afterglow.reports.figures import PAGE_STYLE, new_figure, plain_log_ticks
from afterglow.reports.tables import interval_text

NUM_BANDS = 40  # bootstrap samples for the band of a curve
LABEL_DISTANCE = 0.1  # of the length of an axis
NUM_POINTS = 160  # of a band
SET_COLORS = ("#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#000000", "#0072B2", "#888888")


def emergence_curves(plants: pd.DataFrame, *, axis: str) -> Figure:
    """Turnbull's estimate of the fraction of each kind that has emerged, with a 95 % band over runs.

    Args:
        plants: columns run, unit, kind, rate, lower, upper.
        axis: step or exposures.
    """
    with matplotlib.rc_context(PAGE_STYLE):
        figure = new_figure(5.4, 3.6)
        axes = figure.add_subplot()
        for kind in [kind for kind in KINDS if kind in set(plants["kind"])]:
            _emergence_curve(axes, on_axis(plants[plants["kind"] == kind], axis), kind)
        axes.set(xscale="log", ylim=(-0.03, 1.03), ylabel="emerged fraction", xlabel=_label(axis))
        axes.legend(loc="upper left", fontsize=9)
        plain_log_ticks(axes.xaxis)
        axes.grid(alpha=0.15)
        return figure


def on_axis(plants: pd.DataFrame, axis: str) -> pd.DataFrame:
    """Intervals in steps, or in exposures (steps x rate) for axis 'exposures'; plants that are never shown have no exposures."""
    if axis == "step":
        return plants
    exposed = plants[plants["rate"] > 0]
    return exposed.assign(lower=exposed["lower"] * exposed["rate"], upper=exposed["upper"] * exposed["rate"])


def _emergence_curve(axes: Axes, table: pd.DataFrame, kind: str) -> None:
    ends = np.concatenate([table["lower"], table["upper"]])
    ends = ends[np.isfinite(ends) & (ends > 0)]
    if not len(ends):
        return
    x = np.geomspace(ends.min(), ends.max(), NUM_POINTS)
    draws = [emerged(draw, x) for draw in resampled_tables(table, num_resamples=NUM_BANDS)]
    if draws:
        axes.fill_between(x, *np.quantile(draws, [0.025, 0.975], axis=0), color=KINDS[kind].color, alpha=0.15, linewidth=0, step="post")  # type: ignore[misc]
    axes.step(x, emerged(table, x), where="post", color=KINDS[kind].color, linewidth=1.6, label=f"{kind} ({len(table)})")


def emerged(table: pd.DataFrame, x: np.ndarray) -> np.ndarray:
    """Fraction that has emerged by each x, [N], by Turnbull's estimate of the intervals (lower, upper]."""
    intervals = [Interval(a, b) for a, b in zip(table["lower"].tolist(), table["upper"].tolist(), strict=True)]
    ends, fractions = turnbull(intervals)
    ends, fractions = ends[np.isfinite(ends)], fractions[np.isfinite(ends)]
    return np.concatenate([[0.0], fractions])[np.searchsorted(ends, x, side="right")]


def interval_plot(table: pd.DataFrame, term: str, fit: Fit | None, *, slope: float | None, axis: str) -> Figure:
    """Each interval as a bar against one column, the fit, and a dashed line with the reference slope.

    Args:
        table: columns kind, lower, upper and the term.
        term: column of the x axis.
        fit: drawn if it has the term.
        slope: of the reference, or None.
        axis: step or exposures.
    """
    with matplotlib.rc_context(PAGE_STYLE):
        figure = new_figure(5.4, 3.6)
        axes = figure.add_subplot()
        kinds = [kind for kind in KINDS if kind in set(table["kind"])]
        for place, kind in enumerate(kinds):
            _bars(axes, table[table["kind"] == kind], term, kind, 1 + 0.05 * (place - (len(kinds) - 1) / 2))
        _lines(axes, table, term, fit, slope)
        axes.set(xscale="log", yscale="log", xlabel=_label(term), ylabel=_label(axis))
        ticks = spaced_values(sorted(set(table[term].tolist())))
        plain_log_ticks(axes.yaxis)
        axes.minorticks_off()
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.legend(fontsize=8)
        axes.grid(alpha=0.15)
        return figure


def spaced_values(values: Sequence[float]) -> list[float]:
    """Rising values without those closer than LABEL_DISTANCE to the one before on a logarithmic axis, so that labels do not overlap."""
    factor = (values[-1] / values[0]) ** LABEL_DISTANCE
    spaced: list[float] = []
    for value in values:
        if not spaced or value >= spaced[-1] * factor:
            spaced.append(value)
    return spaced


def _bars(axes: Axes, table: pd.DataFrame, term: str, kind: str, shift: float) -> None:
    color, jitter = KINDS[kind].color, np.exp(np.random.default_rng(0).uniform(-0.02, 0.02, len(table)))
    x, lower, upper = (
        table[term].to_numpy(float) * shift * jitter,
        np.maximum(table["lower"].to_numpy(float), 1),
        table["upper"].to_numpy(float),
    )
    emerged = np.isfinite(upper)
    axes.vlines(x[emerged], lower[emerged], upper[emerged], color=color, linewidth=1.4, label=f"{kind} ({len(table)})")
    if (~emerged).any():
        label = f"{kind}, not emerged ({(~emerged).sum()})"
        axes.plot(x[~emerged], lower[~emerged], "^", color=color, markersize=4, fillstyle="none", label=label)


def _lines(axes: Axes, table: pd.DataFrame, term: str, fit: Fit | None, slope: float | None) -> None:
    """The fit with all other terms at their geometric mean, and the reference through its middle."""
    if fit is None or term not in fit.slopes:
        return
    x = np.geomspace(table[term].min(), table[term].max(), 2)
    rest = sum(estimate.value * np.log(table[name]).mean() for name, estimate in fit.slopes.items() if name != term)
    y = np.exp(fit.constant + rest + fit.slopes[term].value * np.log(x))
    axes.plot(x, y, color="#444444", linewidth=1.2, label=f"fit: slope {interval_text(fit.slopes[term])}")
    if slope is not None:
        middle = np.exp(np.log(y).mean())
        axes.plot(x, middle * (x / np.sqrt(x[0] * x[1])) ** slope, "--", color="#444444", linewidth=1, label=f"reference: slope {slope:g}")


def f_mem_curves(fractions: pd.DataFrame, losses: pd.DataFrame) -> Figure:
    """f_mem and the held-out loss over steps; one color per set size, one line per run. Arguments: tables of EmergenceTables."""
    sizes = sorted(fractions["n"].unique())
    color = {size: SET_COLORS[place % len(SET_COLORS)] for place, size in enumerate(sizes)}
    with matplotlib.rc_context(PAGE_STYLE):
        figure = new_figure(5.4, 5.4)
        above, below = figure.subplots(2, 1, sharex=True)
        _run_lines(above, fractions, "f_mem", color)
        _run_lines(below, losses[(losses["kind"] == "heldout") & losses["run"].isin(set(fractions["run"]))], "loss", color)
        above.axhline(CLOSE_SHARE, color="#888888", linewidth=0.8, linestyle=":")
        above.set(ylabel="generations with d1/d2 < 1/3", ylim=(-0.03, 1.03))
        below.set(xscale="log", yscale="log", xlabel=_label("step"), ylabel="held-out denoising loss")
        above.legend(fontsize=8, title="training images", title_fontsize=8)
        plain_log_ticks(below.xaxis)
        plain_log_ticks(below.yaxis)
        for axes in (above, below):
            axes.grid(alpha=0.15)
        return figure


def _run_lines(axes: Axes, table: pd.DataFrame, column: str, color: dict[Any, str]) -> None:
    labeled: set[Any] = set()
    for _, part in table[table["step"] > 0].groupby(["n", "run"]):
        n = part["n"].iloc[0]
        axes.plot(part["step"], part[column], color=color[n], linewidth=1.2, label=None if n in labeled else f"{n:g}")
        labeled.add(n)


def _label(name: str) -> str:
    return {
        "step": "training step",
        "exposures": "exposures: number of times the plant was shown",
        "n": "training images (n)",
        "copies": "copies per epoch",
        "area": "area of the region, fraction of the image",
        "width": "channels of the first level",
    }[name]
