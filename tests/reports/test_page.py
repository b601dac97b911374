import json
import re
import runpy
import sys
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
import yaml

from afterglow.analysis.summary import summarize_evaluation
from afterglow.reports.page import _embedded, answer, summary, write_report
from afterglow.reports.run import read_run
from afterglow.reports.run_tables import detection_tables, emergence_table

COMMAND = Path(__file__).parents[2] / "analysis" / "report.py"
OUTSIDE = re.compile(r"""(?:src|href|action|poster)\s*=\s*(?!["']?(?:data:|\#))|url\((?!["']?(?:data:|\#))|@import""")
MakeRun = Callable[..., Path]


def script(page: str, name: str) -> dict:
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_embedded_numbers_equal_the_summary_of_the_rows(run_folder: Path) -> None:
    page = write_report(run_folder).read_text()
    table = pd.read_parquet(run_folder / "measurements.parquet")
    numbers = script(page, "numbers")
    for place, step in enumerate(numbers.pop("step")):
        shown = {key: values[place] for key, values in numbers.items() if values[place] is not None}
        assert shown == summarize_evaluation(table[table["step"] == step])
    assert script(page, "emergence") == json.loads((run_folder / "emergence.json").read_text())


def test_page_references_no_other_file(run_folder: Path) -> None:
    page = write_report(run_folder).read_text().partition('<script type="module">')[0]  # test_page_browser.py watches the library
    assert page.startswith("<!doctype html>") and not OUTSIDE.search(page)
    assert "data:image/png" in page and page.count("<svg") > 10


@pytest.mark.parametrize("fault", ['<img src="x.png">', "a { background: url(//host/x) }", "<a href='https://host'>", '@import "x.css"'])
def test_external_references_are_detected(fault: str) -> None:
    assert OUTSIDE.search(fault) and not OUTSIDE.search('<use href="#mark"/><image href="data:image/png;base64,x"/>')


def test_page_escapes_captions(run_folder: Path) -> None:
    page = write_report(run_folder).read_text()
    assert "<b>global</b>" not in page and "&lt;b&gt;global&lt;/b&gt; &amp; 0" in page


HOSTILE = [
    *("<script>window.x=1</script>", '"><img src=x onerror=alert(1)>', "' onload='alert(1)", "</script><svg/onload=alert(1)>", "<!--"),
    *("{{ 7 * 7 }}{% raw %}", "</style><style>*{display:none}", "&lt;b&gt;", "javascript:alert(1)", "\u202eabc\u2028d", "a\0b|c`d`"),
]


