"""The one renderer of tables for terminals and Markdown, the tables of HTML pages, and the format of numbers in both."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from afterglow.functional.statistics import Estimate, bootstrap, exact_at_bounds, wilson_interval


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown table with columns aligned for a terminal; text from outside, such as the name of a run, stays in its cell."""
    head, *rows = [[_cell(text) for text in line] for line in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines)


def _cell(text: str) -> str:
    """The text in one line, without the end of a cell and the begin of an HTML element."""
    return re.sub(r"\||<(?=[A-Za-z/!?])", r"\\\g<0>", "".join(letter if letter.isprintable() else " " for letter in text))


def order_text(factor: Estimate, verb: str = "memorized") -> str:
    """How one kind of plant stands to another by the factor between their steps.

    >>> order_text(Estimate(1.4, 1.2, 1.6)), order_text(Estimate(1.4, 0.9, 1.6), "copied")
    ('memorized later than', 'not distinguishable in time from')
    """
    return f"{verb} later than" if factor.low > 1 else f"{verb} earlier than" if factor.high < 1 else "not distinguishable in time from"


def interval_text(row: Any, spec: str = ".2f", unit: str = "") -> str:
    """'0.88 [0.83, 0.91]' of anything with value, low and high: an Estimate or a row of a table."""
    return Estimate(row.value, row.low, row.high).text(spec, unit)


def count_text(successes: float, count: int, digits: int = 0) -> str:
    """'7 of 8 (53% to 98%)' with the 95 % Wilson interval; '-' without trials."""
    low, high = wilson_interval(successes, count)
    return f"{successes:g} of {count} ({low:.{digits}%} to {high:.{digits}%})" if count else "-"


@dataclass(frozen=True)
class Cell:
    """A cell of an HTML table: the text, and the exact value as a tooltip."""

    text: str
    exact: str = ""


@dataclass(frozen=True)
class Row:
    """A row of an HTML table. kind sets the color; remark stands under the label; shaded rows are trivial baselines."""

    label: str
    cells: Sequence[Cell]
    kind: str = ""
    remark: str = ""
    shaded: bool = False


@dataclass(frozen=True)
class Table:
    """An HTML table. head: one name per column, including the labels; groups: (label, number of columns) above the head."""

    head: Sequence[str]
    rows: Sequence[Row]
    groups: Sequence[tuple[str, int]] = ()


NO_VALUE = Cell("–")


def number_cell(value: float | None, spec: str = ".3f") -> Cell:
    """A rounded number with its exact value; a dash for None."""
    return NO_VALUE if value is None else Cell(f"{value:{spec}}", repr(float(value)))


def count_cell(successes: float, count: int) -> Cell:
    """As count_text, with the exact fraction."""
    return Cell(count_text(successes, count), repr(successes / count)) if count else NO_VALUE


def mean_cell(values: np.ndarray, mean: float | None = None, spec: str = ".2f") -> Cell:
    """Mean over plants with its 95 % bootstrap interval; exact at a mean of 0 or 1 of an AUC or IoU.

    Args:
        values: one per plant, [N].
        mean: the logged mean, if it is known.
        spec: format; a sign marks a difference, which has no bounds.
    """
    interval = bootstrap(values)
    estimate = Estimate(float(values.mean()) if mean is None else float(mean), interval.low, interval.high)
    if not spec.startswith("+"):
        estimate = exact_at_bounds(estimate, len(values))
    return Cell(estimate.text(spec), f"{estimate.value!r}, 95 %: {estimate.low!r} to {estimate.high!r}")


def step_text(quantile: Mapping[str, float | None], last: int) -> str:
    """'20 [10, 40]' of a quantile of emergence; steps after the last evaluation are written 'after N'.

    Args:
        quantile: step, low and high; None means later than the last evaluation.
        last: the step of the last evaluation.
    """
    step, low, high = (f"after {last}" if quantile[name] is None else f"{quantile[name]:.0f}" for name in ("step", "low", "high"))
    return step if quantile["low"] is None else f"{step} [{low}, {high}]"


def duration(seconds: float) -> str:
    """Seconds in a unit that fits: '45 seconds', '3.2 minutes', '5.1 hours', '2.3 days'."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length or (unit == "minutes" and seconds >= length):
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"
