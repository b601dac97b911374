"""Estimates with 95 % intervals: bootstrap over units, runs and seeds, and score and exact intervals of fractions.

Method: docs/methods.md#statistics.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from scipy.special import betaincinv, ndtri

NUM_RESAMPLES = 1000
Groups: TypeAlias = "np.ndarray | Sequence[Groups]"  # numbers of units, nested by run, and by seed above the runs
Seed: TypeAlias = int | np.random.Generator


@dataclass(frozen=True)
class Estimate:
    """A number and the ends of its interval (95 % unless stated otherwise).

    >>> print(Estimate(0.876, 0.831, 0.912))
    0.88 [0.83, 0.91]
    >>> print(Estimate(1.5, 1.2, 1.9).text("+.1f", unit="x"))
    +1.5x [+1.2, +1.9]
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return self.text()

    def text(self, spec: str = ".2f", unit: str = "") -> str:
        """Value, unit and interval, each number in the given format."""
        return f"{self.value:{spec}}{unit} [{self.low:{spec}}, {self.high:{spec}}]"

    def map(self, function: Callable[[float], Any]) -> "Estimate":
        """The estimate under a rising function, for example np.exp."""
        return Estimate(float(function(self.value)), float(function(self.low)), float(function(self.high)))


def wilson_interval(successes: float, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a fraction. Unlike a bootstrap it has a width at 0 and 1. Without trials: (0, 1).

    >>> low, high = wilson_interval(8, 8)
    >>> print(f"{low:.2f} {high:.2f}")
    0.68 1.00
    """
    if count == 0:
        return 0.0, 1.0
    z, share = float(ndtri((1 + confidence) / 2)), successes / count
    center = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * float(np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)))
    return max(0.0, center - half), min(1.0, center + half)


def exact_interval(successes: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact interval of a fraction (Clopper and Pearson 1934). Without trials: (0, 1).

    >>> low, high = exact_interval(0, 10)
    >>> print(f"{low:.2f} {high:.2f}")
    0.00 0.31
    """
    tail = (1 - confidence) / 2
    low = float(betaincinv(successes, count - successes + 1, tail)) if successes else 0.0
    high = float(betaincinv(successes + 1, count - successes, 1 - tail)) if successes < count else 1.0
    return low, high


def resample(values: Sequence[float] | np.ndarray, statistic: Callable[..., Any] = np.mean, *, seed: Seed = 0) -> np.ndarray:
    """A statistic of a sample, followed by the same statistic of bootstrap samples, float [1 + NUM_RESAMPLES].

    Args:
        values: independent units, [N].
        statistic: takes an array and `axis`.
        seed: of the draws, or a generator.
    """
    sample = np.asarray(values, dtype=float)
    draws = np.random.default_rng(seed).choice(sample, size=(NUM_RESAMPLES, len(sample)))
    return np.append(statistic(sample), statistic(draws, axis=1))


def percentile_estimate(resampled: Sequence[float] | np.ndarray, confidence: float = 0.95, *, method: Any = "linear") -> Estimate:
    """Estimate from a statistic and its resamples, [1 + R]: the first entry, and the central quantiles of the others.

    method: as in np.quantile; "inverted_cdf" and "nearest" give drawn values only, for statistics that may be infinite.
    """
    tail = round((1 - confidence) / 2, 12)  # exactly 0.025, so that drawn values are not skipped
    low, high = np.quantile(resampled[1:], [tail, 1 - tail], method=method)
    return Estimate(float(resampled[0]), float(low), float(high))


def bootstrap(
    values: Sequence[float] | np.ndarray, statistic: Callable[..., Any] = np.mean, *, confidence: float = 0.95, seed: Seed = 0
) -> Estimate:
    """Percentile bootstrap of a statistic of independent units (plants); the arguments are those of `resample`.

    >>> print(bootstrap([0.25, 0.25, 0.25]))
    0.25 [0.25, 0.25]
    """
    return percentile_estimate(resample(values, statistic, seed=seed), confidence)


def bootstrap_runs(resampled: Sequence[np.ndarray], *, seed: Seed = 0) -> Estimate:
    """Mean over runs of a statistic that was resampled within each run; its interval resamples runs first.

    Args:
        resampled: one array [1 + R] per run, as `resample` returns it.
        seed: of the draws of runs.
    """
    values = np.stack(resampled)
    drawn = np.random.default_rng(seed).integers(len(values), size=(len(values), values.shape[1] - 1))
    means = np.take_along_axis(values[:, 1:], drawn, axis=0).mean(0)
    return percentile_estimate(np.append(values[:, 0].mean(), means))


def nested_groups(*labels: Any) -> Groups:
    """Row numbers grouped by labels, the outermost first: labels of seeds and runs give a list of seeds of runs of rows.

    >>> nested_groups([7, 7, 8], ["a", "b", "c"])
    [[array([0]), array([1])], [array([2])]]
    """
    columns = [np.asarray(column) for column in labels]

    def split(rows: np.ndarray, depth: int) -> Groups:
        if depth == len(columns):
            return rows
        keys = columns[depth][rows]
        return [split(rows[keys == key], depth + 1) for key in np.unique(keys)]

    return split(np.arange(len(columns[0])), 0)


def draw_nested(groups: Groups, generator: np.random.Generator) -> np.ndarray:
    """One bootstrap sample of units: groups are drawn with replacement at each level, then units within each drawn group."""
    chosen = generator.integers(len(groups), size=len(groups))
    if isinstance(groups, np.ndarray):
        return groups[chosen]
    return np.concatenate([draw_nested(groups[place], generator) for place in chosen])


def nested_bootstrap(
    groups: Groups, statistic: Callable[[np.ndarray], float], *, num_resamples: int = 200, seed: Seed = 0, method: str = "inverted_cdf"
) -> Estimate:
    """Percentile bootstrap that resamples seeds first, then runs, then units (plants).

    Runs of one seed share their plants, so that resampling runs alone would make intervals too narrow.

    Args:
        groups: numbers of units, nested by run, and by seed above the runs (`nested_groups`).
        statistic: takes an array of unit numbers.
        num_resamples: number of bootstrap samples.
        seed: of the draws, or a generator.
        method: as in `percentile_estimate`.

    >>> values = np.array([1.0, 2.0, 3.0])
    >>> nested_bootstrap(nested_groups([0, 0, 1]), lambda units: values[units].mean()).value
    2.0
    """
    generator = np.random.default_rng(seed)
    draws = [statistic(draw_nested(groups, generator)) for _ in range(num_resamples)]
    return percentile_estimate([statistic(_units(groups)), *draws], method=method)


def _units(groups: Groups) -> np.ndarray:
    return groups if isinstance(groups, np.ndarray) else np.concatenate([_units(group) for group in groups])
