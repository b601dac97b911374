"""How the step of emergence depends on the number of images, the copies and the region (docs/methods.md#scaling)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from afterglow.errors import AfterglowError
from afterglow.functional.statistics import (
    NUM_NESTED_RESAMPLES,
    Estimate,
    draw_nested,
    is_few,
    nested_bootstrap,
    nested_groups,
    percentile_estimate,
    t_interval,
)
from afterglow.functional.survival import LOG_SIGMA, interval_regression, is_independent, log_likelihood

CLOSE_SHARE = 0.1  # share of the samples at which a model is said to memorize
NEAR_MINIMUM = 1.05  # held-out loss over its minimum in the run
PLATEAU = 2.0  # ratio of steps over which the loss stays near its minimum


def crossing(steps: Sequence[int], shares: Sequence[float]) -> float:
    """The first step at which a share passes CLOSE_SHARE, linear in log s between evaluations; infinite where it never does.

    A share that passes between step 0 and the first later evaluation passes at that evaluation, since step 0 has no logarithm.
    """
    for place, (step, share) in enumerate(zip(steps, shares, strict=True)):
        if share <= CLOSE_SHARE:
            continue
        before = steps[place - 1] if place else 0
        if before <= 0:
            return float(step)
        part = (CLOSE_SHARE - shares[place - 1]) / (share - shares[place - 1])
        return float(np.exp(np.log(before) + part * (np.log(step) - np.log(before))))
    return float("inf")


def near_minimum(steps: Sequence[int], losses: Sequence[float]) -> tuple[float, float]:
    """The first and the last step at which the held-out denoising loss is within 5 % of its minimum over the run.

    The last is the onset of overfitting; infinite if the run ends earlier. The first is infinite where it is the last of several
    evaluations: the loss still falls there, and its minimum is unknown.
    """
    values = np.asarray(losses)
    near = np.flatnonzero(values <= NEAR_MINIMUM * values.min())
    first, last = (float("inf") if 0 < place == len(values) - 1 else float(steps[place]) for place in (near[0], near[-1]))
    return first, last


def generalized(steps: Sequence[int], losses: Sequence[float]) -> float:
    """tau_gen: the first step within 5 % of the minimum of the held-out loss, if the loss has a plateau there; else NaN.

    A plateau: the loss stays within 5 % over at least a factor PLATEAU in steps. Otherwise the minimum is only the step before overfitting
    begins (docs/methods.md#scaling).
    """
    first, last = near_minimum(steps, losses)
    end = min(last, float(steps[-1]))
    return first if np.isinf(first) or end >= PLATEAU * max(first, 1) else float("nan")


def agreement(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cosine of the samples of two models from the same noises after the mean of all samples is removed, [N] (Kadkhodaie et al. 2024).

    Models that were trained on disjoint sets agree where they generalize. first, second: images, [N, ...], row by row from one noise.
    """
    a, b = (np.asarray(part, dtype=float).reshape(len(part), -1) for part in (first, second))
    mean = np.concatenate([a, b]).mean(0)
    a, b = a - mean, b - mean
    return (a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-12)


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

    Of two to four seeds each is fitted alone: the slopes are the means over seeds with their t intervals.

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
    if "seed" in table and is_few(table["seed"].tolist()) and (own := seed_fits(table, terms)):
        slopes = {name: t_interval([fitted[name] for fitted in own.values()]) for name in terms}
    counts = (table["run"].nunique(), len(table), int(np.isinf(table["upper"]).sum()))
    return Fit(slopes, float(values[-1]), sigma, *counts)


def seed_fits(table: pd.DataFrame, terms: Sequence[str]) -> dict[Any, dict[str, float]]:
    """{seed: slopes} of a fit of the runs of each seed alone; empty if a seed does not vary the terms, or nothing emerges in it."""
    fits = {}
    for seed, part in table.groupby("seed"):
        if not is_independent(_design(part, terms)) or np.isinf(part["upper"]).all():
            return {}
        fits[seed] = dict(zip(terms, _fit(part, terms)[0].tolist(), strict=False))
    return fits


@dataclass(frozen=True)
class Law:
    """A law of the step t with three parameters: its values, and minus the log-likelihood of the intervals under ln t ~ N(ln law, sigma).

    names of the parameters: c and a of t = c x^a, or t0 and c of t = t0 + c x; sigma.
    """

    formula: str
    parameters: Mapping[str, float]
    negative_log_likelihood: float

    def step(self, x: float) -> float:
        """The step that the law predicts at x."""
        values = self.parameters
        return values["t0"] + values["c"] * x if "t0" in values else values["c"] * x ** values["a"]


def compare_laws(table: pd.DataFrame, term: str) -> tuple[Law, Law]:
    """The power law t = c x^a and the offset law t = t0 + c x (t0 >= 0), fitted to the same intervals, 3 parameters each.

    A power law bends the log-log line of a law with an offset, so that a slope below 1 is evidence against proportionality only if the
    offset law has a lower likelihood (docs/methods.md#scaling). table: columns lower, upper and the term.
    """
    from scipy.optimize import minimize  # takes a quarter of a second to import

    lower, upper, x = (table[name].to_numpy(float) for name in ("lower", "upper", term))
    values, sigma = _fit(table, [term])
    power = -log_likelihood(lower, upper, _design(table, [term]) @ values, sigma)[0]
    unit = float(np.exp(values[-1] + values[0] * np.log(x)).mean())  # steps; the parameters are fitted in its units

    def loss(guess: np.ndarray) -> tuple[float, np.ndarray]:
        steps = unit * (guess[0] + np.exp(guess[1]) * x / x.mean())
        value, of_mean, of_sigma = log_likelihood(lower, upper, np.log(steps), float(np.exp(guess[2])))
        slopes = [(of_mean * unit / steps).sum(), (of_mean * unit * np.exp(guess[1]) * x / x.mean() / steps).sum(), of_sigma]
        return -value, -np.array(slopes)

    bounds = [(0, None), (None, None), LOG_SIGMA]
    starts = [np.array([share, np.log(1.001 - share), np.log(sigma)]) for share in (0.0, 0.3, 0.6)]
    found = min((minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds) for start in starts), key=lambda one: one.fun)
    offset, rate, spread = found.x[0] * unit, np.exp(found.x[1]) * unit / x.mean(), np.exp(found.x[2])
    return (
        Law(f"c {term}^a", {"c": float(np.exp(values[-1])), "a": float(values[0]), "sigma": sigma}, float(power)),
        Law(f"t0 + c {term}", {"t0": float(offset), "c": float(rate), "sigma": float(spread)}, float(found.fun)),
    )


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

    Of two to four seeds it is the mean of their means with its t interval.
    seeds: training seed of each run; by default every run has its own.
    """
    if seeds is not None and is_few(seeds):
        own = {seed: np.concatenate([run for run, of_run in zip(runs, seeds, strict=True) if of_run == seed]) for seed in seeds}
        return t_interval([values.mean() for values in own.values()])
    sizes, values = [len(run) for run in runs], np.concatenate(list(runs))
    labels = [np.repeat(names, sizes) for names in ([seeds] if seeds is not None and len(set(seeds)) < len(runs) else [])]
    groups = nested_groups(*labels, np.repeat(np.arange(len(runs)), sizes))
    return nested_bootstrap(groups, lambda units: float(values[units].mean()))
