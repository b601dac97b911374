import time

from afterglow.measures.timing import median_interval, time_ratio


def test_twice_the_work_takes_about_twice_the_seconds():
    median, low, high = time_ratio(lambda: time.sleep(0.02), lambda: time.sleep(0.01), pairs=10)
    assert 1.3 < median < 2.7 and low <= median <= high


def test_an_outlier_does_not_move_the_median():
    median, low, high = median_interval([1.0] * 9 + [50.0])
    assert median == 1.0 and low == 1.0 and high < 50
