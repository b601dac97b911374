"""Seconds and memory of two implementations. Machines are shared and noisy, so only ratios of neighbors within one run count."""

import ctypes
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from afterglow.functional.statistics import bootstrap

LOGGING = (  # methods of RunLogger that a training calls
    *("log_metrics", "log_images", "log_masks", "log_histogram", "log_rows", "log_page", "summarize", "alert", "flush", "log_results"),
)


def time_ratio(
    first: Callable[[], object], second: Callable[[], object], *, pairs: int = 10, seconds: Callable[[Any], float] | None = None
) -> tuple[float, float, float]:
    """Seconds of `first` over seconds of `second`: median and 95 % bootstrap interval over interleaved pairs, after a warm-up.

    Args:
        first: a function of no arguments.
        second: the same.
        pairs: number of pairs.
        seconds: calls such a function and returns its seconds; default: by the clock.
    """
    first(), second()
    ratios = []
    for turn in range(pairs):
        order = (first, second) if turn % 2 == 0 else (second, first)
        taken = {way: (seconds or _seconds)(way) for way in order}
        ratios.append(taken[first] / taken[second])
    return median_interval(ratios)


def median_interval(values: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """Median and its 95 % percentile bootstrap interval."""
    found = bootstrap(values, np.median, seed=seed)
    return found.value, found.low, found.high


def _seconds(way: Callable[[], object]) -> float:
    begin = time.perf_counter()
    way()
    return time.perf_counter() - begin


def undisturbed_seconds() -> float:
    """Seconds by the clock, less those in which this thread waited for a core (Linux only)."""
    return time.perf_counter() - int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9


def timed(function: Callable[..., Any], calls: list[float]) -> Callable[..., Any]:
    """The same function, which appends the undisturbed seconds of each call."""

    def call(*args: Any, **kwargs: Any) -> Any:
        begin = undisturbed_seconds()
        try:
            return function(*args, **kwargs)
        finally:
            calls.append(undisturbed_seconds() - begin)

    return call


def peak_memory(run: Callable[[], object], device: torch.device) -> int:
    """Bytes at the peak of a run: of this process (Linux only), or of the GPU's allocator."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return torch.cuda.max_memory_allocated(device)
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)  # what the C library keeps of earlier runs (afterglow.memory) is not of this one
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    run()
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024
