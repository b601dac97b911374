"""The page that compares runs, against what the runs were written from, and in headless Chromium."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from afterglow.reports.comparison import (
    Comparison,
    effects_table,
    local_against_global,
    map_table,
    paired_groups_table,
    read_comparison,
    runs_text,
    write_comparison,
)
from afterglow.reports.emergence import plant_fits
from afterglow.reports.paired_plants import pair_plants

WriteRun = Callable[..., Path]


def with_width(folder: Path, width: int) -> Path:
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["model"]["init_args"]["unet"]["block_out_channels"] = [width]
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture(scope="module")
def widths(tmp_path_factory: pytest.TempPathFactory, write_run: WriteRun) -> Comparison:
    """Two seeds of two widths; local plants emerge twice as late in the wide network."""
    tmp_path = tmp_path_factory.mktemp("widths")
    folders = [
        with_width(write_run(tmp_path / f"w{width}-{seed}", seed=seed, factor=factor), width)
        for width, factor in ((16, 1.0), (64, 2.0))
        for seed in (0, 1)
    ]
    return read_comparison(folders)


def test_runs_are_grouped_by_what_differs(widths: Comparison) -> None:
    assert widths.groups == {"width 16": ["w16-0", "w16-1"], "width 64": ["w64-0", "w64-1"]}
    assert "| width 64 | 2    | 4 of 4" in runs_text(widths) and "phantom" in runs_text(widths)


def test_paired_differences_recover_the_factor_of_each_kind(widths: Comparison) -> None:
    table = paired_groups_table(widths)
    assert table is not None and [row.label for row in table.rows] == ["width 64"]
    pairs, _, whole, _, local = (cell.text for cell in table.rows[0].cells)
    assert pairs == "2" and float(whole.split()[0]) == pytest.approx(1, abs=0.01) and float(local.split()[0]) == pytest.approx(2, rel=0.25)


def test_runs_without_common_plants_are_not_paired(tmp_path: Path, write_run: WriteRun) -> None:
    one, two = with_width(write_run(tmp_path / "a"), 16), with_width(write_run(tmp_path / "b"), 32)
    names = (two / "plants" / "metadata.jsonl").read_text()
    (two / "plants" / "metadata.jsonl").write_text(names.replace('"p0"', '"other"'))
    assert paired_groups_table(read_comparison([one, two])) is None


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


def test_effect_of_copies_is_half_the_steps_for_twice_the_copies(widths: Comparison) -> None:
    table = effects_table(plant_fits(widths.tables, ["step"]))
    assert table is not None
    factors = {(row.label, row.cells[0].text): float(row.cells[1].text.split()[0]) for row in table.rows}
    assert factors["global plants", "copies"] == pytest.approx(0.5, abs=0.1)


def test_localization_of_runs_without_maps_is_absent(widths: Comparison) -> None:
    assert map_table(widths) is None


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
