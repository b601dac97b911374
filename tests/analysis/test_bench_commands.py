"""The chain of commands as a user types it: collect, measure, detect, localize, on a run of the fast overlay."""

import io
import json
import runpy
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from afterglow.cli.train import main
from afterglow.evaluation import store
from afterglow.generations import Generations, parts_of
from afterglow.mitigations.registry import CATALOG

ROOT = Path(__file__).parents[2]
FAST = ["--config", str(ROOT / "configs/demo.yaml"), "--config", str(ROOT / "configs/overlays/fast.yaml")]


def command(name, *words, folder, code=0):
    """(stdout, stderr) of one analysis command, run in a folder (in this process: a new one takes long to import its libraries)."""
    out, err, ended = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(folder)
        patch.setattr(sys, "argv", [f"{name}.py", *map(str, words)])
        try:
            runpy.run_path(str(ROOT / "analysis" / f"{name}.py"), run_name="__main__")
        except SystemExit as stop:
            ended = stop.code
    assert ended == code, err.getvalue()
    return out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main(ROOT, [*FAST, "--name", "x"])
    command(
        "collect", "--model", "runs/x", "--planted", "runs/x", "--controls", "2", "--num-images", "2", "--steps", "2",
        "--curvature-vectors", "1", "--out", "generations", folder=folder,
    )  # fmt: skip
    return folder


def test_the_bench_from_end_to_end(place):
    said, _ = command("measure", "generations", "--out", "m.parquet", folder=place)
    rows = pd.read_parquet(place / "m.parquet")
    assert f"{len(rows)} numbers" in said and {
        "guidance_norm.all",
        "ld.be.all",
        "sharpness",
        "memorized",
        "auc.curvature_difference",
    } <= set(rows["measure"])
    said, _ = command("detect", "m.parquet", "--images", "1", "2", "--run", "runs/x", folder=place)
    assert "global (2) against phantom (4), n = 2 images" in said and "W&B" in said
    for name in ("detection.parquet", "detection.md", "detection.png", "detection.svg"):
        assert (place / "detection" / name).stat().st_size > 500
    said, _ = command("localize", "generations", "--by", "kind", "shape", "--maps", "luminance", "score_difference.*", folder=place)
    assert "AUC local left half" in said and "IoU local" in said
    for name in ("localization.parquet", "generations.parquet", "localization.png", "localization.svg", "gallery.png", "gallery.svg"):
        assert (place / "localization" / name).stat().st_size > 500


def test_a_list_of_captions_with_and_without_images(place):
    Image.new("RGB", (40, 30), "red").save(place / "red.png")
    Image.new("L", (40, 30), 0).save(place / "mask.png")
    listed = [{"caption": "a red sign", "image": "red.png", "label": "VM"}, {"caption": "a box", "image": "red.png", "mask": "mask.png"}]
    (place / "list.jsonl").write_text("\n".join(json.dumps(row) for row in listed))
    few = ("--model", "runs/x", "--steps", "2", "--num-images", "1", "--measures", "guidance_norm.all", "ld.be.all")
    command("collect", *few, "--prompts", "list.jsonl", "--out", "listed", folder=place)
    generations = Generations.load(parts_of(place / "listed")[0])
    assert generations.kind == ("global", "prompt") and generations.references.shape == (2, 3, 16, 16)
    assert generations.eval_mask[0].all() and not generations.eval_mask[1].any()
    assert generations.token_attention is None and {step for step, _ in generations.end_attention} == {1}  # no more than was asked for
    (place / "plain.txt").write_text("a dog\na cat\n")
    command("collect", *few, "--prompts", "plain.txt", "--kind", "control", "--out", "plain", folder=place)
    command("measure", "listed", "plain", "--out", "two.parquet", folder=place)
    assert set(pd.read_parquet(place / "two.parquet")["kind"]) == {"global", "prompt", "control"}


