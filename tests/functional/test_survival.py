import itertools
import math

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import norm

from afterglow.functional.survival import Interval, interval_quantile, interval_regression, is_independent, log_likelihood, turnbull

INF = math.inf


def test_with_disjoint_cells_turnbull_is_the_empirical_distribution():
    cells, counts = [(0, 10), (10, 20), (20, 40), (40, INF)], [3, 1, 4, 2]
    intervals = [Interval(*cell) for cell, count in zip(cells, counts, strict=True) for _ in range(count)]
    ends, emerged = turnbull(intervals)
    found = dict(zip(ends.tolist(), emerged.tolist(), strict=True))
    assert found == pytest.approx({0: 0.0, 10: 0.3, 20: 0.4, 40: 0.8, INF: 1.0})


def test_emergence_at_step_0_has_its_mass_there():
    ends, emerged = turnbull([Interval(0, 0), Interval(0, 0), Interval(0, 10), Interval(10, INF)])
    assert dict(zip(ends.tolist(), emerged.tolist(), strict=True)) == pytest.approx({0: 0.5, 10: 0.75, INF: 1.0})


def overlapping(seed):
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(25):
        lower, width = generator.choice([0, 10, 20, 30, 40]), generator.choice([10, 20, 30, INF], p=[0.4, 0.3, 0.1, 0.2])
        found.append(Interval(float(lower), float(lower + width)))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_turnbull_is_the_likeliest_distribution(seed):
    intervals = overlapping(seed)
    points = sorted({end for i in intervals for end in (i.lower, i.upper)})
    inside = np.array([[i.lower <= a and b <= i.upper for a, b in itertools.pairwise(points)] for i in intervals], dtype=float)

    def minus_log_likelihood(mass):
        return -np.log(np.maximum(inside @ mass, 1e-12)).sum()

    size = inside.shape[1]
    sums_to_one = {"type": "eq", "fun": lambda mass: mass.sum() - 1}
    best = minimize(
        minus_log_likelihood,
        np.full(size, 1 / size),
        bounds=[(0, 1)] * size,
        constraints=sums_to_one,
        options={"ftol": 1e-12, "maxiter": 1000},
    )
    assert best.success
    ends, emerged = turnbull(intervals)
    by = dict(zip(ends.tolist(), emerged.tolist(), strict=True))
    found = np.array([by[i.upper] - by[i.lower] for i in intervals])  # the probability of each interval: unique at the maximum
    np.testing.assert_allclose(found, inside @ best.x, atol=2e-3)
    assert -np.log(found).sum() == pytest.approx(best.fun, abs=1e-4)
    assert (np.diff(emerged) >= 0).all() and emerged[-1] == pytest.approx(1)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.75, 1.0])
def test_quantiles_of_disjoint_cells_are_those_of_their_ends(share):
    uppers = [10] * 3 + [20] * 1 + [40] * 4 + [80] * 2
    lowers = {10: 0, 20: 10, 40: 20, 80: 40}
    intervals = [Interval(lowers[upper], upper) for upper in uppers]
    assert interval_quantile(intervals, share) == np.quantile(uppers, share, method="inverted_cdf")


def test_a_quantile_that_the_run_does_not_reach_is_infinite():
    intervals = [Interval(0, 10), Interval(100, INF), Interval(100, INF), Interval(100, INF)]
    assert interval_quantile(intervals, 0.25) == 10
    assert interval_quantile(intervals, 0.26) == INF


def test_narrow_intervals_give_least_squares():
    generator = np.random.default_rng(1)
    x = generator.uniform(1, 6, 200)
    y = 0.7 * x + 1 + 0.2 * generator.standard_normal(200)
    design = np.column_stack([x, np.ones(200)])
    values, sigma = interval_regression(np.exp(y - 1e-4), np.exp(y + 1e-4), design)
    expected, residual, *_ = np.linalg.lstsq(design, y, rcond=None)
    assert values == pytest.approx(expected, abs=1e-3) and sigma == pytest.approx(np.sqrt(residual[0] / 200), rel=1e-2)


def test_what_emerged_by_step_0_is_left_censored():
    lower, upper, design = np.array([0.0, 10, 20, 20]), np.array([0.0, 20, 40, 40]), np.ones((4, 1))
    found = interval_regression(lower, upper, design)
    expected = interval_regression(lower, np.array([20.0, 20, 40, 40]), design)
    assert found[0] == pytest.approx(expected[0]) and found[1] == pytest.approx(expected[1]) and np.exp(found[0][0]) < 40


def test_the_likelihood_is_that_of_the_intervals_one_by_one_also_far_in_the_tails():
    lower, upper = np.array([10.0, 0.0, 50.0, 1e9]), np.array([20.0, 5.0, np.inf, 2e9])
    mean = np.array([3.0, 2.0, 4.0, 3.0])
    slow = 0.0
    for a, b, m in zip(lower[:3], upper[:3], mean[:3], strict=True):
        slow += np.log(norm.cdf((np.log(b) - m) / 0.5) - (norm.cdf((np.log(a) - m) / 0.5) if a else 0))
    assert log_likelihood(lower[:3], upper[:3], mean[:3], 0.5)[0] == pytest.approx(slow)
    far = norm.logsf((np.log(1e9) - 3) / 0.5)  # almost all of the tail lies in the interval
    assert log_likelihood(lower[3:], upper[3:], mean[3:], 0.5)[0] == pytest.approx(far, rel=1e-3)


def test_the_gradient_is_that_of_small_differences():
    lower, upper, mean = np.array([10.0, 0.0, 50.0]), np.array([20.0, 5.0, np.inf]), np.array([3.0, 2.0, 4.0])
    _, of_mean, of_sigma = log_likelihood(lower, upper, mean, 0.5)
    h = 1e-6
    for place in range(3):
        step = h * np.eye(3)[place]
        change = log_likelihood(lower, upper, mean + step, 0.5)[0] - log_likelihood(lower, upper, mean - step, 0.5)[0]
        assert of_mean[place] == pytest.approx(change / (2 * h), rel=1e-5)
    change = log_likelihood(lower, upper, mean, 0.5 * np.exp(h))[0] - log_likelihood(lower, upper, mean, 0.5 * np.exp(-h))[0]
    assert of_sigma == pytest.approx(change / (2 * h), rel=1e-5)


def test_is_independent_reports_columns_that_others_explain():
    design = np.column_stack([[1.0, 2.0, 3.0], np.ones(3)])
    assert is_independent(design) and not is_independent(np.column_stack([design, design.sum(1)]))
