"""What the figures draw."""

import numpy as np
import pandas as pd
import pytest

from afterglow.reports.emergence_figures import emerged, on_axis, readable


def test_the_curve_of_intervals_that_all_end_is_their_empirical_distribution():
    table = pd.DataFrame({"lower": [0.0, 10.0, 20.0], "upper": [10.0, 20.0, 40.0]})
    assert emerged(table, np.array([5, 10, 25, 40, 90])).tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1, 1])


def test_exposures_are_steps_times_the_rate_and_what_is_never_shown_has_none():
    table = pd.DataFrame({"lower": [10.0, 10.0], "upper": [20.0, np.inf], "rate": [2.0, 0.0]})
    found = on_axis(table, "exposures")
    assert found[["lower", "upper"]].to_numpy().tolist() == [[20.0, 40.0]] and on_axis(table, "step") is table


def test_labels_do_not_run_into_each_other():
    assert readable([50, 100, 200]) == [50, 100, 200] and readable([7]) == [7]
    assert readable([0.25, 0.2539, 0.2656, 0.3945, 0.3984, 0.5]) == [0.25, 0.3945, 0.5]