def test_remedies_against_the_untouched_model_which_is_never_run_twice(place, monkeypatch):
    called = []
    generate = store.generate
    monkeypatch.setattr(store, "generate", lambda *args, **more: called.append(str(more["mitigation"])) or generate(*args, **more))
    few = ("--model", "runs/x", "--planted", "runs/x", "--plants", "1", "--controls", "2", "--heldout", "2", "--num-images", "2")
    few = (*few, "--steps", "2", "--guidance", "2", "--out", "mitigations")
    said, _ = command("mitigate", *few, "--mitigations", "stp", "--strengths", "stp=400,999", folder=place)
    assert "memorized global (1)" in said and "stp 400" in said and "99th percentile of 4 generations of controls" in said
    said, _ = command(
        "mitigate", *few, "--mitigations", "stp", "noise", "--strengths", "stp=400", "noise=2", "--run", "runs/x", folder=place
    )
    assert "noise 2" in said and "frechet.pixels4" in said and "W&B" in said
    kinds = ["mitigation=None", "tau=400.0", "tau=999.0", "NoiseSelection(candidates=2)"]
    assert [sum(kind in name for name in called) for kind in kinds] == [1] * 4 and len(called) == 4
    for name in ("plants.parquet", "mitigation.parquet", "mitigation.md", "tradeoff.png", "tradeoff.svg", "gallery.png", "gallery.svg"):
        assert (place / "mitigations" / name).stat().st_size > 500
    table = pd.read_parquet(place / "mitigations" / "mitigation.parquet").set_index(["mitigation", "kind", "measure"])
    assert table.loc[("none", "all", "cost.evaluations"), "value"].item() == 4
    assert table.loc[("noise", "all", "cost.evaluations"), "value"].item() == 8


def test_every_remedy_is_listed(tmp_path):
    said, _ = command("mitigate", "--list", folder=tmp_path)
    assert all(entry.name in said and entry.source in said for entry in CATALOG)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("mitigate", "--model", "runs/x", "--planted", "runs/x", "--mitigations", "prayer"), "No mitigation is named 'prayer'"),
        (
            ("mitigate", "--model", "runs/x", "--planted", "runs/x", "--mitigations", "stp", "--strengths", "stp=2000"),
            "from 0 to 1000, not 2000",
        ),
        (("collect", "--model", "runs/none", "--planted", "runs/x", "--out", "o"), "No model in 'runs/none'"),
        (("collect", "--model", "runs/x", "--planted", "nowhere", "--out", "o"), "There is no run in 'nowhere'"),
        (("collect", "--model", "runs/x", "--prompts", "gone.jsonl", "--out", "o"), "There is no list of prompts 'gone.jsonl'"),
        (("collect", "--model", "runs/x", "--prompts", "torn.jsonl", "--out", "o"), "its image 'missing.png' is missing"),
        (("collect", "--model", "runs/x", "--planted", "runs/x", "--out", "o", "--measures", "ld.bee"), "No measure is named 'ld.bee'"),
        (
            ("collect", "--model", "runs/x", "--planted", "runs/x", "--out", "o", "--sscd", "no.pt"),
            "There is no SSCD model 'no.pt': its authors publish",
        ),
        (("measure", "nowhere", "--out", "m"), "There is no generations in 'nowhere'"),
        (("detect", "other.parquet"), "Nothing can be told apart"),
        (("localize", "generations", "--normalize", "max", "--maps", "luminance"), "not by 'max'"),
    ],
)
def test_bad_input_is_one_sentence(place, words, sentence):
    (place / "torn.jsonl").write_text('{"caption": "a", "image": "missing.png"}\n')
    some = {
        "run": "a",
        "plant_id": 0,
        "kind": "heldout",
        "caption": "",
        "seed": 0,
        "shape": "whole",
        "measure": "guidance_norm.all",
        "value": 1.0,
    }
    pd.DataFrame([some]).to_parquet(place / "other.parquet")
    _, said = command(*words, folder=place, code=2)
    assert sentence in said and "Traceback" not in said


def test_a_model_without_text_asked_for_end_tokens_says_that_there_are_none(place, monkeypatch):
    monkeypatch.chdir(place)
    recipe = ["--config", str(ROOT / "configs/openmoji_ddpm.yaml"), "--config", str(ROOT / "configs/overlays/fast.yaml")]
    main(ROOT, [*recipe, "--name", "free", "--trainer.max_steps", "1"])
    words = ("collect", "--model", "runs/free", "--planted", "runs/free", "--steps", "2", "--num-images", "1")
    _, said = command(*words, "--measures", "end_token.last.*", "--out", "free", folder=place, code=2)
    assert "DDPM has no captions: the measure is absent" in said
    _, said = command("mitigate", "--model", "runs/free", "--planted", "runs/free", "--mitigations", "stp", "dtp", folder=place, code=2)
    assert "stp, dtp: a mitigation changes what a caption does, and DDPM has no captions" in said


def test_every_measure_is_listed_with_needs_unit_and_source(tmp_path):
    said, _ = command("measure", "--list", folder=tmp_path)
    for word in ("guidance_norm.all", "end_attention.last", "Jeon et al. 2025", "sharpness", "split_product.cross"):
        assert word in said
    assert "METHODS" not in said
