"""What a table of the page is made of. A number is shown rounded and kept exactly beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from afterglow.functional.statistics import bootstrap_interval, wilson_interval


@dataclass(frozen=True)
class Cell:
    """text is shown; exact is what the pointer finds on it."""

    text: str
    exact: str = ""


@dataclass(frozen=True)
class Row:
    """kind gives the color; mark is a remark on the row (trivial, chosen after the fact)."""

    label: str
    cells: Sequence[Cell]
    kind: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Table:
    """head names every column, the first among them; groups: (label, number of columns) over the head."""

    head: Sequence[str]
    rows: Sequence[Row]
    groups: Sequence[tuple[str, int]] = ()


NO_PLANTS = Cell("–")


def decimal(value: float | None, digits: int = 3) -> Cell:
    """None, where a run has no such number, is a dash."""
    return NO_PLANTS if value is None else Cell(f"{value:.{digits}f}", repr(float(value)))


def percent(value: float | None) -> Cell:
    """As `decimal`, of a share."""
    return NO_PLANTS if value is None else Cell(f"{value:.0%}", repr(float(value)))


def counted(successes: float, count: int) -> Cell:
    """'7 of 8 (88%; 53%-98%)' with Wilson's interval."""
    if not count:
        return NO_PLANTS
    share, (low, high) = successes / count, wilson_interval(successes, count)
    return Cell(f"{successes:g} of {count} ({share:.0%}; {low:.0%}–{high:.0%})", f"{share!r}, 95%: {low!r} to {high!r}")


def averaged(values: np.ndarray, mean: float | None = None) -> Cell:
    """Mean over plants with its bootstrap interval; `mean`: as the run logged it."""
    center = float(values.mean()) if mean is None else float(mean)
    low, high = bootstrap_interval(values)
    return Cell(f"{center:.2f} ({low:.2f}–{high:.2f})", f"{center!r}, 95%: {low!r} to {high!r}")


def difference(values: np.ndarray) -> Cell:
    """As `averaged`, of differences, with their sign."""
    mean, low, high = float(values.mean()), *bootstrap_interval(values)
    shown = (f"{round(value, 2) + 0.0:+.2f}" for value in (mean, low, high))  # + 0.0: no minus before zero
    return Cell("{} ({} to {})".format(*shown), f"{mean!r}, 95%: {low!r} to {high!r}")


def when(about: Mapping[str, Any], last: int) -> Cell:
    """A quartile of the emergence step with its interval; what is later than the run is said so."""
    step, low, high = (_step(about[name], last) for name in ("step", "low", "high"))
    text = step if step == low == high else f"{step} ({low}–{high})"
    return Cell(text, text if step == low == high else f"{step}, 95%: {low} to {high}")


def _step(step: float | None, last: int) -> str:
    return f"after {last}" if step is None else f"{step:.0f}"
