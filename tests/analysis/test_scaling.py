"""The censored fit against closed forms, a slow likelihood and what it was simulated with."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from afterglow.analysis.scaling import (
    agreement,
    bootstrap_run_values,
    bootstrap_table,
    compare_laws,
    crossing,
    fit,
    generalized,
    near_minimum,
    resampled_tables,
)
from afterglow.functional.statistics import Estimate


def simulated(slope, *, runs=12, plants=8, sigma=0.3, end=np.inf, seed=0):
    """Plants whose ln step is slope * ln n + 2 + sigma * normal, seen between probes a factor 1.25 apart until `end`."""
    generator = np.random.default_rng(seed)
    rows = []
    for run in range(runs):
        n = 64 * 2 ** (run % 4)
        for plant in range(plants):
            step = np.exp(slope * np.log(n) + 2 + sigma * generator.standard_normal())
            place = np.floor(np.log(step) / np.log(1.25))
            upper = 1.25 ** (place + 1)
            row = {"lower": 1.25**place, "upper": upper} if upper <= end else {"lower": min(end, 1.25**place), "upper": np.inf}
            rows.append({"run": run, "unit": plant, "n": n, **row})
    return pd.DataFrame(rows)


def test_the_fit_finds_the_slope_it_was_simulated_with_also_when_half_is_censored():
    for end in (np.inf, 1000.0):
        table = simulated(1.0, end=end)
        found = fit(table, ["n"])
        slope = found.slopes["n"]
        assert slope.low < 1.0 < slope.high and abs(slope.value - 1) < 0.12
        assert found.sigma == pytest.approx(0.3, rel=0.25) and (found.censored > 30) == np.isfinite(end)
        assert (found.runs, found.intervals) == (12, 96)


def test_what_cannot_be_fitted_is_said():
    table = simulated(1.0)
    with pytest.raises(ValueError, match="do not tell the terms of the fit apart"):
        fit(table.assign(n=64), ["n"])
    with pytest.raises(ValueError, match="Nothing emerged"):
        fit(table.assign(upper=np.inf), ["n"])


def test_units_are_resampled_together_and_runs_first():
    table = pd.DataFrame({"run": [0, 0, 0, 0, 1, 1], "unit": [0, 0, 1, 1, 0, 0], "upper": 1.0, "value": [1, 2, 3, 4, 5, 6]})
    for draw in resampled_tables(table):
        values = draw["value"].tolist()
        assert all(values.count(a) == values.count(b) for a, b in ((1, 2), (3, 4), (5, 6)))
    found = bootstrap_table(table, lambda part: part["value"].mean())
    assert isinstance(found, Estimate) and found.value == 3.5 and found.low < 3.5 < found.high


def test_a_share_crosses_between_two_evaluations_on_a_log_axis():
    assert crossing([0, 100, 400], [0.0, 0.0, 0.2]) == pytest.approx(200)
    assert crossing([0, 100, 400], [0.0, 0.5, 0.9]) == 100  # no logarithm of step 0
    assert np.isinf(crossing([0, 100], [0.0, 0.1])) and crossing([0, 8], [0.3, 0.5]) == 0


def test_the_step_from_which_the_held_out_loss_is_near_its_minimum():
    assert generalized([0, 10, 20, 40], [2.0, 1.04, 1.0, 1.5]) == 10
    assert np.isnan(generalized([0, 10], [1.0, 3.0])) and np.isnan(generalized([0, 10, 15, 40], [2.0, 1.04, 1.0, 1.5]))  # no plateau
    assert near_minimum([0, 10, 15, 40], [2.0, 1.04, 1.0, 1.5]) == (10, 15) and near_minimum([0, 10], [2.0, 1.0])[1] == np.inf
    assert generalized([0, 10, 20], [2.0, 1.5, 1.0]) == float("inf")  # it still fell at the last probe


def test_offset_law_recovers_its_parameters_and_equals_a_search_by_brute_force():
    n = np.repeat([16.0, 32, 64, 128, 256], 8)
    steps = (200 + 9 * n) * np.exp(0.1 * np.random.default_rng(0).normal(size=len(n)))
    table = pd.DataFrame({"n": n, "lower": steps / 1.1, "upper": steps * 1.1})
    power, offset = compare_laws(table, "n")
    assert offset.parameters["t0"] == pytest.approx(200, rel=0.2) and offset.parameters["c"] == pytest.approx(9, rel=0.1)
    assert offset.negative_log_likelihood < power.negative_log_likelihood - 5 and power.parameters["a"] < 0.9  # bent by the offset

    def brute(means, sigma):
        inside = stats.norm.cdf(np.log(table["upper"]), means, sigma) - stats.norm.cdf(np.log(table["lower"]), means, sigma)
        return -np.log(inside).sum()

    t0, c, sigma = np.meshgrid(np.linspace(100, 300, 21), np.linspace(7, 11, 21), np.linspace(0.05, 0.2, 16))
    best = min(brute(np.log(a + b * n), s) for a, b, s in zip(t0.flat, c.flat, sigma.flat, strict=True))
    assert offset.negative_log_likelihood <= best and best - offset.negative_log_likelihood < 0.5
    assert brute(np.log(power.parameters["c"] * n ** power.parameters["a"]), power.parameters["sigma"]) == pytest.approx(
        power.negative_log_likelihood
    )


def test_agreement_is_one_for_equal_and_near_zero_for_independent_samples():
    first, second = np.random.default_rng(0).normal(3, 1, (2, 200, 3, 8, 8))
    assert agreement(first, first) == pytest.approx(np.ones(200)) and abs(agreement(first, second).mean()) < 0.02
    mean = (first[:3].mean(0) + second[:3].mean(0)) / 2
    wanted = [np.corrcoef([(a - mean).ravel(), (b - mean).ravel()])[0, 1] for a, b in zip(first[:3], second[:3], strict=True)]
    assert agreement(first[:3], second[:3]) == pytest.approx(wanted, abs=0.02)


def test_the_mean_over_runs_is_that_of_the_resampled_tables():
    generator = np.random.default_rng(0)
    runs = [generator.normal(run, 1, 5 + run) for run in range(3)]
    rows = [
        {"run": run, "unit": unit, "upper": 1.0, "value": value} for run, values in enumerate(runs) for unit, value in enumerate(values)
    ]
    found = bootstrap_run_values(runs)
    assert found == bootstrap_table(pd.DataFrame(rows), lambda part: float(part["value"].mean()))
    assert found.low < found.value < found.high


def test_runs_of_one_seed_are_resampled_together():
    table = pd.DataFrame({"run": range(8), "unit": 0, "upper": 1.0, "value": [0, 0, 0, 0, 1, 1, 1, 1], "seed": [0, 0, 1, 1, 2, 2, 3, 4]})
    mean = lambda part: float(part["value"].mean())  # noqa: E731
    by_seed, by_run = bootstrap_table(table, mean), bootstrap_table(table.drop(columns="seed"), mean)
    assert by_seed.value == by_run.value == 0.5 and by_seed.high - by_seed.low > by_run.high - by_run.low
    assert bootstrap_run_values([np.array([float(v)]) for v in table["value"]], table["seed"].tolist()) == by_seed


def test_few_seeds_have_a_t_interval_over_their_means():
    found = bootstrap_run_values([np.array([1.0, 2.0]), np.array([3.0]), np.array([5.0])], [0, 0, 1])
    low, high = stats.t.interval(0.95, 1, 3.5, stats.sem([2, 5]))
    assert (found.value, found.low, found.high) == pytest.approx((3.5, low, high))
