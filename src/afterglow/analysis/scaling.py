"""How the step of emergence moves with the number of images, the copies and the region (METHODS section 4, Scaling)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import log_ndtr

CLOSE_SHARE = 0.1  # of the generations; from there on a model is said to memorize
NEAR_MINIMUM = 1.05  # held-out loss over its minimum in the run; from there on a model is said to generalize
NUM_RESAMPLES = 200
LOG_ROOT_TWO_PI = 0.5 * float(np.log(2 * np.pi))
LOG_SIGMA = (-4.0, 3.0)  # bounds of the fit: intervals that one line passes through would let sigma go to 0


def crossing(steps: Sequence[int], shares: Sequence[float], level: float = CLOSE_SHARE) -> float:
    """The first step at which a share passes a level, linear in log s between the probes around it; infinite where it never does.

    A share that passes between step 0 and the first later probe passes at that probe, since step 0 has no logarithm.
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

    Infinite where this is the last probe of several: the loss still falls, and where it will stop nobody saw.
    """
    values = np.asarray(losses)
    place = int(np.argmax(values <= NEAR_MINIMUM * values.min()))
    return float("inf") if 0 < place == len(values) - 1 else float(steps[place])


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval over resampled runs."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Fit:
    """ln step = sum_k slope_k ln x_k + constant + sigma * normal. constant: value at x = 1; counts: of intervals and of those censored."""

    slopes: Mapping[str, Estimate]
    constant: float
    sigma: float
    runs: int
    intervals: int
    censored: int


def log_likelihood(lower: np.ndarray, upper: np.ndarray, mean: np.ndarray, sigma: float) -> tuple[float, np.ndarray, float]:
    """Of intervals (lower, upper] under a log-normal with these means of the logarithm; its gradient in the means [N], and in ln sigma.

    sum ln( Phi(b) - Phi(a) ), a and b the logarithms of the ends less the mean, over sigma. upper may be infinite, lower 0.
    """
    with np.errstate(divide="ignore"):
        a, b = ((np.log(end) - mean) / sigma for end in (lower, upper))
    flip = a > 0  # Phi(b) - Phi(a) = Phi(-a) - Phi(-b): the tail that does not vanish
    high, low = np.where(flip, -a, b), np.where(flip, -b, a)
    top = log_ndtr(high)
    logs = top + np.log1p(-np.exp(np.minimum(log_ndtr(low) - top, -1e-12)))
    densities = [np.exp(-0.5 * np.square(end) - LOG_ROOT_TWO_PI - logs) for end in (a, b)]  # phi over the probability of the interval
    moments = [np.where(np.isfinite(end), end, 0) * density for end, density in zip((a, b), densities, strict=True)]
    return float(logs.sum()), (densities[0] - densities[1]) / sigma, float((moments[0] - moments[1]).sum())


def regress(lower: np.ndarray, upper: np.ndarray, design: np.ndarray) -> tuple[np.ndarray, float]:
    """Coefficients [K] and sigma of the interval-censored log-normal regression on a design [N, K], by maximum likelihood.

    Raises ValueError where the design does not tell its columns apart.
    """
    if not _independent(design):
        raise ValueError("The runs do not tell the terms of the fit apart: vary each of them on its own.")
    # a start from the middle of each interval; a right-censored one is taken to end at twice its lower end
    ends = np.where(np.isinf(upper), 2 * np.maximum(lower, 1), upper)
    start = np.linalg.lstsq(design, np.log(np.maximum(1, np.sqrt(np.maximum(lower, 1) * ends))), rcond=None)[0]

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        value, of_mean, of_sigma = log_likelihood(lower, upper, design @ values[:-1], float(np.exp(values[-1])))
        return -value / len(lower), -np.append(design.T @ of_mean, of_sigma) / len(lower)

    bounds = [(None, None)] * design.shape[1] + [LOG_SIGMA]
    found = minimize(loss, np.append(start, -1.0), jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 500, "ftol": 1e-12})
    return found.x[:-1], float(np.exp(found.x[-1]))


def fit(table: pd.DataFrame, terms: Sequence[str], *, seed: int = 0) -> Fit:
    """The log-log fit of intervals on some of their columns, with intervals that resample runs first and plants within runs second.

    table: a row an interval: run, unit (rows that are resampled together, such as the two of a pair), lower, upper and a positive
    column for each term. Resamples in which a term does not vary are left out. Raises ValueError where the runs do not tell the
    terms apart, or all intervals are censored.
    """
    if np.isinf(table["upper"]).all():
        raise ValueError("Nothing emerged in these runs: every interval is right-censored, and there is no slope to fit.")
    values, sigma = _fit(table, terms)
    resamples = np.array([_fit(draw, terms)[0] for draw in resampled(table, terms, seed=seed)])
    low, high = np.quantile(resamples, [0.025, 0.975], axis=0) if len(resamples) else (values, values)
    slopes = {name: Estimate(float(v), float(a), float(b)) for name, v, a, b in zip(terms, values, low, high, strict=False)}
    counts = (table["run"].nunique(), len(table), int(np.isinf(table["upper"]).sum()))
    return Fit(slopes, float(values[-1]), sigma, *counts)


def _fit(table: pd.DataFrame, terms: Sequence[str]) -> tuple[np.ndarray, float]:
    return regress(table["lower"].to_numpy(float), table["upper"].to_numpy(float), _design(table, terms))


def _independent(design: np.ndarray) -> bool:
    """Whether no column of a design is a mixture of the others."""
    values = np.linalg.svd(design / np.linalg.norm(design, axis=0).clip(1e-300), compute_uv=False)
    return len(values) == design.shape[1] and bool(values[-1] > 1e-6)


def _design(table: pd.DataFrame, terms: Sequence[str]) -> np.ndarray:
    return np.column_stack([*(np.log(table[name].to_numpy(float)) for name in terms), np.ones(len(table))])


def resampled(table: pd.DataFrame, terms: Sequence[str] = (), *, seed: int = 0, count: int = NUM_RESAMPLES) -> list[pd.DataFrame]:
    """Resamples of runs, and of the units within each; only those that tell the terms apart and have an interval that ends."""
    generator = np.random.default_rng(seed)
    places = pd.Series(np.arange(len(table)))
    runs = [
        [unit.to_numpy() for _, unit in part.groupby(table["unit"].to_numpy()[part])] for _, part in places.groupby(table["run"].to_numpy())
    ]
    draws = []
    for _ in range(count):
        chosen = [runs[i] for i in generator.integers(len(runs), size=len(runs))]
        draw = table.iloc[np.concatenate([units[i] for units in chosen for i in generator.integers(len(units), size=len(units))])]
        told = not terms or _independent(_design(draw, terms))
        if told and np.isfinite(draw["upper"]).any():
            draws.append(draw)
    return draws


def over_runs(table: pd.DataFrame, of: Callable[[pd.DataFrame], float], *, seed: int = 0) -> Estimate:
    """Any number of a table (run, unit, upper, ...) with its interval: runs are resampled first, units within runs second.

    The ends are values that were drawn, never a mixture of two: a median may be infinite.
    """
    values = [of(draw) for draw in resampled(table, seed=seed)]
    low, high = np.quantile(values, [0.025, 0.975], method="inverted_cdf") if values else (of(table), of(table))
    return Estimate(of(table), float(low), float(high))


def mean_over_runs(runs: Sequence[np.ndarray], *, seed: int = 0, count: int = NUM_RESAMPLES) -> Estimate:
    """The mean of all values with its interval, as over_runs finds it, where each unit has one value. runs: the values of each, [N_r]."""
    generator = np.random.default_rng(seed)
    means = []
    for _ in range(count):
        chosen = [runs[i] for i in generator.integers(len(runs), size=len(runs))]
        means.append(np.concatenate([values[generator.integers(len(values), size=len(values))] for values in chosen]).mean())
    low, high = np.quantile(means, [0.025, 0.975], method="inverted_cdf")
    return Estimate(float(np.concatenate(list(runs)).mean()), float(low), float(high))
