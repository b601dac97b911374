from argparse import Namespace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from afterglow.cli.extraction_run import captions_for, extraction_request, space_of, training_captions
from afterglow.evaluation.requests import training_set
from afterglow.neighbors.gallery import Gallery

PLANTING = {
    "num_global": 1,
    "num_local": 1,
    "num_decoys": 1,
    "num_tints": 0,
    "copies": [2],
    "num_backgrounds": 4,
    "num_decoy_images": 4,
    "num_heldout": 4,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run folder that names a small planted set of 8 pixels, and a folder of images."""
    folder = tmp_path_factory.mktemp("extracting")
    images = folder / "images"
    images.mkdir()
    generator = np.random.default_rng(0)
    for number in range(40):
        Image.fromarray(generator.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(images / f"{number}.png")
    (images / "metadata.jsonl").write_text("\n".join(f'{{"file_name": "{n}.png", "text": "image {n % 5}"}}' for n in range(40)))
    about = {"dataset": "imagefolder", "data_dir": str(images), "resolution": 8, "set_size": 10, "planting": PLANTING}
    (folder / "run").mkdir()
    (folder / "run" / "config.yaml").write_text(yaml.safe_dump({"seed_everything": 0, "data": {"init_args": about}}))
    return folder


def chosen(**options):
    return {"planted": None, "source": None, "folder": None, "set_size": None} | options


def test_the_training_set_of_a_run_and_of_a_source(place, small_plain):
    model = small_plain()
    run = training_set(model, **chosen(planted=place / "run"))
    assert len(run.gallery().pixels) == 1 + 10 + 4 + 4 and len(run.gallery().templates) == 1
    source = training_set(model, **chosen(source="imagefolder", folder=str(place / "images")))
    assert len(source.gallery().pixels) == 40
    small, large = (
        training_set(model, **chosen(source="imagefolder", folder=str(place / "images"), set_size=size)).gallery().pixels for size in (5, 9)
    )
    assert len(small) == 5 and {row.tobytes() for row in small} < {row.tobytes() for row in large}


def test_captions_are_the_training_sets_in_turn(place, small_captioned, small_plain):
    planted = training_set(small_plain(), **chosen(planted=place / "run"))
    found = training_captions(planted, 100)
    trained = {p.caption for p in planted.plants if p.kind != "phantom"} | {planted.captions[row] for row in planted.controls}
    assert set(found) == trained and found[: len(trained)] == found[len(trained) : 2 * len(trained)]
    assert captions_for(small_plain(), planted, 3, []) == [""] * 3
    assert captions_for(small_captioned(), planted, 3, ["a", "b"]) == ["a", "b", "a"]
    assert captions_for(small_captioned(), planted, 100, []) == found


def test_bad_input_is_named(place, small_plain):
    model = small_plain()
    for options, sentence in (
        ({}, "either --planted RUN, or --source NAME"),
        ({"planted": place / "run", "source": "openmoji"}, "either --planted RUN, or --source NAME"),
        ({"planted": place / "run", "set_size": 3}, "a run's training set is what it is"),
        ({"planted": place / "none"}, "There is no run in"),
        ({"source": "imagenet"}, "no source 'imagenet'"),
        ({"source": "imagefolder", "folder": str(place / "images"), "set_size": 99}, "99"),
    ):
        with pytest.raises(ValueError, match=sentence):
            training_set(model, **chosen(**options))
    planted = training_set(model, **chosen(planted=place / "run"))
    with pytest.raises(ValueError, match="has no captions"):
        captions_for(model, planted, 3, ["a dog"])
    with pytest.raises(ValueError, match="--num-images is 0"):
        captions_for(model, planted, 0, [])
    with pytest.raises(ValueError, match="does not divide into 3"):
        extraction_request([""], planted.gallery(), None, 3)
    model.side = 16
    with pytest.raises(ValueError, match="the model makes"):
        training_set(model, **chosen(planted=place / "run"))


def test_the_space_is_pixels_or_what_is_given_and_kept_by_its_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("AFTERGLOW_CACHE", str(tmp_path / "cache"))
    gallery = Gallery(np.random.default_rng(0).integers(0, 256, (6, 3, 8, 8), dtype=np.uint8), np.arange(6))
    args = Namespace(sscd=None, sscd_transform="skew_320", tokens=None)
    assert space_of(gallery, args, (0, 1)).name.startswith("pixels")

    class Means(torch.nn.Module):
        def forward(self, images):
            return images.mean((2, 3)) + 1

    torch.jit.script(Means()).save(str(tmp_path / "sscd.pt"))
    found = space_of(gallery, Namespace(sscd=str(tmp_path / "sscd.pt"), sscd_transform="skew_320", tokens=None), (0, 1))
    assert found.name == "sscd.pt skew_320, cosine" and found.rows.shape == (6, 3)
    assert len(list((tmp_path / "cache" / "embeddings").iterdir())) == 1
    with pytest.raises(ValueError, match="One similarity at a time"):
        space_of(gallery, Namespace(sscd="a", tokens="b"), (0, 1))
