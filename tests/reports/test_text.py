import json
from collections.abc import Callable
from pathlib import Path

import pytest

from afterglow.reports.text import emergence_table


def test_the_table_says_when_and_how_closely(run_folder: Path) -> None:
    lines = emergence_table(run_folder).splitlines()
    assert [line.split()[0] for line in lines[:-1]] == ["kind", "global", "local", "control", "phantom", "decoy", "tint", "heldout"]
    assert lines[1].split() == ["global", "2", "2", "(100%)", "20", "0"]
    assert lines[3].split() == ["control", "3", "0", "(0%)", "-", "-"]
    assert lines[4].split() == ["phantom", "4", "0", "(0%)", "after", "40", "4"]
    assert lines[-1] == "Probes: 5, from step 0 to 40, neighbors up to 2.00 times apart."


def test_columns_are_aligned(run_folder: Path) -> None:
    lines = emergence_table(run_folder).splitlines()
    assert (
        len({line.index(word) for line, word in zip(lines[1:3], ("2 (100%)", "2 (100%)"), strict=True)} | {lines[0].index("memorized")})
        == 1
    )


def test_an_interval_is_shown_with_its_open_end(tmp_path: Path) -> None:
    median = {"step": 20.0, "low": 10.0, "high": None}
    found = {
        "evaluation_steps": [0, 10, 20],
        "probe_ratio": 2.0,
        "kinds": {"local": {"plants": 3, "memorized": 2, "censored": 1, "median": median}},
    }
    (tmp_path / "emergence.json").write_text(json.dumps(found))
    assert "20 (10-after 20)" in emergence_table(tmp_path)


def test_a_run_without_an_end_is_refused(make_run: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match="There is no emergence.json in"):
        emergence_table(make_run(finished=False))
