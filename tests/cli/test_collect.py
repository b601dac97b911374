import json
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from afterglow.generations import Generations, parts_of

ROOT = Path(__file__).parents[2]
FEW = ("--num-inference-steps", 2, "--num-images", 1)


def test_collect_prompts_with_images_records_only_what_the_measures_require(inside, command):
    Image.new("RGB", (40, 30), "red").save("red.png")
    Image.new("L", (40, 30), 0).save("mask.png")
    rows = [{"caption": "a red sign", "image": "red.png", "label": "VM"}, {"caption": "a box", "image": "red.png", "mask": "mask.png"}]
    Path("list.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    options = ("--model", "runs/x", *FEW, "--measures", "guidance_norm.all", "ld.be.all")
    assert command("collect", *options, "--prompts", "list.jsonl", "--out", "listed") == 0
    generations = Generations.load(parts_of(inside / "listed")[0])
    assert generations.kind == ("global", "prompt") and generations.references.shape == (2, 3, 16, 16)
    assert generations.eval_mask[0].all() and not generations.eval_mask[1].any()
    assert generations.token_attention is None and {step for step, _ in generations.end_attention} == {1}
    Path("plain.txt").write_text("a dog\na cat\n")
    assert command("collect", *options, "--prompts", "plain.txt", "--default-label", "control", "--out", "plain") == 0
    assert command("measure", "listed", "plain", "--out", "two.parquet") == 0
    assert set(pd.read_parquet("two.parquet")["kind"]) == {"global", "prompt", "control"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--model", "runs/none", "--run", "runs/x"), "No model in 'runs/none'"),
        (("--model", "runs/x", "--run", "nowhere"), "There is no run in 'nowhere'"),
        (("--model", "runs/x", "--prompts", "gone.jsonl"), "'gone.jsonl'"),
        (("--model", "runs/x", "--prompts", "torn.jsonl"), "its image 'missing.png' is missing"),
        (("--model", "runs/x", "--run", "runs/x", "--measures", "ld.bee"), "No measure is named 'ld.bee'"),
        (("--model", "runs/x", "--run", "runs/x", "--sscd", "no.pt"), "There is no SSCD model 'no.pt'"),
        (("--model", "runs/x"), "exactly one of --prompts FILE, --run RUN and --dataset NAME"),
        (("--model", "runs/x", "--dataset", "openmoji"), "--dataset is for models without captions"),
        (("--model", "runs/x", "--seed-rule", "images"), "did you mean image?"),
    ],
)
def test_collect_bad_input_is_refused_in_one_sentence(inside, command, capsys, words, sentence):
    Path("torn.jsonl").write_text('{"caption": "a", "image": "missing.png"}\n')
    assert command("collect", *words, "--out", "bad") == 2
    printed = capsys.readouterr().err
    assert sentence in printed and "Traceback" not in printed and printed.count("error: ") == 1


def test_collect_model_without_captions_refuses_measures_of_captions(inside, command, capsys):
    recipe = ("--config", ROOT / "configs/openmoji_ddpm.yaml", "--config", ROOT / "configs/overlays/fast.yaml")
    few = ("--monitor.resamplings", 0, "--monitor.num_unprompted", 1, "--monitor.final_measures", "[memorized]")
    assert command("train", *recipe, *few, "--name", "free", "--trainer.max_steps", 1) == 0
    words = ("--model", "runs/free", "--run", "runs/free", *FEW)
    assert command("collect", *words, "--measures", "end_token.last.*", "--out", "free") == 2
    assert "DDPM has no captions" in capsys.readouterr().err
    assert command("mitigate", "--model", "runs/free", "--run", "runs/free", "--mitigations", "stp", "dtp") == 2
    assert "stp, dtp" in capsys.readouterr().err
