import time

import pytest

from afterglow.callbacks.clock import Clock


@pytest.fixture
def hour(monkeypatch):
    """hour(x): now it is x seconds after some hour."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return lambda seconds: now.__setitem__(0, 100.0 + seconds)


def test_probes_and_earlier_parts_of_a_run_count(hour):
    clock = Clock()
    clock.resume(elapsed=60.0, probing=30.0)
    assert clock.elapsed == 60
    clock.start()
    hour(40)
    with clock.probe():
        hour(60)
    assert (clock.elapsed, clock.probing) == (120, 50)
    assert clock.spent() == "2.0 minutes of training, 42% of it in probes"


def test_a_run_that_had_ended_says_so():
    clock = Clock()
    clock.resume(elapsed=60.0, probing=30.0)
    assert clock.spent() == "This run had ended before: nothing was trained now."
