"""Intervals."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import norm

NUM_RESAMPLES = 1000


def wilson_interval(successes: float, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a fraction; unlike a bootstrap it has a width at 0 and 1. No trials: (0, 1)."""
    if count == 0:
        return 0.0, 1.0
    z, share = float(norm.ppf((1 + confidence) / 2)), successes / count
    center = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * float(np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)))
    return max(0.0, center - half), min(1.0, center + half)


def bootstrap_interval(values: Sequence[float] | np.ndarray, confidence: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over plants."""
    sample = np.asarray(values, dtype=float)
    means = np.random.default_rng(seed).choice(sample, size=(NUM_RESAMPLES, len(sample))).mean(1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
