"""How long a training took, and what its probes took of it, over all of its resumes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Seconds since a training began (`elapsed`), those of earlier parts of the run included, and those spent in probes (`probing`)."""

    def __init__(self) -> None:
        self.probing = 0.0
        self._before = 0.0
        self._began: float | None = None

    @property
    def elapsed(self) -> float:
        return self._before + (0.0 if self._began is None else time.perf_counter() - self._began)

    def start(self) -> None:
        self._began = time.perf_counter()

    def resume(self, elapsed: float, probing: float) -> None:
        self._before, self.probing = elapsed, probing

    @contextmanager
    def probe(self) -> Iterator[None]:
        """What happens inside counts as probing."""
        begin = time.perf_counter()
        yield
        self.probing += time.perf_counter() - begin

    def spent(self) -> str:
        if self._began is None:
            return "This run had ended before: nothing was trained now."
        return f"{self.elapsed / 60:.1f} minutes of training, {self.probing / self.elapsed:.0%} of it in probes"
