import pytest

from afterglow.callbacks.schedule import evaluation_steps


@pytest.mark.parametrize("num_steps, ratio", [(1300, 1.5), (20_000, 1.25), (500, 1.1), (100_000, 1.5)])
def test_neighbors_are_close_from_a_fiftieth_of_the_run_to_its_end(num_steps, ratio):
    steps = evaluation_steps(num_steps, ratio=ratio)
    assert steps[0] == 0 and steps[-1] == num_steps and steps[1] <= 0.02 * num_steps
    assert steps == sorted(set(steps))
    assert all(b <= ratio * a + 1 for a, b in zip(steps[1:], steps[2:], strict=False))  # + 1: steps are whole


def test_about_twelve_by_default():
    assert len(evaluation_steps(1600)) == 12


@pytest.mark.parametrize("num_steps", [1, 2, 3, 7])
def test_short_runs_begin_and_end_with_a_probe(num_steps):
    steps = evaluation_steps(num_steps)
    assert steps[0] == 0 and steps[-1] == num_steps


def test_a_ratio_of_one_never_ends():
    with pytest.raises(ValueError, match="ratio"):
        evaluation_steps(100, ratio=1.0)
