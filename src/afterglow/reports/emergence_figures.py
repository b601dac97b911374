"""When memorization emerges, as figures: curves over steps and over exposures, and what moves them."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from afterglow.analysis.scaling import CLOSE_SHARE, Fit, resampled
from afterglow.functional.survival import Interval, turnbull
from afterglow.reports.figures import STYLE
from afterglow.reports.kinds import KINDS

NUM_BANDS = 40  # resamples of a curve's band: each is an estimate of its own
LABELS_APART = 0.1  # of the length of an axis
GRID = 160  # places at which a band is reckoned
SET_COLORS = ("#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#000000", "#0072B2", "#888888")


def emergence_curves(plants: pd.DataFrame, *, axis: str) -> Figure:
    """Turnbull's estimate of the share of each kind that has emerged, over 'step' or 'exposures', with a 95 % band over runs."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.4, 3.6), layout="constrained")
        axes = figure.add_subplot()
        for kind in [kind for kind in KINDS if kind in set(plants["kind"])]:
            _survival(axes, on_axis(plants[plants["kind"] == kind], axis), kind)
        axes.set(xscale="log", ylim=(-0.03, 1.03), ylabel="emerged (share of plants)", xlabel=_label(axis))
        axes.legend(loc="upper left", fontsize=9)
        _plain_ticks(axes.xaxis)
        axes.grid(alpha=0.15)
        return figure


def on_axis(plants: pd.DataFrame, axis: str) -> pd.DataFrame:
    """Intervals in steps, or in exposures: steps * batch * copies / (n + sum of copies)."""
    if axis == "step":
        return plants
    exposed = plants[plants["rate"] > 0]
    return exposed.assign(lower=exposed["lower"] * exposed["rate"], upper=exposed["upper"] * exposed["rate"])


def _survival(axes: Axes, table: pd.DataFrame, kind: str) -> None:
    ends = np.concatenate([table["lower"], table["upper"]])
    ends = ends[np.isfinite(ends) & (ends > 0)]
    if not len(ends):
        return
    x = np.geomspace(ends.min(), ends.max(), GRID)
    draws = [emerged(draw, x) for draw in resampled(table, num_resamples=NUM_BANDS)]
    if draws:
        axes.fill_between(x, *np.quantile(draws, [0.025, 0.975], axis=0), color=KINDS[kind].color, alpha=0.15, linewidth=0, step="post")  # type: ignore[misc]
    axes.step(x, emerged(table, x), where="post", color=KINDS[kind].color, linewidth=1.6, label=f"{kind} ({len(table)})")


def emerged(table: pd.DataFrame, x: np.ndarray) -> np.ndarray:
    """Share that has emerged by each x, by Turnbull's estimate of the intervals (lower, upper]."""
    intervals = [Interval(a, b) for a, b in zip(table["lower"].tolist(), table["upper"].tolist(), strict=True)]
    ends, shares = turnbull(intervals)
    ends, shares = ends[np.isfinite(ends)], shares[np.isfinite(ends)]
    return np.concatenate([[0.0], shares])[np.searchsorted(ends, x, side="right")]


