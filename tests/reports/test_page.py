import json
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from afterglow.analysis.summary import summarize
from afterglow.reports.page import embedded, write_report

COMMAND = Path(__file__).parents[2] / "analysis" / "report.py"
OUTSIDE = re.compile(r"""(?:src|href|action|poster)\s*=\s*(?!["']?(?:data:|\#))|url\((?!["']?(?:data:|\#))|@import""")
MakeRun = Callable[..., Path]


def script(page: str, name: str) -> dict:
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_numbers_are_the_summary_of_the_rows_to_the_last_digit(run_folder: Path) -> None:
    page = write_report(run_folder).read_text()
    table = pd.read_parquet(run_folder / "measurements.parquet")
    assert script(page, "numbers") == {str(step): summarize(table[table["step"] == step]) for step in table["step"].unique()}
    assert script(page, "emergence") == json.loads((run_folder / "emergence.json").read_text())


def test_the_page_needs_nothing_but_itself(run_folder: Path) -> None:
    page = write_report(run_folder).read_text()
    assert page.startswith("<!doctype html>") and not OUTSIDE.search(page)
    assert "data:image/png" in page and page.count("<svg") > 10


@pytest.mark.parametrize("fault", ['<img src="x.png">', "a { background: url(//host/x) }", "<a href='https://host'>", '@import "x.css"'])
def test_what_the_page_would_need_is_found(fault: str) -> None:
    assert OUTSIDE.search(fault) and not OUTSIDE.search('<use href="#mark"/><image href="data:image/png;base64,x"/>')


def test_captions_are_escaped(run_folder: Path) -> None:
    page = write_report(run_folder).read_text()
    assert "<b>global</b>" not in page and "&lt;b&gt;global&lt;/b&gt; &amp; 0" in page


def test_a_script_cannot_be_closed_by_what_it_holds() -> None:
    assert "</script>" not in embedded({"</script>": 0.1}) and json.loads(embedded({"</script>": 0.1})) == {"</script>": 0.1}


def test_an_unfinished_run_says_so(make_run: MakeRun) -> None:
    page = write_report(make_run(finished=False)).read_text()
    assert "This run is not finished: the last probe so far was at step 20." in page
    assert script(page, "emergence")["kinds"]["global"]["censored"] == 2


def test_a_finished_run_shows_every_part_and_names_its_images(run_folder: Path) -> None:
    page = write_report(run_folder).read_text()
    assert "not finished" not in page and "OpenMoji, CC-BY-SA 4.0" in page
    titles = re.findall("<h2>(.*?)</h2>", page)
    assert titles == [
        "What was planted",
        "Memorized at the end",
        "When they emerged",
        "Over the training",
        "Samples over training",
        "Maps against planted masks",
        "Localization",
        "Detection",
        "False alarms by mask shape",
        "Local, or copied whole?",
        "Averaged and raw weights",
        "Every plant",
    ]


@pytest.mark.parametrize(
    ("about", "absent", "present"),
    [
        ({"kinds": ("global", "phantom")}, "<h2>Localization", "<h2>Detection"),
        ({"kinds": ()}, "<h2>Every plant", "<h2>Memorized"),
        ({"text": False}, "<h2>Detection", "unprompted"),
        ({"end_token": False}, "end_token.last", "score_difference.summed"),
    ],
)
def test_what_a_run_lacks_is_left_out(make_run: MakeRun, about: dict, absent: str, present: str) -> None:
    page = write_report(make_run(**about)).read_text()
    assert absent not in page and present in page


def test_only_the_table_is_needed(run_folder: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    (run_folder / "measurements.parquet").rename(bare / "measurements.parquet")
    assert "<h1>bare</h1>" in write_report(bare).read_text()


def test_a_folder_without_the_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"There is no run to report in '.*': measurements.parquet is missing."):
        write_report(tmp_path)


def command(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(COMMAND), *arguments])
    runpy.run_path(str(COMMAND), run_name="__main__")


def test_the_command_prints_the_page(run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    command(str(run_folder), monkeypatch=monkeypatch)
    assert capsys.readouterr().out.strip() == str(run_folder / "report.html")


def test_the_command_refuses_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        command(str(tmp_path), monkeypatch=monkeypatch)
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"error: There is no run to report in '{tmp_path}': measurements.parquet is missing.\n"
