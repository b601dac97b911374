import numpy as np
import pytest

from afterglow.functional.statistics import bootstrap_interval, wilson_interval
from afterglow.reports.cells import averaged, counted, decimal, difference, percent, when


def test_a_number_is_rounded_and_kept() -> None:
    assert (decimal(1 / 3).text, float(decimal(1 / 3).exact)) == ("0.333", 1 / 3)
    assert (percent(2 / 3).text, float(percent(2 / 3).exact)) == ("67%", 2 / 3)
    assert decimal(None).text == percent(None).text == "–"


def test_a_count_has_wilsons_interval() -> None:
    low, high = wilson_interval(7, 8)
    assert counted(7, 8).text == f"7 of 8 (88%; {low:.0%}–{high:.0%})"
    assert repr(low) in counted(7, 8).exact
    assert counted(0, 0).text == "–"


def test_a_mean_has_a_bootstrap_interval() -> None:
    values = np.array([0.2, 0.4, 0.9])
    low, high = bootstrap_interval(values)
    assert averaged(values).text == f"0.50 ({low:.2f}–{high:.2f})"
    assert averaged(values, 0.123).text.startswith("0.12 ")


def test_a_difference_has_a_sign_and_zero_has_no_minus() -> None:
    assert difference(np.full(4, 0.25)).text == "+0.25 (+0.25 to +0.25)"
    assert difference(np.full(4, -0.001)).text == "+0.00 (+0.00 to +0.00)"


@pytest.mark.parametrize(
    ("about", "text"),
    [
        ({"step": 20.0, "low": 10.0, "high": 40.0}, "20 (10–40)"),
        ({"step": 20.0, "low": 20.0, "high": 20.0}, "20"),
        ({"step": 20.0, "low": 10.0, "high": None}, "20 (10–after 99)"),
        ({"step": None, "low": None, "high": None}, "after 99"),
    ],
)
def test_what_is_later_than_the_run_is_said_so(about: dict, text: str) -> None:
    assert when(about, 99).text == text
