import numpy as np
import pytest
from scipy.stats import binomtest, t

from afterglow.functional.statistics import bootstrap_interval, wilson_interval


@pytest.mark.parametrize(("successes", "count"), [(0, 8), (8, 8), (3, 8), (1, 1), (0, 1), (50, 1000)])
@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_wilson_is_scipys(successes, count, confidence):
    expected = binomtest(successes, count).proportion_ci(confidence, method="wilson")
    assert wilson_interval(successes, count, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_has_a_width_at_none_and_all_and_knows_nothing_without_trials():
    assert wilson_interval(0, 8)[1] > 0.2 and wilson_interval(8, 8)[0] < 0.8
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_bootstrap_covers_the_mean_of_a_normal_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    covered, widths, exact = 0, [], []
    for turn in range(200):
        sample = generator.normal(3.0, 2.0, size=30)
        low, high = bootstrap_interval(sample, seed=turn)
        covered += low < 3.0 < high
        widths.append(high - low)
        exact.append(2 * t.ppf(0.975, 29) * sample.std(ddof=1) / 30**0.5)
    assert 0.88 <= covered / 200 <= 0.99
    assert np.mean(widths) == pytest.approx(np.mean(exact), rel=0.1)


def test_bootstrap_holds_the_mean_repeats_itself_and_narrows():
    sample = np.random.default_rng(1).random(40)
    low, high = bootstrap_interval(sample)
    assert low < sample.mean() < high
    assert bootstrap_interval(sample) == (low, high)
    narrow = bootstrap_interval(sample, confidence=0.5)
    assert low < narrow[0] < narrow[1] < high
    assert bootstrap_interval([0.25] * 5) == (0.25, 0.25)
