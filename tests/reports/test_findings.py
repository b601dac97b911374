from collections.abc import Callable
from pathlib import Path

import pandas as pd

from afterglow.reports.cells import NO_PLANTS
from afterglow.reports.findings import best_end_token_map, detection_tables, localization_tables, map_names
from afterglow.reports.run import read_run


def test_maps_are_sorted_and_trivial_ones_stand_apart(run_folder: Path) -> None:
    run = read_run(run_folder)
    tables = localization_tables(run)
    assert tables is not None
    named, every = tables
    assert [row.mark for row in named.rows[:2]] == ["trivial", "trivial"] and "trivial" not in [row.mark for row in named.rows[2:]]
    numbers = run.numbers[run.last]
    for rows in (named.rows[:2], named.rows[2:], every.rows):
        areas = [numbers[f"localization/{row.label}/auc"] for row in rows]
        assert areas == sorted(areas, reverse=True) and [row.cells[0].exact.split(",")[0] for row in rows] == [repr(area) for area in areas]
    assert named.head[-3:] == ["phantom (2)", "tint (2)", "decoy (2)"]  # phantoms of whole images have no outside


def test_without_a_trivial_map_nothing_is_compared_with_it(run_folder: Path) -> None:
    rows = pd.read_parquet(run_folder / "measurements.parquet")
    trivial = rows["measure"].str.contains("centered_gaussian|luminance")
    rows[~trivial].to_parquet(run_folder / "measurements.parquet", index=False)
    tables = localization_tables(read_run(run_folder))
    assert tables is not None
    named, _ = tables
    assert [row.label for row in named.rows] and all(row.mark != "trivial" and row.cells[1] == NO_PLANTS for row in named.rows)


def test_the_best_end_token_map_is_marked(run_folder: Path) -> None:
    run = read_run(run_folder)
    best = best_end_token_map(run)
    tables = localization_tables(run)
    assert tables is not None and best == next(name for name in map_names(run) if name.startswith("end_token"))
    assert {row.label: row.mark for row in tables[1].rows}[best] == "chosen after the fact"


def test_detection_stands_against_each_kind_apart(run_folder: Path) -> None:
    run = read_run(run_folder)
    tables = detection_tables(run)
    assert tables is not None
    whole, single = tables
    assert [row.label for row in whole.rows] == ["guidance_norm.all"] and [row.label for row in single.rows] == [
        "ld.mid_block.attentions.0.all"
    ]
    assert whole.head[1:5] == ["phantom (4)", "control (3)", "decoy (2)", "tint (2)"]
    assert whole.groups[1:3] == [("global (2) against", 4), ("local (2) against", 4)]
    numbers = run.numbers[run.last]
    assert whole.rows[0].cells[1].exact == repr(numbers["detection/guidance_norm.all.global_vs_control/auc"])
    assert whole.rows[0].cells[-1].exact == repr(numbers["detection/guidance_norm.all.memorized_vs_rest/auc"])


def test_without_what_is_to_be_found_there_are_no_tables(make_run: Callable[..., Path]) -> None:
    run = read_run(make_run(text=False))
    assert localization_tables(run) is None and detection_tables(run) is None
