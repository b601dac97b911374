from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from afterglow.datasets.sources import load_images
from afterglow.evaluation.build_requests import copyable_targets
from afterglow.evaluation.evaluate import evaluate
from afterglow.evaluation.outpainting import outpainting_requests
from afterglow.evaluation.requests import UnconditionalRequest
from afterglow.models.optimal import OptimalDenoiser
from afterglow.planting.planner import plant_images
from afterglow.planting.plants import PlantingConfig
from afterglow.planting.targets import unconditional_targets
from afterglow.sampling.loop import Sampler


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


def test_clusters_become_natural_families_with_the_mask_in_which_their_members_agree(folder, tmp_path, command, capsys):
    """A car in two colors: the right half is the same to 6 gray levels. The mask is this half, as far as it differs from the median."""
    car = np.asarray(Image.open(folder / "car" / "3.png")).astype(int)
    other = np.clip(car + 6, 0, 255)
    other[:, :8, 0] += np.where(other[:, :8, 0] > 127, -60, 60)
    Image.fromarray(other.astype(np.uint8)).save(folder / "car" / "5.png")
    generator = np.random.default_rng(1)
    for number in range(6, 30):
        Image.fromarray(generator.integers(0, 256, (16, 16, 3)).astype(np.uint8)).save(folder / "car" / f"{number}.png")
    source = ["--dataset", "imagefolder", "--data-dir", str(folder), "--resolution", "16", "--out", str(tmp_path / "out")]
    families = str(tmp_path / "families")
    search = ["near-duplicates", *source, "--caption", "car", "--distance", "correlation", "--limit", "0.5", "--families", families]
    assert command(*search) == 0
    assert f"{families}: 30 images, 2 families" in capsys.readouterr().out
    assert command(*search) == 2 and "--families writes a new folder" in capsys.readouterr().err

    images = load_images("imagefolder", resolution=16, data_dir=families)
    nothing = {"num_global": 0, "num_local": 0, "num_decoys": 0, "num_tints": 0, "num_backgrounds": 0, "num_decoy_images": 0}
    planting = PlantingConfig(num_natural=1, family_tolerance=8, copies=10, num_heldout=4, **nothing)
    planted = plant_images(images, planting)
    (plant,) = planted.of_kind("natural")
    assert plant.caption.startswith("car ") and len(plant.members) == 2 and plant.copies == 10
    median = np.median(images.pixels[images.families < 0], axis=0)  # of about thirty random images
    assert not plant.mask[0, :, :8].any() and 0.6 < plant.mask[0, :, 8:].mean() < 1
    far = np.abs(car.transpose(2, 0, 1).astype(int) - median).max(0) > 45
    assert plant.mask[0, :, 8:][far[:, 8:]].all()
    with pytest.raises(ValueError, match="only 0 eligible natural families"):
        plant_images(images, PlantingConfig(num_natural=1, family_tolerance=2, num_heldout=4, **nothing))

    model = OptimalDenoiser(np.concatenate([planted.pixels[list(plant.members)].repeat(5, 0), planted.pixels[planted.controls]]))
    requests = (asked(planted), *outpainting_requests(planted))
    rows = pd.concat([evaluate(model, request, Sampler(steps=12), ("calibrated_l2", "memorized")).measurements for request in requests])
    found = rows[rows["kind"] == "natural"].groupby("measure")["value"].mean()
    assert found["plant_memorized"] == found["plant_memorized.whole"] == found["plant_memorized.outpainted"] == 1
    # a model of the shared region among other surroundings copies the region without the whole
    others = planted.pixels[planted.controls]
    region = OptimalDenoiser(np.where(plant.mask, planted.pixels[plant.members[0]], others))
    rows = evaluate(region, asked(planted), Sampler(steps=12), ("calibrated_l2", "memorized")).measurements
    natural = rows[rows["kind"] == "natural"].groupby("measure")["value"].mean()
    assert natural["plant_memorized"] == 1 and natural["plant_memorized.whole"] == 0 and natural["extracted"] > 0.9


def asked(planted):
    candidates = copyable_targets(planted)
    return UnconditionalRequest(targets=unconditional_targets(planted, 24), candidates=candidates, gallery=planted.gallery(), append=True)
