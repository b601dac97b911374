"""The page that compares runs, against what the runs were written from, and in headless Chromium."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from afterglow.reports.comparison import local_against_global, write_comparison
from afterglow.reports.comparison_runs import Comparison, read_comparison
from afterglow.reports.comparison_tables import groups_table, runs_table
from afterglow.reports.paired_plants import pair_plants

WriteRun = Callable[..., Path]


def test_answer_names_the_factor_of_local_plants(tmp_path: Path, write_run: WriteRun) -> None:
    later = read_comparison([write_run(tmp_path / f"later{seed}", seed=seed, factor=2.0) for seed in range(3)])
    text = local_against_global(later, None)
    assert text.startswith("Local plants were memorized later than global plants: a factor of ") and "over 3 runs" in text
    assert float(text.split("factor of ")[1].split()[0]) == pytest.approx(2, rel=0.25)
    never = read_comparison([write_run(tmp_path / "never", factor=1e6)])
    assert local_against_global(never, None) == "2 of 2 global and 0 of 2 local plants emerged in 1 run."
    arms = read_comparison([write_run(tmp_path / f"arm{arm}", arm=arm, factor=2.0) for arm in (0, 1)])
    assert local_against_global(arms, pair_plants(arms.tables)).startswith(
        "Local plants were memorized later than the same images planted whole: a factor of "
    )
    bare = read_comparison([write_run(tmp_path / f"bare{n}", n=n, planted=False) for n in (100, 400)])
    assert local_against_global(bare, None) == "The generations came to copy training images in 2 of 2 runs (f_mem above .1)."


def test_models_without_captions_are_compared_by_assignment_and_by_outpainting(tmp_path: Path, write_run: WriteRun) -> None:
    runs = [write_run(tmp_path / f"n{n}", n=n, factor=2.0, outpainted=True) for n in (200, 400)]
    found = read_comparison(runs)
    first, second = local_against_global(found, None).removesuffix(".").split(". Local")
    assert first.endswith("over 2 runs, by assignment") and second.endswith("over 2 runs, by outpainting")
    assert [head for head in groups_table(found).head if head.startswith("local")] == [
        "local memorized, by assignment",
        "local memorized, by outpainting",
        "local: median step, by assignment",
        "local: median step, by outpainting",
    ]
    assert len(groups_table(found).head) == len(groups_table(found).rows[0].cells) + 1 and len(runs_table(found).rows) == 2
    page = write_comparison(found, tmp_path / "comparison.html").read_text()
    assert "Emergence against copies, by outpainting" in page and "Memorized local plants, by assignment" in page


def test_page_in_a_browser(widths: Comparison, tmp_path: Path, open_page: Callable[..., Any], serious_violations: Callable) -> None:
    file = write_comparison(widths, tmp_path / "out" / "comparison.html")
    page = open_page(file)
    page.wait_for_selector("#chart-against-0 svg")
    page.wait_for_timeout(500)
    assert page.problems == [] and serious_violations(page) == [] and file.stat().st_size < 15e6
    assert page.inner_text("pre") == f"afterglow compare {' '.join(map(str, widths.folders))}"
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator(".chart svg").count() == page.locator(".chart").count() == 6
    head = page.locator("#runs-table thead th", has_text="width").locator("button")
    head.focus()
    page.keyboard.press("Enter")
    first = page.locator("#runs-table tbody th").all_inner_texts()
    page.keyboard.press("Enter")
    assert first[0].startswith("w64") and page.locator("#runs-table tbody th").first.inner_text().startswith("w16")
    page.fill("input[data-filters=runs-table]", "w64")
    assert page.locator("#runs-table tbody tr:visible").count() == 2
