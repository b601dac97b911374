from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from afterglow.datasets.images import CaptionedImages
from afterglow.planting import runs
from afterglow.planting.io import read_planted
from afterglow.planting.planner import plant_images
from afterglow.planting.plants import PlantingConfig

RECIPE = """
model: {class_path: afterglow.models.DDPM, init_args: {unet: {}}}
data:
  class_path: afterglow.planting.datamodule.PlantedDataModule
  init_args:
    dataset: openmoji
    resolution: 8
    set_size: 20
    planting: {num_global: 2, num_local: 2, num_decoys: 1, num_tints: 1, copies: [3],
              num_backgrounds: 5, num_decoy_images: 4, num_heldout: 2}
trainer: {max_steps: 5}
monitor: {batch_size: 8}
"""


@pytest.fixture(autouse=True)
def made_up(monkeypatch: pytest.MonkeyPatch) -> CaptionedImages:
    pixels = np.random.default_rng(0).integers(0, 256, (120, 3, 8, 8), dtype=np.uint8)
    names = tuple(f"image {row}" for row in range(120))
    images = CaptionedImages(pixels, names, names, np.full(120, -1), True)
    monkeypatch.setattr(runs, "load_images", lambda source, **_: images)
    return images


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return str(tmp_path / "recipe.yaml")


def test_plant_writes_what_a_training_plants(
    recipe: str, tmp_path: Path, made_up: CaptionedImages, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "set"
    more = ("--seed_everything", "4", "--data.set_size", "25", "--data.planting.copies", "[2,6]")
    assert command("plant", "--config", recipe, "--out", str(out), *more) == 0
    printed = capsys.readouterr().out
    assert "25 training images; planted: 2 global, 2 local, 1 decoy, 1 tint, 4 phantom" in printed and str(out) in printed
    planting = PlantingConfig(
        num_global=2, num_local=2, num_decoys=1, num_tints=1, copies=[2, 6], num_backgrounds=5, num_decoy_images=4, num_heldout=2
    )
    wanted, found = plant_images(made_up, planting, set_size=25, seed=4), read_planted(out)
    assert (found.pixels == wanted.pixels).all() and found.captions == wanted.captions
    assert [p.copies for p in found.plants] == [p.copies for p in wanted.plants]
    assert f"{len(list(out.glob('*.png')))} images" in printed


def test_a_later_recipe_overlays_an_earlier_one(recipe: str, tmp_path: Path, command: Callable[..., int]) -> None:
    (tmp_path / "overlay.yaml").write_text("data: {init_args: {set_size: 7}}\n")
    arguments = ("--config", recipe, "--config", str(tmp_path / "overlay.yaml"), "--out", str(tmp_path / "set"))
    assert command("plant", *arguments) == 0 and len(read_planted(tmp_path / "set").controls) == 7


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        (["--data.set_size", "500"], "set_size is 500"),
        (["--data.set_sise", "5"], "Unknown option data.set_sise: did you mean data.set_size?"),
        (["--confg", "x"], "Unknown option --confg: did you mean --config?"),
        (["--data.planting.num_global", "-1"], "num_global must not be negative"),
        (["--config", "gone.yaml"], "gone.yaml"),
    ],
)
def test_plant_bad_input_is_refused_in_one_sentence(
    arguments: list[str], culprit: str, recipe: str, tmp_path: Path, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("plant", "--config", recipe, "--out", str(tmp_path / "set"), *arguments) == 2
    said = capsys.readouterr().err
    assert culprit in said and "Traceback" not in said and not (tmp_path / "set").exists()


def test_nothing_is_mixed_with_other_files(
    recipe: str, tmp_path: Path, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("plant", "--config", recipe, "--out", str(tmp_path)) == 2
    assert "is not empty" in capsys.readouterr().err and not (tmp_path / "metadata.jsonl").exists()


def test_plant_help_keeps_the_example_lines(command: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert command("plant", "--help") == 0
    assert "  afterglow plant --config configs/demo.yaml --out planted\n" in capsys.readouterr().out
