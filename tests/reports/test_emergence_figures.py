"""What the figures draw."""

import numpy as np
import pandas as pd
import pytest

from afterglow.reports.emergence_figures import emerged, on_axis, spaced_values


def test_emerged_of_uncensored_intervals_is_their_distribution():
    table = pd.DataFrame({"lower": [0.0, 10.0, 20.0], "upper": [10.0, 20.0, 40.0]})
    assert emerged(table, np.array([5, 10, 25, 40, 90])).tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1, 1])


def test_on_axis_multiplies_by_the_rate_and_drops_plants_without_exposures():
    table = pd.DataFrame({"lower": [10.0, 10.0], "upper": [20.0, np.inf], "rate": [2.0, 0.0]})
    found = on_axis(table, "exposures")
    assert found[["lower", "upper"]].to_numpy().tolist() == [[20.0, 40.0]] and on_axis(table, "step") is table


def test_spaced_values_are_apart():
    assert spaced_values([50, 100, 200]) == [50, 100, 200] and spaced_values([7]) == [7]
    assert spaced_values([0.25, 0.2539, 0.2656, 0.3945, 0.3984, 0.5]) == [0.25, 0.3945, 0.5]
