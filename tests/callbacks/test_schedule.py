import time

import pytest

from afterglow.callbacks.schedule import Clock, evaluation_steps


@pytest.mark.parametrize("num_steps, ratio", [(1300, 1.5), (20_000, 1.25), (500, 1.1), (100_000, 1.5)])
def test_neighbors_are_close_from_a_fiftieth_of_the_run_to_its_end(num_steps, ratio):
    steps = evaluation_steps(num_steps, ratio=ratio)
    assert steps[0] == 0 and steps[-1] == num_steps and steps[1] <= 0.02 * num_steps
    assert steps == sorted(set(steps))
    assert all(b <= ratio * a + 1 for a, b in zip(steps[1:], steps[2:], strict=False))  # + 1: steps are whole


def test_about_twelve_by_default():
    assert len(evaluation_steps(1600)) == 12


@pytest.mark.parametrize("num_steps", [1, 2, 3, 7])
def test_short_runs_begin_and_end_with_an_evaluation(num_steps):
    steps = evaluation_steps(num_steps)
    assert steps[0] == 0 and steps[-1] == num_steps


def test_a_ratio_of_one_never_ends():
    with pytest.raises(ValueError, match="ratio"):
        evaluation_steps(100, ratio=1.0)


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
