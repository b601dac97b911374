"""When a plant becomes memorized and stays so: intervals of training steps and their distribution (docs/methods.md#emergence)."""

import math
from collections.abc import Sequence
from functools import cache
from itertools import takewhile

import numpy as np

from afterglow.functional.statistics import Estimate, nested_bootstrap
from afterglow.functional.survival import Interval, interval_quantile

NUM_CONFIRMATIONS = 2
_COPY = "have a calibrated distance under 1 inside the mask (n = 50 other clusters, alpha = .5)"
_EMERGENCE = "emergence: after the last evaluation without memorization, up to the first of three with it"
DEFINITION = f"memorized at an evaluation: at least half of the seeds {_COPY}; {_EMERGENCE}"
ASSIGNED = (
    "memorized at an evaluation: at least one generation is nearest to the plant, of all plants and phantoms, "
    f"by calibrated distance, and is a copy: {_COPY.replace('have', 'has')}; {_EMERGENCE}"
)
COPIED_WHOLE = (
    "copied as a whole at an evaluation: memorized, and by the same generations one of the plant's images outside the mask as well "
    f"(calibrated distance under 1); {_EMERGENCE}"
)
COMPLETED = f"memorized at an evaluation: at least half of the completions {_COPY.replace('mask', 'unknown region')}; {_EMERGENCE}"


def emergence_interval(steps: Sequence[int], memorized: Sequence[bool], confirmations: Sequence[bool] = ()) -> Interval:
    """Interval of training steps in which one plant emerged.

    A plant without the necessary confirmations is right-censored at the evaluation before. A plant that is never memorized, or
    whose confirmation fails, is right-censored at the last step.

    Args:
        steps: of the evaluations, rising.
        memorized: at each of them.
        confirmations: results with fresh seeds on the final weights, which replace the evaluations that the last two lack.
    """
    seen = [*memorized, *confirmations]
    for first, now in enumerate(memorized):
        after = seen[first + 1 : first + 1 + NUM_CONFIRMATIONS]
        if now and all(after):
            return Interval(steps[first - 1] if first else 0, steps[first] if len(after) == NUM_CONFIRMATIONS else math.inf)
    return Interval(steps[-1], math.inf)


def num_confirmations_needed(memorized: Sequence[bool]) -> int:
    """Number of confirmations that the last evaluations of a finished run lack: 0, 1 or 2."""
    streak = len(list(takewhile(bool, reversed(memorized))))
    return max(0, NUM_CONFIRMATIONS + 1 - streak) if streak else 0


def emergence_quartiles(intervals: Sequence[Interval]) -> dict[str, object]:
    """Quartiles of the emergence step with 95 % bootstrap intervals over plants; None stands for 'later than the run'.

    Keys: plants, censored, and {step, low, high} for first_quartile, median and third_quartile.
    """
    generator, quantile = np.random.default_rng(0), cache(interval_quantile)  # few resamples differ where plants share an interval
    result: dict[str, object] = {"plants": len(intervals), "censored": sum(interval.censored for interval in intervals)}
    for name, share in (("first_quartile", 0.25), ("median", 0.5), ("third_quartile", 0.75)):

        def quartile(plants: np.ndarray, share: float = share) -> float:
            return quantile(tuple(sorted(intervals[i] for i in plants)), share)

        everyone = np.arange(len(intervals))
        if len(set(intervals)) == 1:  # every bootstrap sample is the same, for example of phantoms
            found = Estimate(*[quartile(everyone)] * 3)
        else:
            found = nested_bootstrap(everyone, quartile, seed=generator, method="nearest")
        result[name] = {key: finite_or_none(step) for key, step in zip(("step", "low", "high"), vars(found).values(), strict=True)}
    return result


def finite_or_none(step: float) -> float | None:
    """None where a step is infinite: JSON has no infinity."""
    return None if math.isinf(step) else step
