"""The duration of a training over all of its resumes, and of its evaluations."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Seconds since a training began, those before a resume included, and the seconds of them spent in evaluations."""

    def __init__(self) -> None:
        self.evaluation = 0.0
        self._before = 0.0
        self._start: float | None = None

    @property
    def running(self) -> bool:
        """Whether this process has begun to train or to evaluate."""
        return self._start is not None

    @property
    def elapsed(self) -> float:
        """Seconds of training, evaluations included."""
        return self._before + (0.0 if self._start is None else time.perf_counter() - self._start)

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
        if self._start is None:
            return "This run was already complete: nothing was trained."
        return f"{self.elapsed / 60:.1f} minutes of training, {self.evaluation / self.elapsed:.0%} of it in evaluations"
