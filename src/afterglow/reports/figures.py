"""Figures of all reports share one style; the curves of a run's page are inline SVG in the colors of the page."""

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from afterglow.analysis.summary import plant_means
from afterglow.functional.statistics import bootstrap
from afterglow.kinds import KINDS, NEGATIVES, PLANTED
from afterglow.reports.run import MemorizedFraction, Run

INK = "#010203"  # replaced by the text color of the page, light or dark
PLAIN_STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "afterglow", "axes.spines.top": False, "axes.spines.right": False}
PAGE_STYLE: Any = {
    **PLAIN_STYLE,
    "font.size": 10,
    "legend.frameon": False,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color"), INK),
}
MAX_TICKS = 8
LOSSES = {"control": ("training images", "-"), "heldout": ("held-out images", "--")}


def new_figure(width: float, height: float, *, layout: Any = "constrained") -> Figure:
    """An empty figure of this size in inches, which needs no display."""
    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, paths: Sequence[Path]) -> None:
    """Write a figure to files; SVG carries no date, so that the same figure is the same file."""
    for path in paths:
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


def plain_log_ticks(axis: Axis) -> None:
    """Label 1, 2, 5, 10, ... on a logarithmic axis in full."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def memorized_curves(run: Run) -> dict[str, str]:
    """{title: SVG} of the memorized fractions of repeated kinds, and of kinds whose curve should stay at zero."""
    titles = {
        "Repeated in training": (*PLANTED, "unprompted"),
        "Not repeated: a rising curve is a false positive or a copy of a single image": NEGATIVES,
    }
    curves = {title: [run.memorized[kind] for kind in kinds if kind in run.memorized] for title, kinds in titles.items()}
    return {title: _memorized(fractions, run.steps) for title, fractions in curves.items() if fractions}


def _memorized(curves: Sequence[Sequence[MemorizedFraction]], steps: Sequence[int]) -> str:
    with matplotlib.rc_context(PAGE_STYLE):
        figure, axes = _step_axes(steps)
        for curve in curves:
            kind, x = KINDS[curve[0].kind], [fraction.step for fraction in curve]
            band = tuple(zip(*(fraction.interval for fraction in curve), strict=True))
            label = f"{kind.name} ({max(fraction.count for fraction in curve)})"
            _curve(axes, x, [fraction.value for fraction in curve], band, kind.color, marker=kind.marker, label=label)
        axes.set(ylim=(-0.03, 1.03), ylabel="memorized fraction")
        axes.legend(loc="upper left", fontsize=9)
        return to_svg(figure, f"memorized-{curves[0][0].kind}")


def loss_curves(run: Run) -> str:
    """SVG of the denoising loss of training and of held-out images; empty if the run did not measure it."""
    rows = run.rows[run.rows["measure"] == "denoising_loss"]
    by_step = {step: plant_means(rows[rows["step"] == step]) for step in run.steps if (rows["step"] == step).any()}
    if not by_step:
        return ""
    with matplotlib.rc_context(PAGE_STYLE):
        figure, axes = _step_axes(run.steps)
        for kind, (label, style) in LOSSES.items():
            values = {step: part.loc[part["kind"] == kind, "value"].to_numpy() for step, part in by_step.items()}
            values = {step: part for step, part in values.items() if len(part)}
            if values:
                _loss(axes, values, f"{label} ({max(map(len, values.values()))})", KINDS[kind].color, style)
        axes.set(ylabel="denoising loss (MSE of the noise)", yscale="log")
        plain_log_ticks(axes.yaxis)
        axes.legend(loc="upper right", fontsize=9)
        return to_svg(figure, "loss")


def _loss(axes: Axes, values: Mapping[int, np.ndarray], label: str, color: str, style: str) -> None:
    estimates = [bootstrap(part) for part in values.values()]
    band = [estimate.low for estimate in estimates], [estimate.high for estimate in estimates]
    _curve(axes, list(values), [part.mean() for part in values.values()], band, color, marker="o", linestyle=style, label=label)


def _curve(axes: Axes, x: Sequence[int], y: Sequence[float], band: Sequence, color: str, **style: str) -> None:
    axes.fill_between(x, *band, color=color, alpha=0.15, linewidth=0)
    axes.plot(x, y, color=color, markersize=4.5, linewidth=1.6, **style)  # type: ignore[arg-type]


def _step_axes(steps: Sequence[int]) -> tuple[Figure, Axes]:
    """Steps on a logarithmic axis with a place for step 0."""
    figure = new_figure(5.4, 3.6)
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
    """Inline SVG without header, metadata and size, in the text color of the page; `name` makes its ids unique on the page."""
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    return re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
