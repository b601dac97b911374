"""How the step of emergence depends on the number of images, the copies and the region (docs/methods.md#scaling)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from afterglow.errors import AfterglowError
from afterglow.functional.statistics import (
    NUM_NESTED_RESAMPLES,
    Estimate,
    draw_nested,
    nested_bootstrap,
    nested_groups,
    percentile_estimate,
)
from afterglow.functional.survival import interval_regression, is_independent

CLOSE_SHARE = 0.1  # share of the samples at which a model is said to memorize
NEAR_MINIMUM = 1.05  # held-out loss over its minimum in the run, below which a model is said to generalize


def crossing(steps: Sequence[int], shares: Sequence[float], level: float = CLOSE_SHARE) -> float:
    """The first step at which a share passes a level, linear in log s between evaluations; infinite where it never does.

    A share that passes between step 0 and the first later evaluation passes at that evaluation, since step 0 has no logarithm.
    """
    for place, (step, share) in enumerate(zip(steps, shares, strict=True)):
        if share <= level:
            continue
        before = steps[place - 1] if place else 0
        if before <= 0:
            return float(step)
        part = (level - shares[place - 1]) / (share - shares[place - 1])
        return float(np.exp(np.log(before) + part * (np.log(step) - np.log(before))))
    return float("inf")


def generalized(steps: Sequence[int], losses: Sequence[float]) -> float:
    """The first step at which the held-out denoising loss is within 5 % of its minimum over the run.

    Infinite where this is the last of several evaluations: the loss still falls there, and its minimum is unknown.
    """
    values = np.asarray(losses)
    place = int(np.argmax(values <= NEAR_MINIMUM * values.min()))
    return float("inf") if 0 < place == len(values) - 1 else float(steps[place])


@dataclass(frozen=True)
class Fit:
    """ln step = sum_k slope_k ln x_k + constant + sigma * normal, fitted to `intervals` intervals of which `censored` have no end."""

    slopes: Mapping[str, Estimate]
    constant: float
    sigma: float
    runs: int
    intervals: int
    censored: int


def fit(table: pd.DataFrame, terms: Sequence[str]) -> Fit:
    """Log-log fit of intervals on some of their columns; confidence intervals resample seeds, then runs, then units.

    Resamples in which a term does not vary are left out.

    Args:
        table: one row per interval: run, unit (rows that are resampled together, such as the two of a pair), lower, upper, and a
            positive column for each term; seed, if runs share seeds.
        terms: names of columns.

    Raises:
        AfterglowError: the runs do not vary the terms independently, or all intervals are censored.
    """
    if np.isinf(table["upper"]).all():
        raise AfterglowError("Nothing emerged in these runs: every interval is right-censored, and there is no slope to fit.")
    if not is_independent(_design(table, terms)):
        raise AfterglowError("The runs do not tell the terms of the fit apart: vary each of them on its own.")
    values, sigma = _fit(table, terms)
    draws = np.array([_fit(draw, terms)[0] for draw in resampled_tables(table, terms)])
    low, high = np.quantile(draws, [0.025, 0.975], axis=0) if len(draws) else (values, values)
    slopes = {name: Estimate(float(v), float(a), float(b)) for name, v, a, b in zip(terms, values, low, high, strict=False)}
    counts = (table["run"].nunique(), len(table), int(np.isinf(table["upper"]).sum()))
    return Fit(slopes, float(values[-1]), sigma, *counts)


def _fit(table: pd.DataFrame, terms: Sequence[str]) -> tuple[np.ndarray, float]:
    return interval_regression(table["lower"].to_numpy(float), table["upper"].to_numpy(float), _design(table, terms))


def _design(table: pd.DataFrame, terms: Sequence[str]) -> np.ndarray:
    return np.column_stack([*(np.log(table[name].to_numpy(float)) for name in terms), np.ones(len(table))])


def resampled_tables(table: pd.DataFrame, terms: Sequence[str] = (), *, num_resamples: int = NUM_NESTED_RESAMPLES) -> list[pd.DataFrame]:
    """Bootstrap samples of the seeds of a table, of the runs of each seed, and of the units of each run.

    Samples that do not vary the terms independently, or in which every interval is censored, are left out.
    """
    generator = np.random.default_rng(0)
    units = table.groupby(["run", "unit"], sort=True).ngroup().to_numpy()
    rows = [np.flatnonzero(units == unit) for unit in range(units.max() + 1)]
    first = table.iloc[[members[0] for members in rows]]
    groups = nested_groups(*(first[name] for name in _levels(table)))
    draws = []
    for _ in range(num_resamples):
        draw = table.iloc[np.concatenate([rows[unit] for unit in draw_nested(groups, generator)])]
        varied = not terms or is_independent(_design(draw, terms))
        if varied and np.isfinite(draw["upper"]).any():
            draws.append(draw)
    return draws


def _levels(table: pd.DataFrame) -> list[str]:
    """Columns seed and run where several runs have one seed, otherwise run."""
    shared = "seed" in table and table.groupby("seed")["run"].nunique().max() > 1
    return ["seed", "run"] if shared else ["run"]


def bootstrap_table(table: pd.DataFrame, statistic: Callable[[pd.DataFrame], float]) -> Estimate:
    """A statistic of a table (run, unit, upper, ... and seed); its interval resamples seeds, then runs, then units.

    The ends are drawn values, never a mixture of two, since a median may be infinite.
    """
    value = statistic(table)
    draws = [statistic(draw) for draw in resampled_tables(table)]
    return percentile_estimate([value, *(draws or [value])], method="inverted_cdf")


def bootstrap_run_values(runs: Sequence[np.ndarray], seeds: Sequence[int | str] | None = None) -> Estimate:
    """Mean of all values; its interval resamples seeds, then runs, then values. runs: the values of each run, [N_r].

    seeds: training seed of each run; by default every run has its own.
    """
    sizes, values = [len(run) for run in runs], np.concatenate(list(runs))
    labels = [np.repeat(names, sizes) for names in ([seeds] if seeds is not None and len(set(seeds)) < len(runs) else [])]
    groups = nested_groups(*labels, np.repeat(np.arange(len(runs)), sizes))
    return nested_bootstrap(groups, lambda units: float(values[units].mean()))
