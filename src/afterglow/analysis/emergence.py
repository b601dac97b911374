"""When a plant becomes memorized and stays so: intervals of training steps, and their distribution (METHODS section 4)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NUM_CONFIRMATIONS = 2
NUM_RESAMPLES = 200
NUM_ITERATIONS, TOLERANCE = 1000, 1e-9
_COPY = "have a calibrated distance under 1 inside the mask (n = 50 other groups, alpha = .5)"
_EMERGENCE = (
    "emergence: (last probe at which the plant is not memorized, first probe at which it is and from which it stays so at the next two]"
)
DEFINITION = f"memorized at a probe: at least half of the seeds {_COPY}; {_EMERGENCE}"
ASSIGNED = (
    "memorized at a probe: at least one generation is nearest to the plant, of all plants and phantoms, "
    f"by calibrated distance, and is a copy: {_COPY.replace('have', 'has')}; {_EMERGENCE}"
)


@dataclass(frozen=True)
class Interval:
    """Training steps (lower, upper] in which a plant emerged; upper is infinite for one that had not by `lower` (right-censored)."""

    lower: float
    upper: float

    @property
    def censored(self) -> bool:
        return math.isinf(self.upper)


def emergence_interval(steps: Sequence[int], memorized: Sequence[bool], confirmations: Sequence[bool] = ()) -> Interval:
    """The interval of one plant from its probes.

    steps: of the probes, rising; memorized: at each of them; confirmations: with fresh seeds on the final weights, which stand
    in for the probes that the last two lack. A plant whose confirmations are missing is right-censored at the probe before;
    one that never is memorized, or whose confirmation fails, at the last step.
    """
    seen = [*memorized, *confirmations]
    for first, now in enumerate(memorized):
        after = seen[first + 1 : first + 1 + NUM_CONFIRMATIONS]
        if not now or not all(after):
            continue
        before = steps[first - 1] if first else 0
        if len(after) < NUM_CONFIRMATIONS:
            return Interval(before, math.inf)
        return Interval(before, steps[first])
    return Interval(steps[-1], math.inf)


def num_confirmations_needed(memorized: Sequence[bool]) -> int:
    """How many confirmations the last probes of a finished run lack: 0, 1 or 2."""
    streak = 0
    while streak < len(memorized) and memorized[-1 - streak]:
        streak += 1
    return max(0, NUM_CONFIRMATIONS + 1 - streak) if streak else 0


def turnbull(intervals: Sequence[Interval]) -> tuple[np.ndarray, np.ndarray]:
    """Turnbull's estimate (1976): ends of the cells (rising, the last may be infinite) and the share emerged by each end.

    The self-consistent masses of the cells between neighboring end points, by expectation-maximisation. lifelines takes
    the intervals as closed, and gives mass to the shared end of (10, 20] and (20, 40]; ours are half open.
    """
    ends = np.unique([end for interval in intervals for end in (interval.lower, interval.upper)])
    starts = np.concatenate([[-math.inf], ends[:-1]])
    covers = np.array(
        [[(i.lower <= a and b <= i.upper) or (i.lower == b == i.upper) for a, b in zip(starts, ends, strict=True)] for i in intervals]
    )
    mass = covers.any(0) / covers.any(0).sum()
    for _ in range(NUM_ITERATIONS):
        expected = covers * mass
        updated = (expected / expected.sum(1, keepdims=True)).mean(0)
        if np.abs(updated - mass).max() < TOLERANCE:
            break
        mass = updated
    return ends, updated.cumsum()


def quantile(intervals: Sequence[Interval], share: float) -> float:
    """The step by which this share of the plants has emerged, by Turnbull's estimate; infinite if the run ends before."""
    ends, emerged = turnbull(intervals)
    reached = ends[emerged >= share - 1e-6]
    return float(reached[0]) if len(reached) else math.inf


def summary(intervals: Sequence[Interval], seed: int = 0) -> dict[str, object]:
    """Quartiles of the emergence step with 95 % bootstrap intervals over plants; None stands for 'later than the run'."""
    generator = np.random.default_rng(seed)
    found: dict[str, object] = {"plants": len(intervals), "censored": sum(interval.censored for interval in intervals)}
    for name, share in (("first_quartile", 0.25), ("median", 0.5), ("third_quartile", 0.75)):
        draws = [[intervals[i] for i in generator.integers(len(intervals), size=len(intervals))] for _ in range(NUM_RESAMPLES)]
        spread = [quantile(draw, share) for draw in draws]
        low, high = (float(np.quantile(spread, q, method="nearest")) for q in (0.025, 0.975))
        found[name] = {"step": finite(quantile(intervals, share)), "low": finite(low), "high": finite(high)}
    return found


def finite(step: float) -> float | None:
    """None where a step is infinite: JSON knows no infinity."""
    return None if math.isinf(step) else step
