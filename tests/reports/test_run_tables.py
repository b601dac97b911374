import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from afterglow.kinds import KINDS
from afterglow.reports import run_tables
from afterglow.reports.run import read_run
from afterglow.reports.run_tables import best_end_token_map, detection_tables, emergence_text, localization_tables
from afterglow.reports.tables import NO_VALUE, Table


def texts(table: Table) -> dict[str, list[str]]:
    assert all(len(row.cells) + 1 == len(table.head) for row in table.rows)
    assert not table.groups or sum(span for _, span in table.groups) == len(table.head)
    return {row.label: [cell.text for cell in row.cells] for row in table.rows}


def test_planted_table_counts_plants(run_folder: Path) -> None:
    assert texts(run_tables.planted_table(read_run(run_folder)))["phantom"][:3] == ["4", "0", "whole, box"]


def test_emergence_table_equals_emergence_json(run_folder: Path) -> None:
    rows = texts(run_tables.emergence_table(read_run(run_folder)))
    assert rows["global"] == ["2", "2", "0", *["20 [20, 20]"] * 3]
    assert rows["local"] == ["2", "2", "0", *["30 [30, 30]"] * 3]
    assert rows["phantom"] == ["4", "0", "4", "after 40", "after 40", "after 40"]
    assert rows["control"] == ["3", "0", "–", "–", "–", "–"]


def test_emergence_table_does_not_count_unprompted_generations_as_plants(make_run: Callable[..., Path]) -> None:
    folder = make_run(text=False)
    assert not run_tables.emergence_table(read_run(folder)).rows
    first, note, *_ = emergence_text(folder).splitlines()  # without an interval: nothing says how many unseen images pass the rule
    assert first == "Generations without a caption, memorized: 0 of 6." and note.startswith("False positives are not known")
    file = folder / "emergence.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"unseen": {"images": 8, "memorized": 2}}))
    first, note, *_ = emergence_text(folder).splitlines()
    assert first.endswith("0 of 6 (0% to 39%).") and note.endswith("pass the same test (false positives): 2 of 8 (7% to 59%).")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"neighbor_clusters": 31}))
    assert emergence_text(folder).splitlines()[2] == "Other clusters that calibrate a distance: 31."
    assert run_tables.false_positive_text({}) == "False positives are counted at the last evaluation."


def test_tables_of_the_last_evaluation(run_folder: Path) -> None:
    run = read_run(run_folder)
    assert texts(run_tables.confirmation_table(run)) == {"local": ["2 of 2 (34% to 100%)"] * 2}
    assert texts(run_tables.ema_table(run))["global"][:2] == ["2 of 2 (34% to 100%)"] * 2
    assert texts(run_tables.local_to_global_table(run))["local"] == ["0 of 2 (0% to 66%)", "1.100"]
    assert texts(run_tables.shape_table(run)) == {"box": ["0%", "0 of 2 (0% to 66%)"]}


def test_phantom_text_separates_global_and_local_phantoms(run_folder: Path) -> None:
    assert run_tables.phantom_text(read_run(run_folder)) == "phantoms of global plants: 0 of 2; phantoms of local plants: 0 of 2"


def test_plant_table_has_an_interval_per_plant(run_folder: Path) -> None:
    rows = texts(run_tables.plant_table(read_run(run_folder)))
    assert len(rows) == 12
    assert rows["<b>local</b> & 1"][:4] == ["1", "box", "6", "yes"] and rows["<b>local</b> & 1"][-2:] == ["20", "30"]
    assert rows["<b>decoy</b> & 4"][-2:] == ["40", "not emerged"]


def test_tables_of_the_end_are_empty_before_the_end(make_run: Callable[..., Path]) -> None:
    run = read_run(make_run(finished=False))
    for table in (run_tables.confirmation_table(run), run_tables.ema_table(run), run_tables.shape_table(run)):
        assert not table.rows


def test_emergence_text_has_medians_and_spacing(run_folder: Path) -> None:
    lines = emergence_text(run_folder).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [line[0] for line in cells[2:-2]] == ["global", "local", "control", "phantom", "decoy", "tint", "heldout"]
    assert cells[2] == ["global", "2 of 2 (34% to 100%)", "20 [20, 20]", "0"]
    assert cells[4][2:] == ["-", "-"] and cells[5] == ["phantom", "0 of 4 (0% to 49%)", "after 40", "4"]
    assert lines[-2].startswith("Emerged: confirmed by the next two evaluations")
    assert lines[-1] == "5 evaluations between steps 0 and 40; neighboring ones differ by at most a factor of 2.00."


