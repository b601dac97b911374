import re

import numpy as np
import pytest

from afterglow.functional.statistics import Estimate, bootstrap, wilson_interval
from afterglow.reports.tables import count_cell, count_text, duration, interval_text, mean_cell, number_cell, step_text, text_table


def test_text_table_keeps_hostile_text_in_its_cell() -> None:
    hostile = ["a|b", "<script>alert(1)</script>", "x\n| y | z |", "a\u2028b\u202ec\x1b[31m", "<!-- x", "1 < 2"]
    lines = text_table(["name", "x"], [[text, "1"] for text in hostile]).split("\n")
    assert len(lines) == 2 + len(hostile) and all(len(re.findall(r"(?<!\\)\|", line)) == 3 and line.isprintable() for line in lines)
    assert not re.search(r"(?<!\\)<[A-Za-z/!?]", "".join(lines)) and "1 < 2" in lines[-1]


def test_text_table_is_markdown_with_aligned_columns() -> None:
    assert text_table(["a", "long"], [["1", "2"], ["three", "4"]]).splitlines() == [
        "| a     | long |",
        "| ----- | ---- |",
        "| 1     | 2    |",
        "| three | 4    |",
    ]


def test_interval_text_equals_the_text_of_an_estimate() -> None:
    estimate = Estimate(0.876, 0.831, 0.912)
    assert interval_text(estimate) == str(estimate) == "0.88 [0.83, 0.91]"
    assert interval_text(estimate, "+.1f", "x") == estimate.text("+.1f", "x") == "+0.9x [+0.8, +0.9]"


def test_number_cell_is_rounded_and_holds_the_exact_value() -> None:
    assert (number_cell(1 / 3).text, float(number_cell(1 / 3).exact)) == ("0.333", 1 / 3)
    assert (number_cell(2 / 3, ".0%").text, float(number_cell(2 / 3, ".0%").exact)) == ("67%", 2 / 3)
    assert number_cell(None).text == "–"


def test_count_text_has_the_wilson_interval() -> None:
    low, high = wilson_interval(7, 8)
    assert count_text(7, 8) == count_cell(7, 8).text == f"7 of 8 ({low:.0%} to {high:.0%})"
    assert count_text(7, 8, digits=1) == f"7 of 8 ({low:.1%} to {high:.1%})"
    assert float(count_cell(7, 8).exact) == 7 / 8
    assert (count_text(0, 0), count_cell(0, 0).text) == ("-", "–")


def test_mean_cell_has_the_bootstrap_interval() -> None:
    values = np.array([0.2, 0.4, 0.9])
    estimate = bootstrap(values)
    assert mean_cell(values).text == str(estimate)
    assert repr(estimate.low) in mean_cell(values).exact and mean_cell(values, 0.123).text.startswith("0.12 ")
    assert mean_cell(np.full(4, 0.25), spec="+.2f").text == "+0.25 [+0.25, +0.25]"


@pytest.mark.parametrize(
    ("quantile", "text"),
    [
        ({"step": 20.0, "low": 10.0, "high": 40.0}, "20 [10, 40]"),
        ({"step": 20.0, "low": 20.0, "high": 20.0}, "20 [20, 20]"),
        ({"step": 20.0, "low": 10.0, "high": None}, "20 [10, after 99]"),
        ({"step": None, "low": None, "high": None}, "after 99"),
    ],
)
def test_step_text_of_a_quantile_later_than_the_run(quantile: dict, text: str) -> None:
    assert step_text(quantile, 99) == text


def test_mean_cell_at_one_has_an_exact_interval_and_a_difference_has_none() -> None:
    assert mean_cell(np.ones(8)).text == "1.00 [0.63, 1.00]"
    assert mean_cell(np.zeros(8), spec="+.2f").text == "+0.00 [+0.00, +0.00]"


@pytest.mark.parametrize(
    ("seconds", "text"), [(45, "45 seconds"), (60, "1.0 minutes"), (7000, "116.7 minutes"), (9000, "2.5 hours"), (2e5, "2.3 days")]
)
def test_durations_have_a_unit_that_fits(seconds, text):
    assert duration(seconds) == text
