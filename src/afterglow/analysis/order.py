"""Whether local plants emerge before or after global ones within one run (docs/methods.md#emergence)."""

import math
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeAlias

import numpy as np

from afterglow.functional.statistics import Estimate, percentile_estimate
from afterglow.functional.survival import interval_regression

NUM_ORDER_DRAWS = 200
Intervals: TypeAlias = tuple[tuple[float, float], ...]


def local_over_global(emergence: Mapping[str, Any]) -> Estimate | None:
    """Factor by which local plants emerge later than global plants of one run, in training steps.

    The exponential of the difference of the two means in an interval-censored log-normal regression. The interval resamples the
    plants of each kind. The plants are not paired: the size of a mask affects the test, and only paired runs compare templates.

    Args:
        emergence: content of emergence.json.

    Returns:
        The factor with its 95 % interval; None unless a plant of each kind has emerged.
    """
    kinds = [emergence["kinds"].get(kind, {}).get("intervals", {}).values() for kind in ("global", "local")]
    return _local_over_global(*(tuple((low, math.inf if high is None else high) for low, high in part) for part in kinds))


@cache  # a training asks again after every evaluation
def _local_over_global(whole: Intervals, local: Intervals) -> Estimate | None:
    ends = [np.array(whole), np.array(local)]
    if not all(len(part) and np.isfinite(part[:, 1]).any() for part in ends):
        return None
    generator = np.random.default_rng(0)
    factor = cache(_factor)  # plants share intervals, so that few draws differ
    draws = [factor(*map(_sorted, ends))]
    for _ in range(NUM_ORDER_DRAWS):
        first, second = (part[generator.integers(len(part), size=len(part))] for part in ends)
        if np.isfinite(first[:, 1]).any() and np.isfinite(second[:, 1]).any():
            draws.append(factor(_sorted(first), _sorted(second)))
    return percentile_estimate(draws)


def _sorted(ends: np.ndarray) -> Intervals:
    return tuple(sorted(map(tuple, ends.tolist())))


def _factor(first: Intervals, second: Intervals) -> float:
    lower, upper = np.array(first + second).T
    design = np.column_stack([np.repeat([0.0, 1.0], [len(first), len(second)]), np.ones(len(lower))])
    return float(np.exp(interval_regression(lower, upper, design)[0][0]))