def test_emergence_text_shows_an_open_interval(tmp_path: Path) -> None:
    median = {"step": 20.0, "low": 10.0, "high": None}
    emergence = {
        "evaluation_steps": [0, 10, 20],
        "probe_ratio": 2.0,
        "kinds": {"local": {"plants": 3, "memorized": 2, "censored": 1, "median": median}},
    }
    (tmp_path / "emergence.json").write_text(json.dumps(emergence))
    assert "20 [10, after 20]" in emergence_text(tmp_path)


def test_emergence_text_of_an_unfinished_run_raises(make_run: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match="There is no emergence.json in"):
        emergence_text(make_run(finished=False))


def test_localization_tables_sort_maps_and_shade_trivial_ones(run_folder: Path) -> None:
    run = read_run(run_folder)
    tables = localization_tables(run)
    assert tables is not None
    main, every = tables
    trivial = [row for row in main.rows if row.shaded]
    assert {row.label for row in trivial} == {f"{name}{end}" for name in ("centered_gaussian", "luminance") for end in ("", ".inverted")}
    numbers = {key: value for key, value in run.numbers[run.last].items() if key.endswith("/auc")}
    numbers |= {key[:-4] + ".inverted/auc": 1 - value for key, value in numbers.items()}
    for rows in (trivial, main.rows[len(trivial) :], every.rows):
        areas = [numbers[f"localization/{row.label}/auc"] for row in rows]
        assert areas == sorted(areas, reverse=True) and [row.cells[0].exact.split(",")[0] for row in rows] == [repr(area) for area in areas]
    assert main.head[-3:] == ["phantom (2)", "tint (2)", "decoy (2)"]  # phantoms of whole images have no outside


def test_localization_tables_without_trivial_maps_have_no_gain(run_folder: Path) -> None:
    rows = pd.read_parquet(run_folder / "measurements.parquet")
    trivial = rows["measure"].str.contains("centered_gaussian|luminance")
    rows[~trivial].to_parquet(run_folder / "measurements.parquet", index=False)
    tables = localization_tables(read_run(run_folder))
    assert tables is not None
    assert tables[0].rows and all(not row.shaded and row.cells[1] == NO_VALUE for row in tables[0].rows)


def test_localization_tables_mark_the_best_end_token_map(run_folder: Path) -> None:
    run = read_run(run_folder)
    best = best_end_token_map(run)
    tables = localization_tables(run)
    assert tables is not None and best == next(name for name in run.map_names if name.startswith("end_token"))
    assert {row.label: row.remark for row in tables[1].rows}[best] == "selected after seeing the results"


def test_detection_tables_separate_negative_kinds(run_folder: Path) -> None:
    run = read_run(run_folder)
    tables = detection_tables(run)
    assert tables is not None
    whole, single = tables
    assert [row.label for row in whole.rows] == ["guidance_norm.all"]
    assert [row.label for row in single.rows] == ["ld.mid_block.attentions.0.all"]
    assert whole.head[1:5] == ["phantom (4)", "control (3)", "decoy (2)", "tint (2)"]
    assert whole.groups[1:3] == [("global (2) against", 4), ("local (2) against", 4)]
    numbers = run.numbers[run.last]
    assert whole.rows[0].cells[1].exact == repr(numbers["detection/guidance_norm.all/global_vs_control/auc"])
    assert whole.rows[0].cells[-1].exact == repr(numbers["detection/guidance_norm.all/memorized_vs_rest/auc"])


def test_tables_without_plants_are_absent(make_run: Callable[..., Path]) -> None:
    run = read_run(make_run(text=False))
    assert localization_tables(run) is None and detection_tables(run) is None


def test_table_at_the_end_of_a_training_fits_100_columns() -> None:
    quantile = {"step": 65536, "low": 32768, "high": None}
    kinds = {kind: {"plants": 1000, "memorized": 500, "censored": 100, "median": quantile} for kind in KINDS if kind != "unprompted"}
    text = run_tables._emergence_text({"kinds": kinds, "evaluation_steps": [0, 100000], "probe_ratio": 1.5})
    assert max(map(len, text.splitlines())) <= 100 and "65536 [32768, after 100000]" in text
