"""analysis/extract.py as a user types it, on a model of a few thousand weights and made-up images."""

import io
import runpy
import shutil
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from transformers import ViTConfig, ViTModel

from afterglow.models.io import export

COMMAND = Path(__file__).parents[2] / "analysis" / "extract.py"


def extract(folder, *words, code=0):
    """What the command prints, run in a folder."""
    said, ended = io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), redirect_stderr(said):
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["extract.py", *map(str, words)])
        try:
            runpy.run_path(str(COMMAND), run_name="__main__")
        except SystemExit as stop:
            ended = stop.code
    assert ended == code, said.getvalue()
    return said.getvalue()


@pytest.fixture(scope="module")
def place(tmp_path_factory, small_plain):
    folder = tmp_path_factory.mktemp("extract")
    export(small_plain(), folder / "model")
    (folder / "images").mkdir()
    generator = np.random.default_rng(0)
    for number in range(60):
        Image.fromarray(generator.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(folder / "images" / f"{number}.png")
    return folder


WORDS = ("--model", "model", "--source", "imagefolder", "--folder", "images", "--num-images", 7, "--batch-size", 3, "--steps", 2)


def test_it_goes_on_after_a_kill_and_says_the_same(place):
    said = extract(place, *WORDS, "--out", "whole")
    assert "whole image, extracted: under 1" in said and "0 / 7" in said
    for name in ("extract.parquet", "summary.txt", "extracted.png", "histograms.png"):
        assert (place / "whole" / name).stat().st_size > 300
    table = pd.read_parquet(place / "whole" / "extract.parquet")
    assert table["generation"].tolist() == table["seed"].tolist() == list(range(7))
    shutil.copytree(place / "whole", place / "torn")
    shutil.rmtree(place / "torn" / "part=00001")
    (place / "torn" / "part=00001.unfinished").mkdir()
    (place / "torn" / "extract.parquet").unlink()
    extract(place, *WORDS, "--out", "torn")
    pd.testing.assert_frame_equal(pd.read_parquet(place / "torn" / "extract.parquet"), table)
    assert "begun with other settings" in extract(place, *WORDS, "--seed", 5, "--out", "torn", code=2)


class Means(torch.nn.Module):
    """Stands in for SSCD."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(pixels, 2).flatten(1)


def test_a_model_with_captions_is_asked_for_the_training_captions_and_judged_in_any_embedding(place, small_captioned):
    export(small_captioned(), place / "captioned")
    torch.jit.script(Means()).save(str(place / "sscd.pt"))
    vit = ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=16, patch_size=8)
    ViTModel(vit, add_pooling_layer=False).save_pretrained(place / "vit")
    words = ("--model", "captioned", *WORDS[2:])
    for option, file, name in (("--sscd", "sscd.pt", "sscd.pt skew_320, cosine"), ("--tokens", "vit", "vit, mean patch token, cosine")):
        said = extract(place, *words, option, file, "--out", option.strip("-"))
        assert name in said
        table = pd.read_parquet(place / option.strip("-") / "extract.parquet")
        assert len(table) == 7 and (place / option.strip("-") / "histograms.png").stat().st_size > 300


def test_two_processes_write_what_one_writes(place, monkeypatch):
    one = extract(place, *WORDS, "--out", "one")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for number, finished in (("1", False), ("0", True)):
        monkeypatch.setenv("RANK", number)
        assert ("whole image" in extract(place, *WORDS, "--out", "two")) == finished
    pd.testing.assert_frame_equal(*(pd.read_parquet(place / name / "extract.parquet") for name in ("one", "two")))
    assert (place / "two" / "summary.txt").read_text() in one


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--model", "none", "--source", "openmoji", "--out", "o"), "No model in 'none'"),
        (("--model", "model", "--out", "o"), "either --planted RUN, or --source NAME"),
        (("--model", "model", "--source", "imagefolder", "--folder", "gone", "--out", "o"), "gone"),
        ((*WORDS, "--sscd", "no.pt", "--out", "o"), "There is no SSCD model 'no.pt'"),
        ((*WORDS, "--tiles", 3, "--out", "o"), "does not divide into 3 tiles"),
        ((*WORDS, "--out", "images"), "holds other things"),
    ],
)
def test_bad_input_is_one_sentence(place, words, sentence):
    said = extract(place, *words, code=2)
    assert sentence in said and "Traceback" not in said and said.count("error: ") == 1
