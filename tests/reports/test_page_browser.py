"""The page in headless Chromium: no error, no request, and slider, filters and sorting by mouse and keyboard."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from afterglow.reports.page import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def page(run_folder: Path) -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    with playwright.sync_playwright() as api:
        browser = api.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark").new_page()
        opened.problems = []
        opened.on("pageerror", lambda error: opened.problems.append(str(error)))
        opened.on("console", lambda message: opened.problems.append(message.text) if message.type == "error" else None)
        opened.on("request", lambda request: opened.problems.append(request.url) if request.url.startswith("http") else None)
        opened.goto(write_report(run_folder).resolve().as_uri())
        opened.wait_for_selector("#cards .card canvas")
        opened.wait_for_selector("#chart-memorized svg")
        yield opened
        browser.close()


def test_page_has_no_error_no_request_and_fits_a_phone(page: Any) -> None:
    page.wait_for_timeout(500)
    assert page.problems == []
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