def against(table: pd.DataFrame, term: str, found: Fit | None, *, slope: float | None, axis: str, mark: str = "kind") -> Figure:
    """Each interval as a bar against one of its columns, the fit through them, and a dashed line of the reference slope."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.4, 3.6), layout="constrained")
        axes = figure.add_subplot()
        marks = [kind for kind in KINDS if kind in set(table[mark])] if mark == "kind" else list(dict.fromkeys(table[mark]))
        for place, name in enumerate(marks):
            _bars(axes, table[table[mark] == name], term, name, 1 + 0.05 * (place - (len(marks) - 1) / 2))
        _lines(axes, table, term, found, slope)
        axes.set(xscale="log", yscale="log", xlabel=_label(term), ylabel=_label(axis))
        ticks = readable(sorted(set(table[term].tolist())))
        _plain_ticks(axes.yaxis)
        axes.minorticks_off()
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.legend(fontsize=8)
        axes.grid(alpha=0.15)
        return figure


def readable(values: Sequence[float]) -> list[float]:
    """Those of the values, in ascending order, whose labels do not run into each other on a logarithmic axis: a tenth of it apart."""
    apart = (values[-1] / values[0]) ** LABELS_APART
    kept: list[float] = []
    for value in values:
        if not kept or value >= kept[-1] * apart:
            kept.append(value)
    return kept


def _bars(axes: Axes, some: pd.DataFrame, term: str, name: str, shift: float) -> None:
    look: dict[str, Any] = {"color": KINDS[name].color if name in KINDS else "#0072B2"}
    spread = np.exp(np.random.default_rng(0).uniform(-0.02, 0.02, len(some)))
    x, lower = some[term].to_numpy(float) * shift * spread, np.maximum(some["lower"].to_numpy(float), 1)
    ended = np.isfinite(some["upper"].to_numpy(float))
    axes.vlines(x[ended], lower[ended], some["upper"].to_numpy(float)[ended], linewidth=1.4, label=f"{name} ({len(some)})", **look)
    if (~ended).any():
        axes.plot(x[~ended], lower[~ended], "^", markersize=4, fillstyle="none", label=f"{name}, not yet ({(~ended).sum()})", **look)


def _lines(axes: Axes, table: pd.DataFrame, term: str, found: Fit | None, slope: float | None) -> None:
    """The fit with all other terms at their geometric mean; the reference through its middle."""
    if found is None or term not in found.slopes:
        return
    x = np.geomspace(table[term].min(), table[term].max(), 2)
    rest = sum(one.value * np.log(table[name]).mean() for name, one in found.slopes.items() if name != term)
    one = found.slopes[term]
    y = np.exp(found.constant + rest + one.value * np.log(x))
    axes.plot(x, y, color="#444444", linewidth=1.2, label=f"fit: slope {one.value:.2f} [{one.low:.2f}, {one.high:.2f}]")
    if slope is not None:
        middle = np.exp(np.log(y).mean())
        axes.plot(x, middle * (x / np.sqrt(x[0] * x[1])) ** slope, "--", color="#444444", linewidth=1, label=f"reference: slope {slope:g}")


def share_curves(shares: pd.DataFrame, losses: pd.DataFrame) -> Figure:
    """f_mem, and under it the held-out loss, over steps; a color a set size, a line a run."""
    sizes = sorted(shares["n"].unique())
    color = {size: SET_COLORS[place % len(SET_COLORS)] for place, size in enumerate(sizes)}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.4, 5.4), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True)
        _runs(above, shares, "f_mem", color)
        _runs(below, losses[(losses["kind"] == "heldout") & losses["run"].isin(set(shares["run"]))], "loss", color)
        above.axhline(CLOSE_SHARE, color="#888888", linewidth=0.8, linestyle=":")
        above.set(ylabel="generations with d1/d2 < 1/3", ylim=(-0.03, 1.03))
        below.set(xscale="log", yscale="log", xlabel=_label("step"), ylabel="held-out denoising loss")
        above.legend(fontsize=8, title="training images", title_fontsize=8)
        _plain_ticks(below.xaxis)
        _plain_ticks(below.yaxis)
        for axes in (above, below):
            axes.grid(alpha=0.15)
        return figure


def _runs(axes: Axes, table: pd.DataFrame, column: str, color: dict[Any, str]) -> None:
    seen: set[Any] = set()
    for _, part in table[table["step"] > 0].groupby(["n", "run"]):
        n = part["n"].iloc[0]
        axes.plot(part["step"], part[column], color=color[n], linewidth=1.2, label=None if n in seen else f"{n:g}")
        seen.add(n)


def _plain_ticks(axis: Axis) -> None:
    """1, 2, 5, 10, ... on a log axis, written out."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def _label(name: str) -> str:
    return {
        "step": "training step",
        "exposures": "exposures: how often the plant was shown",
        "n": "training images beside the plants (n)",
        "copies": "copies an epoch",
        "area": "region, share of the image",
        "width": "channels of the first level",
    }[name]
