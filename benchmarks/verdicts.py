"""Counts of an audit's verdicts, for benchmarks."""

import pandas as pd

from afterglow.analysis.audit import PART_COPY, WHOLE_COPY
from afterglow.functional.statistics import exact_interval

VERDICTS = {WHOLE_COPY: "global", PART_COPY: "local"}


def counts(verdicts: pd.Series) -> list[str]:
    """The fraction of each verdict."""
    return [fraction(int((verdicts == name).sum()), len(verdicts)) for name in VERDICTS]


def fraction(found: int, total: int) -> str:
    """'7 of 8 (47.3% to 99.7%)'; '-' of nothing."""
    low, high = exact_interval(found, total)
    return f"{found} of {total} ({low:.1%} to {high:.1%})" if total else "-"
