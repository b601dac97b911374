from collections.abc import Callable
from pathlib import Path

from afterglow.reports import tables
from afterglow.reports.cells import Table
from afterglow.reports.run import read_run


def texts(table: Table) -> dict[str, list[str]]:
    assert all(len(row.cells) + 1 == len(table.head) for row in table.rows)
    assert not table.groups or sum(span for _, span in table.groups) == len(table.head)
    return {row.label: [cell.text for cell in row.cells] for row in table.rows}


def test_what_was_planted(run_folder: Path) -> None:
    assert texts(tables.planted_table(read_run(run_folder)))["phantom"][:3] == ["4", "0", "whole, box"]


def test_emergence_is_what_the_file_says(run_folder: Path) -> None:
    found = texts(tables.emergence_rows(read_run(run_folder)))
    assert found["global"] == ["2", "2", "0", "20", "20", "20"]
    assert found["local"] == ["2", "2", "0", "30", "30", "30"]
    assert found["phantom"] == ["4", "0", "4", "after 40", "after 40", "after 40"]
    assert found["control"] == ["3", "0", "only the last probe looked", "–", "–", "–"]


def test_small_tables_of_the_last_probe(run_folder: Path) -> None:
    run = read_run(run_folder)
    assert texts(tables.confirmations(run)) == {"local": ["2 of 2 (100%; 34%–100%)"] * 2}
    assert texts(tables.raw_weights(run))["global"][:2] == ["2 of 2 (100%; 34%–100%)"] * 2
    assert texts(tables.local_to_global(run))["local"] == ["0 of 2 (0%; 0%–66%)", "1.100"]
    assert texts(tables.in_shapes(run)) == {"box": ["0%", "0 of 2 (0%; 0%–66%)"]}


def test_every_plant_has_its_interval(run_folder: Path) -> None:
    found = texts(tables.every_plant(read_run(run_folder)))
    assert len(found) == 12
    assert found["<b>local</b> & 1"][:4] == ["1", "box", "6", "yes"] and found["<b>local</b> & 1"][-2:] == ["20", "30"]
    assert found["<b>decoy</b> & 4"][-2:] == ["40", "censored"]


def test_an_unfinished_run_has_no_tables_of_its_end(make_run: Callable[..., Path]) -> None:
    run = read_run(make_run(finished=False))
    for table in (tables.confirmations(run), tables.raw_weights(run), tables.in_shapes(run)):
        assert not table.rows
