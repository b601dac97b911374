"""Figures of all reports share one style; on pages they are inline SVG in the colors of the page."""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

INK = "#010203"  # replaced by the text color of the page, light or dark
PLAIN_STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "afterglow", "axes.spines.top": False, "axes.spines.right": False}
PAGE_STYLE: Any = {
    **PLAIN_STYLE,
    "font.size": 10,
    "legend.frameon": False,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color"), INK),
}


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches, which needs no display."""
    figure = Figure(figsize=(width, height), layout="constrained")
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


def to_svg(figure: Figure, name: str) -> str:
    """Inline SVG without header, metadata and size, in the text color of the page; `name` makes its ids unique on the page."""
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    return re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
