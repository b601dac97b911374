"""Estimates with 95 % intervals: bootstrap over seeds, runs and units, and exact intervals of fractions (docs/methods.md#statistics)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, TypeAlias

import numpy as np
from scipy.special import betaincinv, ndtri, stdtrit

NUM_RESAMPLES, NUM_NESTED_RESAMPLES = 1000, 200
FEW_SEEDS = 5  # clusters below which a bootstrap over them is far too narrow
Groups: TypeAlias = "np.ndarray | Sequence[Groups]"  # numbers of units, nested by run, and by seed above the runs
Seed: TypeAlias = int | np.random.Generator


@dataclass(frozen=True)
class Estimate:
    """A number and the ends of its 95 % interval.

    >>> print(Estimate(0.876, 0.831, 0.912))
    0.88 [0.83, 0.91]
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


def wilson_interval(successes: float, count: int) -> tuple[float, float]:
    """Wilson's score interval of a fraction. Unlike a bootstrap it has a width at 0 and 1. Without trials: (0, 1)."""
    if count == 0:
        return 0.0, 1.0
    z, share = float(ndtri(0.975)), successes / count
    center = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * float(np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)))
    return max(0.0, center - half), min(1.0, center + half)


def exact_interval(successes: int, count: int) -> tuple[float, float]:
    """Exact interval of a fraction (Clopper and Pearson 1934). Without trials: (0, 1)."""
    low = float(betaincinv(successes, count - successes + 1, 0.025)) if successes else 0.0
    high = float(betaincinv(successes + 1, count - successes, 0.975)) if successes < count else 1.0
    return low, high


def exact_at_bounds(estimate: Estimate, count: int) -> Estimate:
    """The estimate, with the exact interval of `count` trials where it is 0 or 1 and its bootstrap has no width.

    It holds for the mean of `count` independent values in [0, 1], which are all 1 with a probability of at most mean^count, and for an
    AUC of which `count` pairs of a positive and a negative have no member in common.

    >>> print(exact_at_bounds(Estimate(1.0, 1.0, 1.0), 8))
    1.00 [0.63, 1.00]
    """
    nearest = round(estimate.value)
    if abs(estimate.value - nearest) > 1e-9 or nearest not in (0, 1):
        return estimate
    return Estimate(estimate.value, *exact_interval(nearest * count, count))


def t_interval(values: Sequence[float] | np.ndarray) -> Estimate:
    """Mean of independent values (one per training seed) and its t interval: mean +- t_{.975, K-1} s / sqrt(K). One value: infinite ends.

    >>> print(t_interval([0.48, 0.32, 0.47]))
    0.42 [0.20, 0.65]
    """
    sample = np.asarray(values, dtype=float)
    if len(sample) < 2:
        return Estimate(float(sample.mean()), -np.inf, np.inf)
    half = float(stdtrit(len(sample) - 1, 0.975) * sample.std(ddof=1) / np.sqrt(len(sample)))
    return Estimate(float(sample.mean()), float(sample.mean()) - half, float(sample.mean()) + half)


def mann_whitney_z(sample: Sequence[float] | np.ndarray, reference: Sequence[float] | np.ndarray) -> float:
    """Z_U = (U - n m / 2) / sqrt(n m (n + m + 1) / 12), negative if values of the sample tend to be below the reference's.

    U counts the pairs in which the sample's value is larger, ties by half (Mann and Whitney 1947; Meehan et al. 2020).

    >>> round(mann_whitney_z([1, 2, 3], [4, 5, 6]), 3)
    -1.964
    """
    values, ordered = np.asarray(sample, dtype=float), np.sort(np.asarray(reference, dtype=float))
    pairs = len(values) * len(ordered)
    larger = (np.searchsorted(ordered, values, side="left") + np.searchsorted(ordered, values, side="right")).sum() / 2
    return float((larger - pairs / 2) / np.sqrt(pairs * (len(values) + len(ordered) + 1) / 12))


def is_few(seeds: Sequence[Any]) -> bool:
    """Whether there are several seeds, but too few to resample: their values and a t interval are given instead of a bootstrap."""
    return 1 < len(set(seeds)) < FEW_SEEDS


def resample(values: Sequence[float] | np.ndarray, statistic: Callable[..., Any] = np.mean, *, seed: Seed = 0) -> np.ndarray:
    """A statistic of a sample, followed by the same statistic of bootstrap samples, float [1 + NUM_RESAMPLES].

    Args:
        values: independent units, [N].
        statistic: takes an array and `axis`.
        seed: of the draws, or a generator.
    """
    sample = np.asarray(values, dtype=float)
    draw = _drawn_units if isinstance(seed, int) else _drawn_units.__wrapped__
    return np.append(statistic(sample), statistic(sample[draw(len(sample), seed)], axis=1))


