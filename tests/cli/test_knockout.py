import pandas as pd
import pytest

from afterglow.cli.knockout import knockout_text

WORDS = ("knockout", "--model", "runs/x", "--run", "runs/x", "--num-inference-steps", 2, "--num-images", 2, "--plants", 1)
VARIANTS = {"none", "all", *("bos", "words", "first_end", "pads", "end_and_pads")}
VARIANTS |= {f"only_{group}" for group in VARIANTS - {"none", "all"}}


def test_every_variant_has_rows_of_the_same_generations_and_a_second_call_repeats_nothing(inside, command, capsys):
    assert command(*WORDS, "--kinds", "global", "phantom", "--out", "knock") == 0
    printed = capsys.readouterr().out
    rows = pd.read_parquet("knock/knockout.parquet")
    samples = rows[rows["measure"] == "memorized"]
    per_variant = 2 * 3  # generations of a global plant, a phantom of a whole image and one of a region
    assert set(samples["knockout"]) == VARIANTS and (samples.groupby("knockout").size() == per_variant).all()
    assert set(samples["kind"]) == {"global", "phantom"} and "copies (calibrated)" in printed and "pads 0." in printed
    shares = rows[rows["measure"] == "caption_share"]
    assert set(shares["knockout"]) == {"bos", "words", "first_end", "pads"} and shares["value"].between(0, 1).all()
    distances = rows[rows["measure"] == "calibrated_l2"].pivot(index=["plant_id", "seed"], columns="knockout", values="value")
    assert not distances["none"].equals(distances["all"])
    assert command(*WORDS, "--kinds", "global", "phantom", "--out", "knock") == 0
    pd.testing.assert_frame_equal(rows, pd.read_parquet("knock/knockout.parquet"))
    assert command(*WORDS, "--kinds", "global", "--out", "knock") == 2 and "other settings" in capsys.readouterr().err


@pytest.mark.parametrize(("model", "culprit"), [("gone", "gone"), ("runs/x/plants", "plants")])
def test_bad_input_is_refused_in_one_sentence(model, culprit, inside, command, capsys):
    assert command("knockout", "--model", model, "--run", "runs/x", "--out", "bad") == 2
    assert culprit in capsys.readouterr().err


def test_the_text_counts_by_both_rules():
    values = {"memorized": [1.0, 0.0], "nn_ratio": [0.2, 0.3], "calibrated_l2": [0.5, 1.5]}
    about = {"knockout": "words", "kind": "local", "plant_id": 3}
    rows = [about | {"measure": name, "value": value} for name, both in values.items() for value in both]
    rows.append(about | {"measure": "plant_memorized", "value": 1.0})
    rows.append({"knockout": "bos", "kind": "all", "plant_id": -1, "measure": "caption_share", "value": 0.25})
    text = knockout_text(pd.DataFrame(rows))
    cells = [cell.strip() for cell in text.splitlines()[2].strip("|").split("|")]
    assert cells == ["words", "local", "1 of 2", "2 of 2", "1 of 1"] and "bos 0.25" in text
