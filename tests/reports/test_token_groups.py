"""The sentence and the table of the token groups on rows whose answer is known."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from afterglow.reports.page import write_report
from afterglow.reports.run import Run, read_run
from afterglow.reports.token_groups import ENDING, MEMORIZED, NOT_YET, TINTS, best_trivial, ending_sentence, token_group_table

VALUES = {"local": {1: 0.90, 7: 0.94, 13: 0.5, 19: 0.54}, "tint": {5: 0.96, 11: 0.92}}  # the first two local plants are memorized


def rewritten(folder: Path, tint: float = 0.0, kept: tuple[int, ...] = (1, 5, 7, 11, 13, 19)) -> Run:
    """The run with these AUC of the ending on its last evaluation, and a trivial map of .3 (.7 inverted); two local plants are added."""
    table = pd.read_parquet(folder / "measurements.parquet")
    last = table[(table["step"] == table["step"].max())]
    about = last.iloc[0].to_dict()
    table = table[~(table["measure"].str.startswith("auc.") & (table["step"] == about["step"]))]
    rows = []
    for kind, values in VALUES.items():
        for number, value in values.items():
            plant = about | {"kind": kind, "plant_id": number}
            if number in kept:
                rows.append(plant | {"measure": f"auc.{ENDING}", "value": value - tint * (kind == "tint")})
                rows.append(plant | {"measure": "auc.luminance", "value": 0.3})
            if number > 12:
                rows.append(plant | {"measure": "plant_memorized", "value": 0.0, "seed": -1})
    rows.append(about | {"kind": "local", "plant_id": 1, "measure": "attention_mass.first_end.all", "value": 0.25})
    pd.concat([table, pd.DataFrame(rows)]).to_parquet(folder / "measurements.parquet")
    return read_run(folder)


@pytest.mark.parametrize(("tint", "said"), [(0.0, True), (0.5, False)])
def test_the_sentence_says_where_the_ending_brightens(run_folder: Path, tint: float, said: bool) -> None:
    sentence = ending_sentence(rewritten(run_folder, tint))
    assert f"brightens on {MEMORIZED} (2 of them; AUC 0.92 [0.90, 0.94], best trivial map 0.70)" in sentence
    assert f"; it does not brighten on {NOT_YET} (2 of them; AUC 0.52 [0.50, 0.54], best trivial map 0.70)" in sentence
    assert ("it brightens on tints" in sentence) == said and ("it does not brighten on tints" in sentence) != said
    assert sentence.endswith("what the caption predicts, not what is copied.") == said
    assert f"; it is not distinguishable from the best trivial map on {TINTS}" in ending_sentence(rewritten(run_folder, tint=0.24))


def test_one_plant_has_no_interval_and_none_is_counted(run_folder: Path) -> None:
    sentence = ending_sentence(rewritten(run_folder, kept=(1, 7, 13)))
    assert f"cannot be decided on {NOT_YET} (1 of them; AUC 0.50, best trivial map 0.70)" in sentence
    assert f"cannot be decided on {TINTS} (0 of them)" in sentence


def test_the_table_keeps_memorized_plants_apart(run_folder: Path) -> None:
    run = rewritten(run_folder)
    assert best_trivial(run) == pytest.approx({MEMORIZED: 0.7, NOT_YET: 0.7, TINTS: 0.7})
    first, trivial = token_group_table(run).rows
    assert [cell.text for cell in first.cells] == ["0.92 [0.90, 0.94]", "0.52 [0.50, 0.54]", "0.94 [0.92, 0.96]", "–", "0.25"]
    assert trivial.shaded and trivial.cells[0].text == "0.70"
    assert "does the ending brighten?" in write_report(run_folder).read_text()


def test_a_run_without_attention_says_nothing(make_run: Callable[..., Path]) -> None:
    run = read_run(make_run(text=False))
    assert ending_sentence(run) == "" and token_group_table(run).rows == []
