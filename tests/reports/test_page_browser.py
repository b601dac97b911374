"""The page in headless Chromium: no error, no warning, no request, and slider, filters and sorting by mouse and keyboard."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from afterglow.reports.page import write_report


@pytest.fixture
def page(run_folder: Path, open_page: Callable[..., Any]) -> Any:
    opened = open_page(write_report(run_folder))
    opened.wait_for_selector("#cards .card canvas")
    opened.wait_for_selector("#chart-memorized svg")
    return opened


def test_page_has_no_error_no_request_and_fits_a_phone(page: Any, serious_violations: Callable[[Any], list[str]]) -> None:
    page.wait_for_timeout(500)
    assert page.problems == [] and serious_violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator(".chart svg").count() == 4


def test_slider_moves_every_card_by_keyboard(page: Any) -> None:
    assert page.inner_text("#step-text") == "step 40"
    card = page.locator(".card").filter(has_text="<b>global</b> & 0")
    assert "memorized, calibrated distance 0.70" in card.inner_text()
    page.focus("#step")
    for _ in range(4):
        page.keyboard.press("ArrowLeft")
    assert page.inner_text("#step-text") == "step 0" and page.get_attribute("#step", "aria-valuetext") == "training step 0"
    assert "not memorized, calibrated distance 1.70" in card.inner_text()


def test_filters_show_kinds_and_states(page: Any) -> None:
    assert page.inner_text("#shown") == "4 of 12 shown"  # global and local plants
    page.check("input[name=kind][value=phantom]")
    assert page.inner_text("#shown") == "8 of 12 shown"
    page.select_option("#state", "never")
    assert page.inner_text("#shown") == "4 of 12 shown" and page.locator(".card:visible").count() == 4


def test_tables_sort_by_exact_value_by_keyboard(page: Any) -> None:
    head = page.locator("#detection-table thead tr:last-child th").nth(1)
    head.locator("button").focus()

    def column() -> list[float]:
        return [float(text) for text in page.locator("#detection-table tbody tr td:nth-child(2)").all_inner_texts()]

    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending" and column() == sorted(column(), reverse=True)
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending" and column() == sorted(column())


def test_table_filter_hides_other_rows(page: Any) -> None:
    page.fill("input[data-filters=detection-table]", "guidance")
    assert page.locator("#detection-table tbody tr:visible").count() == 1