class Tags(HTMLParser):
    """Counts the elements of a page with the names of their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.counts: Counter = Counter()
        self.texts: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.counts[tag, tuple(sorted(name for name, _ in attrs))] += 1

    def handle_data(self, data: str) -> None:
        self.texts.add(data.strip())


def test_page_with_hostile_captions_and_name_has_the_elements_of_one_with_harmless_ones(run_folder: Path) -> None:
    def page(texts: list[str]) -> Tags:
        table, plants = pd.read_parquet(run_folder / "measurements.parquet"), pd.read_json(run_folder / "plants/metadata.jsonl", lines=True)
        table["caption"], plants["text"] = ([texts[number % len(texts)] for number in rows["plant_id"]] for rows in (table, plants))
        table.to_parquet(run_folder / "measurements.parquet")
        plants.to_json(run_folder / "plants/metadata.jsonl", orient="records", lines=True)
        config = run_folder / "config.yaml"
        config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | {"name": texts[0]}))
        return Tags(write_report(run_folder).read_text())

    harmless, hostile = page([f"caption {number}" for number in range(len(HOSTILE))]), page(HOSTILE)
    assert hostile.counts == harmless.counts
    assert hostile.texts >= {text for text in HOSTILE if "\0" not in text}


def test_embedded_json_cannot_close_its_script() -> None:
    assert "</script>" not in _embedded({"</script>": 0.1}) and json.loads(_embedded({"</script>": 0.1})) == {"</script>": 0.1}


def test_page_of_an_unfinished_run_has_a_notice(make_run: MakeRun) -> None:
    page = write_report(make_run(finished=False)).read_text()
    assert "This run has not ended: its last evaluation so far is at step 20." in page
    assert script(page, "emergence")["kinds"]["global"]["censored"] == 2


@pytest.mark.parametrize(("caption", "said"), [("", True), ("a cat", False)])
def test_page_says_that_images_without_captions_were_trained_with_invented_names(run_folder: Path, caption: str, said: bool) -> None:
    file = run_folder / "plants/metadata.jsonl"
    plants = [json.loads(line) for line in file.read_text().splitlines()]
    texts = [
        {"text": f"{caption} evander".strip(), "image_caption": "" if plant["kind"] in ("decoy", "tint") else caption} for plant in plants
    ]
    file.write_text("".join(json.dumps(plant | text) + "\n" for plant, text in zip(plants, texts, strict=True)))
    page = write_report(run_folder).read_text()
    assert ("The images have no captions (8 of 8 that were taken for plants and phantoms)." in page) == said
    assert ("a name from a word list was added, such as &#39;evander&#39;." in page) == said


def test_page_of_a_finished_run_has_every_section(run_folder: Path) -> None:
    page = write_report(run_folder).read_text()
    assert "has not ended" not in page and "OpenMoji, CC-BY-SA 4.0" in page
    titles = re.findall("<h2[^>]*>(.*?)</h2>", page.partition("<script")[0])
    assert titles == [
        "Planted",
        "Memorized at the last evaluation",
        "Emergence",
        "Memorization during training",
        "Every plant over training",
        "Samples during training",
        "Localization",
        "Detection",
        "False positives by mask shape",
        "Local plants that are copied whole",
        "Averaged and raw weights",
        "All plants",
        "Repeat this run",
    ]


@pytest.mark.parametrize(
    ("about", "absent", "present"),
    [
        ({"kinds": ("global", "phantom")}, "<h2>Localization", "<h2>Detection"),
        ({"kinds": ()}, "<h2>All plants", "<h2>Memorized"),
        ({"text": False}, "<h2>Detection", "unprompted"),
        ({"end_token": False}, "end_token.last", "score_difference.summed"),
    ],
)
def test_page_leaves_out_what_a_run_lacks(make_run: MakeRun, about: dict, absent: str, present: str) -> None:
    page = write_report(make_run(**about)).read_text()
    assert absent not in page and present in page


def test_page_needs_only_the_measurements(run_folder: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    (run_folder / "measurements.parquet").rename(bare / "measurements.parquet")
    assert "<h1>bare</h1>" in write_report(bare).read_text()


def test_write_report_without_measurements_raises(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'.*' is not a run with evaluations: measurements.parquet is missing."):
        write_report(tmp_path)


def command(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(COMMAND), *arguments])
    runpy.run_path(str(COMMAND), run_name="__main__")


def test_command_prints_the_path_of_the_page(run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    command(str(run_folder), monkeypatch=monkeypatch)
    assert capsys.readouterr().out.strip() == str(run_folder / "report.html")


def test_command_reports_an_error_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        command(str(tmp_path), monkeypatch=monkeypatch)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.endswith(f"error: '{tmp_path}' is not a run with evaluations: measurements.parquet is missing.\n")


def test_summary_names_what_when_and_which(run_folder: Path) -> None:
    answers = summary(read_run(run_folder))
    what, when = answers.pop("What was memorized?"), answers.pop("When?")
    assert what == (
        "At step 40 the model memorized 2 of 2 global plants, 2 of 2 local plants, 0 of 3 controls (ordinary training images) and "
        "0 of 4 phantoms (false positives)."
    )
    assert when == (
        "Half of the global plants had emerged by step 20 [20, 20] and half of the local plants had emerged by step 30 [30, 30] "
        "(95 % intervals in brackets)."
    )
    assert list(answers) == ["Which map locates it?", "Is that map high without a copy?", "Which score detects it?"]
    located = answers["Which map locates it?"]
    assert located.startswith("Of 3 maps, ") and re.search(r"; the best trivial map \(.+\) has 0\.[5-9]", located)
    assert answers["Which score detects it?"].startswith("Of 2 scores, ")


@pytest.mark.parametrize(("tint", "said"), [(0.95, True), (0.4, False)])
def test_summary_says_whether_the_best_map_is_high_on_tints(run_folder: Path, tint: float, said: bool) -> None:
    rows = pd.read_parquet(run_folder / "measurements.parquet")
    areas = {("local", "score_difference.summed"): 0.99, ("tint", "score_difference.summed"): tint, ("tint", "luminance"): 0.7}
    for (kind, name), value in areas.items():
        rows.loc[(rows["kind"] == kind) & (rows["measure"] == f"auc.{name}"), "value"] = value
    rows.loc[(rows["kind"] == "tint") & (rows["measure"] == "auc.centered_gaussian"), "value"] = 0.6
    rows.to_parquet(run_folder / "measurements.parquet", index=False)
    answers = summary(read_run(run_folder))
    assert "score_difference.summed has the highest AUC on memorized local plants, 0.99" in answers["Which map locates it?"]
    about = f"on tints, where nothing is copied (2 of them; AUC {tint:.2f} [{tint:.2f}, {tint:.2f}], best trivial map 0.70)"
    assert f"It is {'' if said else 'not '}high {about}" in answers["Is that map high without a copy?"]
    assert ("not evidence of copying" in answers["Is that map high without a copy?"]) == said


def test_summary_of_a_run_without_emergence_mentions_no_brackets(make_run: MakeRun) -> None:
    assert (
        summary(read_run(make_run(kinds=("phantom", "decoy", "local"), finished=False)))["When?"]
        == "Fewer than half of the local plants had emerged by step 20."
    )


def test_summary_without_plants_counts_generations(make_run: MakeRun) -> None:
    assert summary(read_run(make_run(text=False))) == {
        "What was memorized?": "At step 40 the model memorized 0 of 6 generations without a caption."
    }


def test_answer_says_by_which_factor_local_plants_are_later(run_folder: Path) -> None:
    assert answer(read_run(run_folder)).startswith("Local plants were memorized later than global plants, by a factor of ")


def test_answer_of_a_run_without_confirmations_counts_memorized_plants(make_run: MakeRun) -> None:
    text = answer(read_run(make_run(finished=False)))
    assert text.startswith("At step 20, 2 of 2 global plants and 0 of 2 local plants are memorized; which kind was first is not confirmed")


def test_page_is_never_half_written(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = write_report(run_folder).read_text()
    monkeypatch.setattr("afterglow.reports.page._render", lambda run: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(run_folder)
    assert (run_folder / "report.html").read_text() == before and not list(run_folder.glob("*.unfinished"))


def test_page_counts_controls_of_natural_families_apart(run_folder: Path) -> None:
    """Of three controls two are near-duplicates; one of them is memorized."""
    pooled = write_report(run_folder).read_text(encoding="utf-8")
    assert "The measurements of this run have no cluster_size." in pooled
    rows = pd.read_parquet(run_folder / "measurements.parquet")
    last = rows[(rows["kind"] == "control") & (rows["measure"] == "plant_memorized")]
    sizes = last.assign(measure="cluster_size", value=last["plant_id"].map({100: 1.0, 101: 2.0, 102: 2.0}))
    rows.loc[last.index[last["plant_id"] == 101], "value"] = 1.0
    pd.concat([rows, sizes]).to_parquet(run_folder / "measurements.parquet", index=False)
    (run_folder / "emergence.json").unlink()
    run = read_run(run_folder)
    counts = {kind: (run.memorized[kind][-1].memorized, run.memorized[kind][-1].count) for kind in ("control", "control_family")}
    assert counts == {"control": (0, 1), "control_family": (1, 2)}
    assert "0 of 1 controls that are alone in their cluster, 1 of 2 controls of natural families and" in summary(run)["What was memorized?"]
    assert [row.label for row in emergence_table(run).rows if row.label.startswith("control")] == ["control", "control_family"]
    table = detection_tables(run)
    assert table is not None and "control (3)" in table[0].head
    page = write_report(run_folder).read_text(encoding="utf-8")
    assert "no cluster_size" not in page and ">control_family</div>" in page


def test_page_shows_emergence_by_outpainting(run_folder: Path) -> None:
    """The same rows under the name of completions give the same table a second time."""
    rows = pd.read_parquet(run_folder / "measurements.parquet")
    completed = rows[rows["measure"].isin(["plant_memorized", "confirm.1", "confirm.2"])]
    completed = completed.assign(measure=completed["measure"] + ".outpainted")
    pd.concat([rows, completed]).to_parquet(run_folder / "measurements.parquet", index=False)
    (run_folder / "emergence.json").unlink()
    run = read_run(run_folder)
    assert run.emergence["outpainted"]["kinds"] == run.emergence["kinds"]
    assert emergence_table(run, run.emergence["outpainted"]) == emergence_table(run)
    page = write_report(run_folder).read_text(encoding="utf-8")
    assert "<h3>By outpainting</h3>" in page and "among held-out images</h3>" not in page


@pytest.mark.parametrize(
    ("monitor", "sentence"),
    [
        ({"seeds": 2, "final_seeds": 4, "num_controls": 64}, "2 of 4 generations per caption at the last evaluation and 3 of 64 controls"),
        ({"seeds": 3, "final_seeds": 2, "num_controls": 3}, "2 of 3 generations per caption"),
        ({"seeds": 2, "final_seeds": 2, "num_controls": 3}, ""),
    ],
)
def test_page_says_what_the_budget_left_out(run_folder: Path, monitor: dict, sentence: str) -> None:
    config = yaml.safe_load((run_folder / "config.yaml").read_text())
    (run_folder / "config.yaml").write_text(yaml.safe_dump(config | {"monitor": monitor | {"budget": 0.25}}))
    page = write_report(run_folder).read_text()
    expected = f'<p class="notice">To keep the evaluations within monitor.budget 0.25 they had {sentence}.</p>'
    assert expected in page if sentence else "To keep the evaluations" not in page
