import numpy as np
import pytest
from scipy.stats import binomtest, mannwhitneyu, t

from afterglow.functional.statistics import (
    Estimate,
    bootstrap,
    bootstrap_runs,
    draw_nested,
    exact_at_bounds,
    exact_interval,
    mann_whitney_z,
    nested_bootstrap,
    nested_groups,
    random_folds,
    resample,
    wilson_interval,
)


@pytest.mark.parametrize(("successes", "count"), [(0, 8), (8, 8), (3, 8), (1, 1), (0, 1), (50, 1000)])
def test_wilson_is_scipys(successes, count):
    expected = binomtest(successes, count).proportion_ci(0.95, method="wilson")
    assert wilson_interval(successes, count) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_has_a_width_at_none_and_all_and_knows_nothing_without_trials():
    assert wilson_interval(0, 8)[1] > 0.2 and wilson_interval(8, 8)[0] < 0.8
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_mann_whitney_z_standardizes_scipys_u_with_ties():
    generator = np.random.default_rng(0)
    first, second = generator.integers(0, 6, 30) / 6, generator.integers(1, 7, 20) / 6
    u = mannwhitneyu(first, second).statistic
    assert mann_whitney_z(first, second) == pytest.approx((u - 300) / np.sqrt(600 * 51 / 12), abs=1e-12)
    assert mann_whitney_z(first, first) == pytest.approx(0, abs=1e-12)


def test_bootstrap_covers_the_mean_of_a_normal_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    covered, widths, exact = 0, [], []
    for turn in range(200):
        sample = generator.normal(3.0, 2.0, size=30)
        found = bootstrap(sample, seed=turn)
        low, high = found.low, found.high
        covered += low < 3.0 < high
        widths.append(high - low)
        exact.append(2 * t.ppf(0.975, 29) * sample.std(ddof=1) / 30**0.5)
    assert 0.88 <= covered / 200 <= 0.99
    assert np.mean(widths) == pytest.approx(np.mean(exact), rel=0.1)


def test_bootstrap_holds_the_mean_and_repeats_itself():
    sample = np.random.default_rng(1).random(40)
    found = bootstrap(sample)
    low, high = found.low, found.high
    assert low < sample.mean() < high
    assert bootstrap(sample) == found
    assert bootstrap([0.25] * 5) == Estimate(0.25, 0.25, 0.25)


@pytest.mark.parametrize(("successes", "count"), [(0, 8), (8, 8), (3, 8), (1, 1), (0, 1), (50, 1000)])
def test_exact_interval_agrees_with_scipy(successes, count):
    expected = binomtest(successes, count).proportion_ci(0.95, method="exact")
    assert exact_interval(successes, count) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_exact_interval_without_trials_is_everything():
    assert exact_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_exact_at_bounds_replaces_an_interval_without_width(value):
    found = exact_at_bounds(Estimate(value, value, value), 8)
    expected = binomtest(int(8 * value), 8).proportion_ci(0.95, method="exact")
    assert found.value == value and (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_exact_at_bounds_keeps_other_estimates():
    assert exact_at_bounds(Estimate(0.5, 0.5, 0.5), 8) == Estimate(0.5, 0.5, 0.5)
    assert exact_at_bounds(Estimate(3.0, 2.0, 4.0), 8) == Estimate(3.0, 2.0, 4.0)


def test_estimate_prints_value_and_interval():
    found = Estimate(0.876, 0.831, 0.912)
    assert str(found) == f"{found}" == "0.88 [0.83, 0.91]"
    assert Estimate(-0.12, -0.15, -0.09).text("+.3f") == "-0.120 [-0.150, -0.090]"
    assert Estimate(0.0, np.log(0.5), np.log(2.0)).map(np.exp).text(unit="x") == "1.00x [0.50, 2.00]"


def test_resample_starts_with_the_sample_itself():
    found = resample([1.0, 2.0, 9.0], np.median)
    assert found[0] == 2 and set(found) == {1.0, 2.0, 9.0}
    assert bootstrap([1.0, 2.0, 9.0], np.median) == Estimate(2.0, 1.0, 9.0)


def test_bootstrap_runs_of_one_run_is_that_of_its_plants():
    values = np.random.default_rng(3).random(20)
    assert bootstrap_runs([resample(values)]) == bootstrap(values)
    apart = bootstrap_runs([resample(values), resample(values + 5)])
    assert apart.value == pytest.approx(values.mean() + 2.5) and apart.low < values.mean() + 0.1 and apart.high > values.mean() + 4.9


def test_bootstrap_runs_of_one_seed_are_resampled_together():
    flat = [np.full(1001, value) for value in (0, 0, 0, 0, 1, 1, 1, 1)]  # no spread inside a run
    by_run, by_seed = bootstrap_runs(flat), bootstrap_runs(flat, [0, 0, 1, 1, 2, 2, 3, 3])
    assert by_run.value == by_seed.value == 0.5
    assert by_seed.low < 0.1 < by_run.low and by_run.high < 0.9 < by_seed.high
    assert bootstrap_runs(flat, [3, 1, 2, 0, 7, 6, 5, 4]) == by_run  # a seed for each run changes nothing


def test_random_folds_are_halves_that_do_not_follow_the_order_of_the_plants():
    plants = np.repeat(np.arange(16), 2)
    (folds,) = random_folds(plants)
    assert np.bincount(folds[::2]).tolist() == [8, 8] and (folds[::2] == folds[1::2]).all()
    for period in (2, 4):  # a plan deals copies and shapes in turn: every one of them is on both sides
        assert all(set(folds[::2][turn::period]) == {0, 1} for turn in range(period))


def test_nested_groups_keep_every_row_once():
    seeds, runs = np.array([1, 1, 0, 0, 1]), np.array(["b", "a", "c", "c", "b"])
    groups = nested_groups(seeds, runs)
    assert [[run.tolist() for run in seed] for seed in groups] == [[[2, 3]], [[1], [0, 4]]]


def test_draw_nested_draws_whole_seeds_then_runs_then_units():
    groups = nested_groups([0] * 4 + [1] * 4, [0, 0, 1, 1, 2, 2, 3, 3])
    for seed in range(20):
        drawn = draw_nested(groups, np.random.default_rng(seed))
        blocks = drawn.reshape(4, 2) // 2  # two seeds of two runs of two units
        assert (blocks[:, 0] == blocks[:, 1]).all()
        assert (blocks[0] // 2 == blocks[1] // 2).all() and (blocks[2] // 2 == blocks[3] // 2).all()


def test_nested_bootstrap_is_wider_where_the_plants_of_a_seed_agree():
    generator = np.random.default_rng(5)
    seeds = np.repeat(np.arange(8), 20)
    values = generator.normal(size=8)[seeds] + 0.1 * generator.normal(size=160)
    mean = lambda units: values[units].mean()  # noqa: E731
    by_seed, flat = nested_bootstrap(nested_groups(seeds), mean), nested_bootstrap(np.arange(160), mean)
    assert by_seed.value == flat.value == values.mean()
    assert by_seed.high - by_seed.low > 2 * (flat.high - flat.low)
