import itertools
import math
import re

import numpy as np
import pytest

from afterglow.analysis.emergence import emergence_interval, emergence_quartiles, finite_or_none, num_confirmations_needed
from afterglow.functional.survival import Interval

STEPS = [0, 20, 30, 45, 68, 100]
T, F, INF = True, False, math.inf


@pytest.mark.parametrize(
    ("memorized", "confirmations", "expected"),
    [
        ([F, F, F, F, F, F], [], (100, INF)),  # never
        ([F, F, T, T, T, T], [], (20, 30)),
        ([F, T, T, T, F, F], [], (0, 20)),  # it stayed at the next two; what comes later does not count
        ([F, T, T, F, T, T], [T], (45, 68)),  # a gap: the first time was no emergence
        ([F, T, F, T, T, T], [], (30, 45)),
        ([T, T, T, T, T, T], [], (0, 0)),  # at once
        ([T, F, F, T, T, T], [], (30, 45)),
        ([F, F, F, F, T, T], [T], (45, 68)),  # the probe before the last needs one confirmation
        ([F, F, F, F, T, T], [T, F], (45, 68)),
        ([F, F, F, F, T, T], [F], (100, INF)),
        ([F, F, F, F, T, T], [], (45, INF)),
        ([F, F, F, F, F, T], [T, T], (68, 100)),  # the last needs two
        ([F, F, F, F, F, T], [T], (68, INF)),
        ([F, F, F, F, F, T], [T, F], (100, INF)),
        ([F, F, F, F, F, T], [F, T], (100, INF)),
        ([F, F, F, F, F, T], [], (68, INF)),
        ([F, T, T, T, T, F], [], (0, 20)),
        ([F, F, F, T, T, F], [], (100, INF)),
    ],
)
def test_emergence_by_the_definition(memorized, confirmations, expected):
    found = emergence_interval(STEPS, memorized, confirmations)
    assert (found.lower, found.upper) == expected
    assert found.censored is (expected[1] == INF)


def test_every_history_of_six_evaluations():
    """The definition read off a string: the first 111 that begins at a probe, else a run of 1 that the string cuts off."""
    for memorized in itertools.product([F, T], repeat=6):
        for number in range(3):
            for confirmations in itertools.product([F, T], repeat=number):
                text = "".join("01"[seen] for seen in (*memorized, *confirmations))
                whole, cut = re.search("111", text), re.search("1{1,2}$", text)
                if whole and whole.start() < 6:
                    first, upper = whole.start(), STEPS[whole.start()]
                elif cut and cut.start() < 6:
                    first, upper = cut.start(), INF
                else:
                    first, upper = 6, INF
                expected = Interval(STEPS[first - 1] if first else 0, upper)
                assert emergence_interval(STEPS, memorized, confirmations) == expected, text


def test_confirmations_needed_are_those_that_make_three_in_a_row():
    for memorized in itertools.product([F, T], repeat=5):
        text = "".join("01"[seen] for seen in memorized)
        needed = next(k for k in range(4) if (text + "1" * k).endswith("111")) if memorized[-1] else 0
        assert num_confirmations_needed(memorized) == needed, text
    assert [num_confirmations_needed(seen) for seen in ([], [T], [T, T])] == [0, 2, 1]


def test_finite_or_none_is_none_for_infinity():
    assert finite_or_none(INF) is None and finite_or_none(3.0) == 3.0


def test_quartiles_of_plants_that_agree_has_no_width():
    found = emergence_quartiles([Interval(10, 20)] * 6)
    assert found["plants"] == 6 and found["censored"] == 0
    for name in ("first_quartile", "median", "third_quartile"):
        assert found[name] == {"step": 20.0, "low": 20.0, "high": 20.0}


def test_quartiles_against_another_bootstrap():
    uppers = np.array([10.0] * 6 + [20.0] * 8 + [30.0] * 9 + [40.0] * 7 + [INF] * 2)
    intervals = [Interval(upper - 10 if upper < INF else 40, upper) for upper in uppers]
    found = emergence_quartiles(intervals)
    assert found["plants"] == 32 and found["censored"] == 2
    generator = np.random.default_rng(1)
    for name, share in (("first_quartile", 0.25), ("median", 0.5), ("third_quartile", 0.75)):
        draws = [np.sort(generator.choice(uppers, 32))[math.ceil(share * 32) - 1] for _ in range(2000)]
        low, high = np.sort(draws)[[50, 1950]]
        assert found[name]["step"] == np.sort(uppers)[math.ceil(share * 32) - 1]
        assert abs(found[name]["low"] - low) <= 10 and abs(found[name]["high"] - high) <= 10  # to one cell
    assert found["median"]["low"] < found["median"]["high"]


def test_quartiles_says_none_for_later_than_the_run():
    found = emergence_quartiles([Interval(0, 10)] + [Interval(100, INF)] * 9)
    assert found["censored"] == 9
    assert found["median"]["step"] is None and found["median"]["high"] is None
