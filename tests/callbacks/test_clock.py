import time

import pytest

from afterglow.callbacks.clock import Clock


@pytest.fixture
def hour(monkeypatch):
    """hour(x): now it is x seconds after some hour."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return lambda seconds: now.__setitem__(0, 100.0 + seconds)


def test_clock_resumed_counts_earlier_parts_and_evaluations(hour):
    clock = Clock()
    clock.resume(elapsed=60.0, evaluation=30.0)
    assert clock.elapsed == 60
    clock.start()
    hour(40)
    with clock.evaluating():
        hour(60)
    assert (clock.elapsed, clock.evaluation) == (120, 50)
    assert clock.summary() == "2.0 minutes of training, 42% of it in evaluations"


def test_summary_of_a_complete_run_says_that_nothing_was_trained():
    clock = Clock()
    clock.resume(elapsed=60.0, evaluation=30.0)
    assert clock.summary() == "This run was already complete: nothing was trained."
