from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from afterglow.datasets.images import CaptionedImages
from afterglow.planting.datamodule import PlantedDataModule
from afterglow.planting.io import read_planted, write_planted
from afterglow.planting.planner import plant_images
from afterglow.planting.plants import PlantingConfig


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """20 controls, of which the last repeats the first, 2 global and 2 local plants of 3 copies, a decoy and a tint."""
    pixels = np.random.default_rng(0).integers(0, 256, (120, 3, 8, 8), dtype=np.uint8)
    names = tuple(f"image {row}" for row in range(120))
    counts = {
        "num_global": 2,
        "num_local": 2,
        "num_decoys": 1,
        "num_tints": 1,
        "num_backgrounds": 40,
        "num_decoy_images": 40,
        "num_heldout": 2,
    }
    planted = plant_images(
        CaptionedImages(pixels, names, names, np.full(120, -1), True), PlantingConfig(copies=(3,), **counts), set_size=20
    )
    planted.pixels[planted.controls[-1]] = planted.pixels[planted.controls[0]]
    write_planted(planted, tmp_path / "set")
    return tmp_path / "set"


def test_copies_go_and_a_training_opens_what_is_left(folder, tmp_path, command, capsys):
    out = tmp_path / "out"
    assert command("deduplicate", str(folder), "--method", "exact", "--out", str(out)) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "before after control 20 19 global 6 2 local 6 6 decoy 3 3 tint 3 3" in printed
    assert "5 of 38 appearances dropped, in 3 clusters of duplicates" in printed
    assert "1 of the 5 dropped appearances were controls, not plants" in printed and f"{out}: 19 training images" in printed
    assert "Copies of each plant that remain per epoch: global 1 1; local 3 3; decoy 3; tint 3" in printed
    before, after = read_planted(folder), read_planted(out)
    assert len(after.controls) == 19 and [p.plant_id for p in after.plants] == [p.plant_id for p in before.plants]
    assert len(after.of_kind("phantom")) == 4
    for split in ("background_pool", "decoy_pool", "heldout"):
        assert (after.pixels[getattr(after, split)] == before.pixels[getattr(before, split)]).all()
    data = PlantedDataModule(dataset="planted", data_dir=str(out), resolution=8)
    data.setup()
    assert data.samples.epoch_length == 33 and len(data.samples.batch(range(33)).image.unique(dim=0)) == 33
    table = pd.read_parquet(out / "duplicates.parquet")
    assert len(table) == 5 and set(table["method"]) == {"exact"} and (table["distance"] == 0).all()
    assert sorted(table["kind"]) == ["control", *["global"] * 4] and (table["plant_id"] == table["kept_plant_id"]).all()


def test_regions_go_too(folder, tmp_path, command, capsys):
    out = tmp_path / "out"
    assert command("deduplicate", str(folder), "--method", "local", "--limit", "0.12", "--out", str(out)) == 0
    assert "Copies of each plant that remain per epoch: global 1 1; local 1 1; decoy 3; tint 3" in capsys.readouterr().out
    table = pd.read_parquet(out / "duplicates.parquet")
    shares = table["share"][table["kind"] == "local"]
    assert len(shares) == 4 and shares.between(0.12, 0.5).all()


def test_embeddings_of_a_file(folder, tmp_path, command, capsys, monkeypatch):
    """A stand-in that sees whether an image is bright on its left or on its right."""
    monkeypatch.setenv("AFTERGLOW_CACHE", str(tmp_path / "cache"))

    class Sides(torch.nn.Module):
        def forward(self, images):
            return images.mean((1, 2))[:, ::40] - images.mean()

    torch.jit.script(Sides()).save(str(tmp_path / "sscd.pt"))
    sscd = ("--sscd", str(tmp_path / "sscd.pt"), "--out", str(tmp_path / "out"))
    assert command("deduplicate", str(folder), "--method", "sscd", "--limit", "0.95", *sscd) == 0
    assert "Copies of each plant that remain per epoch: global" in capsys.readouterr().out
    table = pd.read_parquet(tmp_path / "out" / "duplicates.parquet")
    assert (table["cosine"] >= 0.95).all() and (table["cosine"] == 1).sum() >= 5 and set(table["method"]) == {"sscd"}


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        (["--method", "pixels", "--limit", "1.5"], "lie between 0 and 1, and it is 1.5"),
        (["--method", "pixels", "--limit", "0.9"], "No control would remain"),  # the epoch begins with a plant
        (["--method", "local", "--limit", "0"], "lie between 0 and 1, and it is 0.0"),
        (["--method", "exact", "--limit", "0.1"], "equal pixels have no limit"),
        (["--method", "sscd"], "--sscd FILE and --method sscd must be given together"),
        (["--method", "exact", "--sscd", "gone.pt"], "--sscd FILE and --method sscd must be given together"),
        (["--method", "sscd", "--sscd", "gone.pt"], "There is no SSCD model 'gone.pt'"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(arguments, culprit, folder, tmp_path, command, capsys):
    assert command("deduplicate", str(folder), *arguments, "--out", str(tmp_path / "out")) == 2
    said = capsys.readouterr().err
    assert culprit in said and "Traceback" not in said and not (tmp_path / "out").exists()


def test_folders_that_will_not_do(folder, tmp_path, command, capsys):
    assert command("deduplicate", str(tmp_path), "--method", "exact", "--out", str(tmp_path / "out")) == 2
    assert "There is no planted set" in capsys.readouterr().err
    assert command("deduplicate", str(folder), "--method", "exact", "--out", str(folder)) == 2
    assert "is not empty" in capsys.readouterr().err
