from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Class folders: 'car' holds a chain of three near twins, 'boat' a copy of one of them."""
    generator = np.random.default_rng(0)
    first = generator.integers(20, 200, (16, 16, 3))
    shown = {"car/0": first, "car/1": first + 6, "car/2": first + 12, "boat/0": first}
    shown |= {f"car/{number}": generator.integers(0, 256, (16, 16, 3)) for number in (3, 4)}
    for name, values in shown.items():
        file = tmp_path / "set" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values.astype(np.uint8)).save(file)
    return tmp_path / "set"


def test_pairs_and_groups_of_one_class_are_found_and_shown(folder, tmp_path, command, capsys):
    source = ["--dataset", "imagefolder", "--data-dir", str(folder), "--resolution", "16", "--out", str(tmp_path / "out")]
    assert command("near-duplicates", *source, "--caption", "car") == 0
    printed = capsys.readouterr().out
    assert "5 images of car at 16 pixels: 2 pairs nearer than 0.03" in printed and "in 1 clusters with 3 images" in printed
    table = pd.read_parquet(tmp_path / "out" / "near_duplicates.parquet")
    assert table["distance"].to_numpy() == pytest.approx([6 / 255] * 2, abs=1e-6) and table["cluster"].nunique() == 1
    assert {frozenset(pair) for pair in zip(table["first"], table["second"], strict=True)} == {
        frozenset({"car/0.png", "car/1.png"}),
        frozenset({"car/1.png", "car/2.png"}),
    }
    plate = np.asarray(Image.open(tmp_path / "out" / "near_duplicates.png"))
    assert plate.shape == (64, 8 * 64, 3) and (plate[:, 3 * 64 :] == 255).all() and not (plate[:, 2 * 64 : 3 * 64] == 255).all()
    assert command("near-duplicates", *source) == 0
    assert "6 images at 16 pixels: 4 pairs" in capsys.readouterr().out  # the boat is twin of two cars


def test_an_unknown_caption_is_named(folder, tmp_path, command, capsys):
    source = ["--dataset", "imagefolder", "--data-dir", str(folder), "--resolution", "16", "--out", str(tmp_path / "out")]
    assert command("near-duplicates", *source, "--caption", "plane") == 2
    assert "No image has the caption 'plane'; captions are boat, car" in capsys.readouterr().err


def test_correlation_finds_the_same_image_in_another_color(folder, tmp_path, command, capsys):
    other = np.asarray(Image.open(folder / "car" / "3.png"))[..., ::-1]
    Image.fromarray(np.ascontiguousarray(other)).save(folder / "boat" / "1.png")
    source = ["--dataset", "imagefolder", "--data-dir", str(folder), "--resolution", "16", "--out", str(tmp_path / "out")]
    assert command("near-duplicates", *source, "--distance", "correlation") == 0
    assert "pairs nearer than 0.06 (1 - correlation of gray levels)" in capsys.readouterr().out
    table = pd.read_parquet(tmp_path / "out" / "near_duplicates.parquet")
    assert frozenset({"car/3.png", "boat/1.png"}) in {frozenset(pair) for pair in zip(table["first"], table["second"], strict=True)}


@pytest.mark.parametrize("limit", ["-0.1", "nan", "7"])
def test_a_limit_that_is_no_distance_is_refused_before_images_are_read(limit, tmp_path, command, capsys):
    assert command("near-duplicates", "--dataset", "imagefolder", "--data-dir", str(tmp_path / "nowhere"), f"--limit={limit}") == 2
    assert "--limit must be a number from 0 to 1" in capsys.readouterr().err
