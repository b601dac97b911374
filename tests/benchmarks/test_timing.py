import importlib.util
import time
from pathlib import Path

import torch

FILE = Path(__file__).parents[2] / "benchmarks/timing.py"
timing = importlib.util.module_from_spec(spec := importlib.util.spec_from_file_location("timing", FILE))  # type: ignore[arg-type]
spec.loader.exec_module(timing)  # type: ignore[union-attr]
median_interval, peak_memory, time_ratio = timing.median_interval, timing.peak_memory, timing.time_ratio


def test_twice_the_work_takes_about_twice_the_seconds():
    median, low, high = time_ratio(lambda: time.sleep(0.02), lambda: time.sleep(0.01), pairs=10)
    assert 1.3 < median < 2.7 and low <= median <= high


def test_an_outlier_does_not_move_the_median():
    median, low, high = median_interval([1.0] * 9 + [50.0])
    assert median == 1.0 and low == 1.0 and high < 50


def test_peak_memory_sees_what_is_held_and_let_go_again():
    size = 256 * 2**20
    before = peak_memory(lambda: None, torch.device("cpu"))
    held = peak_memory(lambda: torch.ones(size, dtype=torch.uint8)[0], torch.device("cpu"))
    assert 0.9 * size < held - before < 1.2 * size
    assert peak_memory(lambda: None, torch.device("cpu")) < before + 0.2 * size
