"""`afterglow extract` on a model of a few thousand weights and made-up images."""

import shutil
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from transformers import ViTConfig, ViTModel

from afterglow.models.io import export


@pytest.fixture
def extract(place, printed, monkeypatch):
    """extract(*words, code=0) => what `afterglow extract` prints, run in the folder of the model."""
    monkeypatch.chdir(place)
    return partial(printed, "extract")


@pytest.fixture(scope="module")
def place(tmp_path_factory, small_plain):
    folder = tmp_path_factory.mktemp("extract")
    export(small_plain(), folder / "model")
    (folder / "images").mkdir()
    generator = np.random.default_rng(0)
    for number in range(60):
        Image.fromarray(generator.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(folder / "images" / f"{number}.png")
    return folder


WORDS = (
    "--model",
    "model",
    "--dataset",
    "imagefolder",
    "--data-dir",
    "images",
    "--num-images",
    7,
    "--batch-size",
    3,
    "--num-inference-steps",
    2,
)


def test_extract_interrupted_resumes_with_equal_results(place, extract):
    said = extract(*WORDS, "--out", "whole")
    assert "whole image, extracted: under 1" in said and "0 / 7" in said
    assert "the false-positive rate is unknown" in said and pd.read_parquet(place / "whole" / "unseen.parquet").empty
    for name in ("extract.parquet", "summary.txt", "histograms.png"):
        assert (place / "whole" / name).stat().st_size > 300
    table = pd.read_parquet(place / "whole" / "extract.parquet")
    assert set(table["file_name"]) | set(table["tile_file_name"]) <= {f"{number}.png" for number in range(60)}
    assert table["generation"].tolist() == table["seed"].tolist() == list(range(7))
    shutil.copytree(place / "whole", place / "torn")
    shutil.rmtree(place / "torn" / "part=00001")
    (place / "torn" / "part=00001.unfinished").mkdir()
    (place / "torn" / "extract.parquet").unlink()
    extract(*WORDS, "--out", "torn")
    pd.testing.assert_frame_equal(pd.read_parquet(place / "torn" / "extract.parquet"), table)
    assert "with other settings" in extract(*WORDS, "--seed", 5, "--out", "torn", code=2)


def test_extract_prints_the_false_positives_of_the_images_beyond_the_set_and_of_a_folder(place, extract):
    said = extract(*WORDS, "--set-size", 20, "--out", "beyond")
    table = pd.read_parquet(place / "beyond" / "unseen.parquet")
    assert len(table) == 40 and (table["neighbors"] == 19).all()
    assert "0 of 40" in said and "1/21 = 4.8%" in said and "calibrate a whole image: 19." in said
    said = extract(*WORDS, "--heldout", "images", "--out", "seen")
    assert "left out of the unseen images: 60" in said and "the false-positive rate is unknown" in said  # all of them were trained on


class Means(torch.nn.Module):
    """Stands in for SSCD."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(pixels, 2).flatten(1)


def test_extract_captioned_model_uses_training_captions_and_any_embedding(place, extract, small_captioned):
    export(small_captioned(), place / "captioned")
    torch.jit.script(Means()).save(str(place / "sscd.pt"))
    vit = ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=16, patch_size=8)
    ViTModel(vit, add_pooling_layer=False).save_pretrained(place / "vit")
    words = ("--model", "captioned", *WORDS[2:])
    for option, file, name in (("--sscd", "sscd.pt", "sscd.pt skew_320, cosine"), ("--vit", "vit", "vit, mean patch token, cosine")):
        said = extract(*words, option, file, "--out", f"by{option}")
        assert name in said
        table = pd.read_parquet(place / f"by{option}" / "extract.parquet")
        assert len(table) == 7 and (place / f"by{option}" / "histograms.png").stat().st_size > 300


def test_extract_two_processes_write_what_one_writes(place, extract, monkeypatch):
    one = extract(*WORDS, "--out", "one")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for number, finished in (("1", False), ("0", True)):
        monkeypatch.setenv("RANK", number)
        assert ("whole image" in extract(*WORDS, "--out", "two")) == finished
    pd.testing.assert_frame_equal(*(pd.read_parquet(place / name / "extract.parquet") for name in ("one", "two")))
    assert (place / "two" / "summary.txt").read_text() in one


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--model", "none", "--dataset", "openmoji", "--out", "o"), "No model in 'none'"),
        (("--model", "model", "--out", "o"), "either --run RUN or --dataset NAME"),
        (("--model", "model", "--dataset", "imagefolder", "--data-dir", "gone", "--out", "o"), "gone"),
        ((*WORDS, "--sscd", "no.pt", "--out", "o"), "There is no SSCD model 'no.pt'"),
        ((*WORDS, "--grid", 3, "--out", "o"), "does not divide into 3 tiles"),
        ((*WORDS, "--out", "images"), "do not belong to a collection"),
    ],
)
def test_extract_bad_input_is_refused_in_one_sentence(extract, words, sentence):
    said = extract(*words, code=2)
    assert sentence in said and "Traceback" not in said and said.count("error: ") == 1
