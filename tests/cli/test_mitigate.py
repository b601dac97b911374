from pathlib import Path

import pandas as pd
import pytest

from afterglow.evaluation import evaluate
from afterglow.mitigations.registry import CATALOG


def test_mitigate_second_call_generates_only_what_is_new(inside, command, capsys, monkeypatch):
    called = []
    generate = evaluate.generate
    monkeypatch.setattr(evaluate, "generate", lambda *args, **more: called.append(str(more["mitigation"])) or generate(*args, **more))
    few = ("--model", "runs/x", "--run", "runs/x", "--plants", 1, "--controls", 2, "--heldout", 2, "--num-images", 2)
    few = (*few, "--num-inference-steps", 2, "--guidance-scale", 2, "--out", "mitigations")
    assert command("mitigate", *few, "--mitigations", "stp", "--strengths", "stp=400,999") == 0
    printed = capsys.readouterr().out
    assert "memorized global (1)" in printed and "stp 400" in printed and "99th percentile of 4 generations of controls" in printed
    assert command("mitigate", *few, "--mitigations", "stp", "noise", "--strengths", "stp=400", "noise=2", "--wandb-run", "runs/x") == 0
    printed = capsys.readouterr().out
    assert "noise 2" in printed and "frechet.pixels4" in printed and "W&B" in printed
    kinds = ["mitigation=None", "tau=400.0", "tau=999.0", "NoiseSelection(candidates=2)"]
    assert [sum(kind in name for name in called) for kind in kinds] == [1] * 4 and len(called) == 4
    for name in ("plants.parquet", "mitigation.parquet", "mitigation.md", "tradeoff.png", "tradeoff.svg", "gallery.png", "gallery.svg"):
        assert (Path("mitigations") / name).stat().st_size > 500
    table = pd.read_parquet("mitigations/mitigation.parquet").set_index(["mitigation", "kind", "measure"])
    assert table.loc[("none", "all", "cost.evaluations"), "value"].item() == 4
    assert table.loc[("noise", "all", "cost.evaluations"), "value"].item() == 8


def test_mitigate_list_names_every_mitigation_and_its_source(command, capsys):
    assert command("mitigate", "--list") == 0
    printed = capsys.readouterr().out
    assert all(entry.name in printed and entry.source in printed for entry in CATALOG)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--model", "runs/x", "--run", "runs/x", "--mitigations", "prayer"), "There is no mitigation 'prayer'"),
        (("--model", "runs/x", "--run", "runs/x", "--mitigations", "stp", "--strengths", "stp=2000"), "from 0 to 1000, not 2000"),
        (("--model", "runs/x"), "either --run RUN or --prompts FILE"),
        (("--model", "runs/x", "--run", "runs/x", "--threshold", "x"), "Unknown option --threshold: did you mean --thresholds?"),
    ],
)
def test_mitigate_bad_input_is_refused_in_one_sentence(inside, command, capsys, words, sentence):
    assert command("mitigate", *words) == 2
    printed = capsys.readouterr().err
    assert sentence in printed and "Traceback" not in printed