@lru_cache(maxsize=8)  # a page resamples hundreds of measures of the same plants
def _drawn_units(count: int, seed: Seed) -> np.ndarray:
    """The units of each bootstrap sample, [NUM_RESAMPLES, count]."""
    return np.random.default_rng(seed).integers(count, size=(NUM_RESAMPLES, count))


def percentile_estimate(resampled: Sequence[float] | np.ndarray, *, method: Any = "linear") -> Estimate:
    """Estimate from a statistic and its resamples, [1 + R]: the first entry, and the central quantiles of the others.

    method: as in np.quantile; "inverted_cdf" and "nearest" give drawn values only, for statistics that may be infinite.
    """
    low, high = np.quantile(resampled[1:], [0.025, 0.975], method=method)
    return Estimate(float(resampled[0]), float(low), float(high))


def bootstrap(values: Sequence[float] | np.ndarray, statistic: Callable[..., Any] = np.mean, *, seed: Seed = 0) -> Estimate:
    """Percentile bootstrap of a statistic of independent units (plants); the arguments are those of `resample`."""
    return percentile_estimate(resample(values, statistic, seed=seed))


def bootstrap_runs(resampled: Sequence[np.ndarray], seeds: Sequence[Any] | None = None) -> Estimate:
    """Mean over runs of a statistic that was resampled within each run; its interval resamples seeds first, then runs.

    Of two to four seeds it is the mean over seeds with its t interval.

    Args:
        resampled: one array [1 + R] per run, as `resample` returns it.
        seeds: training seed of each run; by default every run has its own.
    """
    values = np.stack(resampled)
    if seeds is not None and is_few(seeds):
        return t_interval([values[np.asarray(seeds) == seed, 0].mean() for seed in sorted(set(seeds), key=str)])
    labels = tuple(range(len(values))) if seeds is None or len(set(seeds)) == len(values) else tuple(seeds)
    means = (values[:, 1:] * _drawn_shares(labels, values.shape[1] - 1)).sum(0)
    return percentile_estimate(np.append(values[:, 0].mean(), means))


@cache
def _drawn_shares(seeds: tuple[Any, ...], num_draws: int) -> np.ndarray:
    """Share of each run among the runs of each bootstrap sample of seeds, then runs, [runs, num_draws]."""
    generator, count = np.random.default_rng(0), len(seeds)
    if len(set(seeds)) == count:
        drawn = list(generator.integers(count, size=(count, num_draws)).T)
    else:
        groups = nested_groups(seeds)
        drawn = [draw_nested(groups, generator) for _ in range(num_draws)]
    return np.stack([np.bincount(draw, minlength=count) / len(draw) for draw in drawn], axis=1)


def random_folds(*classes: Sequence[Any] | np.ndarray) -> list[np.ndarray]:
    """Fold, 0 or 1, of each sample of some classes; samples of one plant share it, also across classes.

    The plants of each class are dealt to the folds in turn, in a random order (seed 0): in the order of their numbers, shapes and
    copies, which plans deal in turn, would be divided between the folds.

    Args:
        classes: the plant of each sample of a class.

    >>> [folds.tolist() for folds in random_folds([7, 7, 8], [8, 9])]
    [[0, 0, 1], [1, 0]]
    """
    generator, folds = np.random.default_rng(0), dict[Any, int]()
    for plants in classes:
        new = [plant for plant in np.unique(plants) if plant not in folds]
        folds |= {plant: turn % 2 for turn, plant in enumerate(generator.permutation(new))}
    return [np.array([folds[plant] for plant in plants], dtype=int) for plants in classes]


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


def nested_bootstrap(groups: Groups, statistic: Callable[[np.ndarray], float], *, seed: Seed = 0, method: str = "inverted_cdf") -> Estimate:
    """Percentile bootstrap that resamples seeds first, then runs, then units (plants).

    Runs of one seed share their plants, so that resampling runs alone would make intervals too narrow.

    Args:
        groups: numbers of units, nested by run, and by seed above the runs (`nested_groups`).
        statistic: takes an array of unit numbers.
        seed: of the draws, or a generator.
        method: as in `percentile_estimate`.
    """
    generator = np.random.default_rng(seed)
    draws = [statistic(draw_nested(groups, generator)) for _ in range(NUM_NESTED_RESAMPLES)]
    return percentile_estimate([statistic(_units(groups)), *draws], method=method)


def _units(groups: Groups) -> np.ndarray:
    return groups if isinstance(groups, np.ndarray) else np.concatenate([_units(group) for group in groups])
