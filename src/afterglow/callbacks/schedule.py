"""When a training is evaluated (docs/methods.md#evaluation-schedule), and how long it takes."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from afterglow.errors import require, require_fraction

MIN_RATIO = 1.001


def evaluation_steps(num_steps: int, *, ratio: float = 1.5, first: float = 0.02) -> list[int]:
    """Step 0, then geometrically spaced steps up to the last.

    Args:
        num_steps: length of the training.
        ratio: largest ratio of two neighboring steps, as far as whole steps allow.
        first: the first step after 0, as a fraction of the training.

    Raises:
        AfterglowError: the ratio is below MIN_RATIO, or `first` is not in [0, 1].
    """
    require("monitor.step_ratio", ratio, MIN_RATIO <= ratio < math.inf, f"a number from {MIN_RATIO}")
    require_fraction(**{"monitor.first_fraction": first})
    start = max(1, math.floor(first * num_steps))
    gaps = max(1, math.ceil(math.log(num_steps / start) / math.log(ratio)))
    return sorted({0, num_steps, *(round(start * (num_steps / start) ** (i / gaps)) for i in range(gaps + 1))})


class Clock:
    """Seconds since a training began, those before a resume included, and the seconds of them spent in evaluations."""

    def __init__(self) -> None:
        self.evaluation, self._before, self._start = 0.0, 0.0, math.nan

    @property
    def running(self) -> bool:
        """Whether this process has begun to train or to evaluate."""
        return not math.isnan(self._start)

    @property
    def elapsed(self) -> float:
        """Seconds of training, evaluations included."""
        return self._before + (time.perf_counter() - self._start if self.running else 0.0)

    def start(self) -> None:
        """Begin to count."""
        self._start = time.perf_counter()

    def resume(self, elapsed: float, evaluation: float) -> None:
        """Continue from the seconds of an interrupted training."""
        self._before, self.evaluation = elapsed, evaluation

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Count the time inside the block as evaluation."""
        begin = time.perf_counter()
        yield
        self.evaluation += time.perf_counter() - begin

    def summary(self) -> str:
        """One sentence for the end of a training."""
        if not self.running:
            return "This run was already complete: nothing was trained."
        return f"{self.elapsed / 60:.1f} minutes of training, {self.evaluation / self.elapsed:.0%} of it in evaluations"
