"""Curves over training, as inline SVG whose ink is the page's."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from afterglow.analysis.summary import of_plants
from afterglow.functional.statistics import bootstrap_interval
from afterglow.reports.fractions import StridedSampler, memorized_shares
from afterglow.reports.kinds import KINDS, REPEATED, UNCOPIED
from afterglow.reports.run import Run

INK = "#010203"  # stands for the page's own ink, light or dark
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "afterglow",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color"), INK),
}
MAX_TICKS = 8
LOSSES = {"control": ("training images", "-"), "heldout": ("held-out images", "--")}


def memorized_curves(run: Run) -> dict[str, str]:
    """{title: figure}: what is repeated, and beside it what must stay at zero."""
    shares = memorized_shares(run)
    figures = {"What was repeated": REPEATED, "What was not: a curve that rises is a false alarm": UNCOPIED}
    drawn = {title: [shares[kind] for kind in kinds if kind in shares] for title, kinds in figures.items()}
    return {title: _memorized(curves, run.steps) for title, curves in drawn.items() if curves}


def _memorized(curves: Sequence[Sequence[StridedSampler]], steps: Sequence[int]) -> str:
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes(steps)
        for curve in curves:
            kind, x = KINDS[curve[0].kind], [share.step for share in curve]
            low, high = zip(*(share.interval for share in curve), strict=True)
            label = f"{kind.name} ({max(share.count for share in curve)})"
            _curve(axes, x, [share.value for share in curve], (low, high), kind.color, marker=kind.marker, label=label)
        axes.set(ylim=(-0.03, 1.03), ylabel="memorized (share of plants)")
        axes.legend(loc="upper left", fontsize=9)
        return to_svg(figure, f"memorized-{curves[0][0].kind}")


def loss_curves(run: Run) -> str:
    """Denoising loss of training and of held-out images; empty where the run measured none."""
    rows = run.rows[run.rows["measure"] == "denoising_loss"]
    by_step = {step: of_plants(rows[rows["step"] == step]) for step in run.steps if (rows["step"] == step).any()}
    if not by_step:
        return ""
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes(run.steps)
        for kind, (label, style) in LOSSES.items():
            values = {step: part.loc[part["kind"] == kind, "value"].to_numpy() for step, part in by_step.items()}
            values = {step: part for step, part in values.items() if len(part)}
            if values:
                _loss(axes, values, f"{label} ({max(map(len, values.values()))})", KINDS[kind].color, style)
        axes.set(ylabel="denoising loss (MSE of the noise)", yscale="log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.legend(loc="upper right", fontsize=9)
        return to_svg(figure, "loss")


def _loss(axes: Axes, values: Mapping[int, np.ndarray], label: str, color: str, style: str) -> None:
    band = zip(*(bootstrap_interval(part) for part in values.values()), strict=True)
    _curve(axes, list(values), [part.mean() for part in values.values()], tuple(band), color, marker="o", linestyle=style, label=label)


def _curve(axes: Axes, x: Sequence[int], y: Sequence[float], band: Sequence, color: str, **about: str) -> None:
    axes.fill_between(x, *band, color=color, alpha=0.15, linewidth=0)
    axes.plot(x, y, color=color, markersize=4.5, linewidth=1.6, **about)  # type: ignore[arg-type]


def _axes(steps: Sequence[int]) -> tuple[Figure, Axes]:
    """Steps on a log axis that has a place for step 0."""
    figure = Figure(figsize=(5.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    positive = [step for step in steps if step > 0]
    axes.set_xscale("symlog", linthresh=min(positive, default=1), linscale=0.5)
    every = -(-len(positive) // MAX_TICKS) or 1
    ticks = [*([0] if 0 in steps else []), *positive[::-1][::every][::-1]]
    axes.set_xticks(ticks, [str(step) for step in ticks])
    axes.minorticks_off()
    axes.set_xlabel("training step (log scale; step 0 at the left)")
    axes.grid(alpha=0.15)
    return figure, axes


def to_svg(figure: Figure, name: str) -> str:
    """Inline SVG: no header, no metadata, the page's ink, names that no other figure of the page has."""
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    return re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
