from collections.abc import Callable
from pathlib import Path

import pytest

from afterglow.reports.comparison_runs import Comparison, read_comparison
from afterglow.reports.comparison_tables import effects_table, map_table, paired_groups_table, runs_text
from afterglow.reports.emergence import plant_fits

WriteRun = Callable[..., Path]


def test_groups_are_a_table_for_the_terminal(widths: Comparison) -> None:
    assert "| width 64 | 2    | 4 of 4" in runs_text(widths) and "phantom" in runs_text(widths)


def test_paired_differences_recover_the_factor_of_each_kind(widths: Comparison) -> None:
    table = paired_groups_table(widths)
    assert table is not None and [row.label for row in table.rows] == ["width 64"]
    pairs, _, whole, _, local = (cell.text for cell in table.rows[0].cells)
    assert pairs == "2" and float(whole.split()[0]) == pytest.approx(1, abs=0.01) and float(local.split()[0]) == pytest.approx(2, rel=0.25)


def test_paired_differences_by_outpainting_are_a_row_of_their_own(
    tmp_path: Path, write_run: WriteRun, with_width: Callable[[Path, int], Path]
) -> None:
    runs = [with_width(write_run(tmp_path / f"w{width}", outpainted=True), width) for width in (16, 32)]
    table = paired_groups_table(read_comparison(runs))
    assert table is not None and [row.label for row in table.rows] == ["width 32, by assignment", "width 32, by outpainting"]
    assert all(row.cells[2].text.startswith("1.00") for row in table.rows)


def test_runs_without_common_plants_are_not_paired(tmp_path: Path, write_run: WriteRun, with_width: Callable[[Path, int], Path]) -> None:
    one, two = with_width(write_run(tmp_path / "a"), 16), with_width(write_run(tmp_path / "b"), 32)
    names = (two / "plants" / "metadata.jsonl").read_text()
    (two / "plants" / "metadata.jsonl").write_text(names.replace('"p0"', '"other"'))
    assert paired_groups_table(read_comparison([one, two])) is None


def test_effect_of_copies_is_half_the_steps_for_twice_the_copies(widths: Comparison) -> None:
    table = effects_table(plant_fits(widths.tables, ["step"]))
    assert table is not None
    factors = {(row.label, row.cells[0].text): float(row.cells[1].text.split()[0]) for row in table.rows}
    assert factors["global plants", "copies"] == pytest.approx(0.5, abs=0.1)


def test_localization_of_runs_without_maps_is_absent(widths: Comparison) -> None:
    assert map_table(widths) is None
