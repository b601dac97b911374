"""Times known only to lie in an interval: Turnbull's estimate and the log-normal regression (docs/methods.md#emergence, #scaling)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr

NUM_ITERATIONS, TOLERANCE = 1000, 1e-9
LOG_ROOT_TWO_PI = 0.5 * float(np.log(2 * np.pi))
LOG_SIGMA = (-4.0, 3.0)  # bounds of the fit: intervals that one line passes through would let sigma go to 0


@dataclass(frozen=True, order=True)
class Interval:
    """Training steps (lower, upper] in which a plant emerged; upper is infinite if it had not emerged by `lower` (right-censored)."""

    lower: float
    upper: float

    @property
    def censored(self) -> bool:
        return math.isinf(self.upper)


def turnbull(intervals: Sequence[Interval]) -> tuple[np.ndarray, np.ndarray]:
    """Turnbull's estimate of a distribution from intervals (Turnbull 1976).

    The self-consistent masses of the cells between neighboring end points, by expectation-maximization. lifelines takes the
    intervals as closed and gives mass to the shared end of (10, 20] and (20, 40]; ours are half open.

    Returns:
        Rising ends of the cells (the last may be infinite), and the share that has emerged by each end.
    """
    ends = np.unique([end for interval in intervals for end in (interval.lower, interval.upper)])
    starts = np.concatenate([[-math.inf], ends[:-1]])
    lower, upper = np.array([(interval.lower, interval.upper) for interval in intervals]).T[..., None]
    covers = ((lower <= starts) & (ends <= upper)) | ((lower == ends) & (ends == upper))
    mass = covers.any(0) / covers.any(0).sum()
    for _ in range(NUM_ITERATIONS):
        expected = covers * mass
        updated = (expected / expected.sum(1, keepdims=True)).mean(0)
        if np.abs(updated - mass).max() < TOLERANCE:
            break
        mass = updated
    return ends, updated.cumsum()


def interval_quantile(intervals: Sequence[Interval], share: float) -> float:
    """Step by which a share of the plants has emerged, by Turnbull's estimate; infinite if the run ends earlier.

    >>> interval_quantile([Interval(0, 10), Interval(10, 20), Interval(10, math.inf)], 0.5)
    20.0
    """
    ends, emerged = turnbull(intervals)
    reached = ends[emerged >= share - 1e-6]
    return float(reached[0]) if len(reached) else math.inf


def log_likelihood(lower: np.ndarray, upper: np.ndarray, mean: np.ndarray, sigma: float) -> tuple[float, np.ndarray, float]:
    """Log-likelihood of intervals (lower, upper] under a log-normal: sum ln( Phi(b) - Phi(a) ), a and b the standardized log ends.

    Args:
        lower: [N], may be 0.
        upper: [N], may be infinite.
        mean: mean of the logarithm, [N].
        sigma: standard deviation of the logarithm.

    Returns:
        The value, its gradient in the means [N], and its derivative in ln sigma.
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


def interval_regression(lower: np.ndarray, upper: np.ndarray, design: np.ndarray) -> tuple[np.ndarray, float]:
    """Interval-censored log-normal regression by maximum likelihood: ln step = design @ coefficients + sigma * normal.

    What emerged by step 0 has no logarithm: its interval ends at the first positive end of the others, or at step 1.

    Args:
        lower: lower ends of the intervals, [N].
        upper: upper ends, [N]; infinite where right-censored.
        design: [N, K], with linearly independent columns.

    Returns:
        Coefficients [K] and sigma.
    """
    from scipy.optimize import minimize  # takes a quarter of a second to import

    finite = upper[np.isfinite(upper) & (upper > 0)]
    upper = np.where(upper > 0, upper, finite.min() if len(finite) else 1.0)
    # a start from the middle of each interval; a right-censored one is taken to end at twice its lower end
    ends = np.where(np.isinf(upper), 2 * np.maximum(lower, 1), upper)
    start = np.linalg.lstsq(design, np.log(np.maximum(1, np.sqrt(np.maximum(lower, 1) * ends))), rcond=None)[0]

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        value, of_mean, of_sigma = log_likelihood(lower, upper, design @ values[:-1], float(np.exp(values[-1])))
        return -value / len(lower), -np.append(design.T @ of_mean, of_sigma) / len(lower)

    bounds = [(None, None)] * design.shape[1] + [LOG_SIGMA]
    found = minimize(loss, np.append(start, -1.0), jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 500, "ftol": 1e-12})
    return found.x[:-1], float(np.exp(found.x[-1]))


def is_independent(design: np.ndarray) -> bool:
    """True if no column of a design [N, K] is a mixture of the others."""
    values = np.linalg.svd(design / np.linalg.norm(design, axis=0).clip(1e-300), compute_uv=False)
    return len(values) == design.shape[1] and bool(values[-1] > 1e-6)
