import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from afterglow.datasets.images import CaptionedImages
from afterglow.errors import AfterglowError
from afterglow.planting import runs
from afterglow.planting.planner import plant_images
from afterglow.planting.plants import PlantingConfig
from afterglow.planting.runs import build_planted_set, load_planted_set

PLANTING = {"num_global": 2, "num_local": 2, "num_decoys": 1, "num_tints": 1, "copies": [2, 5], "num_backgrounds": 8, "num_decoy_images": 8}


def write_config(run: Path) -> None:
    data = {"dataset": "imagefolder", "data_dir": "pictures", "resolution": 8, "channels": 3, "caption_column": None, "set_size": 30}
    data |= {"skip_first": 2, "batch_size": 16, "num_workers": 0, "planting": PLANTING | {"num_heldout": 4}}
    run.mkdir()
    config = {"seed_everything": 3, "data": {"class_path": "afterglow.planting.datamodule.PlantedDataModule", "init_args": data}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))


def test_load_planted_set_of_a_run_equals_its_training_set(
    monkeypatch: pytest.MonkeyPatch, images: CaptionedImages, tmp_path: Path
) -> None:
    monkeypatch.setattr(runs, "load_images", lambda dataset, **_: images)
    write_config(tmp_path / "run")
    loaded = load_planted_set(tmp_path / "run")
    planted = plant_images(images, PlantingConfig(**PLANTING, num_heldout=4), set_size=30, skip_first=2, seed=3)  # type: ignore[arg-type]
    assert np.array_equal(np.asarray(loaded.pixels), np.asarray(planted.pixels)) and loaded.captions == planted.captions
    assert np.array_equal(loaded.appearances, planted.appearances)


def test_sets_of_two_seeds_are_disjoint_with_one_planting_seed(monkeypatch: pytest.MonkeyPatch, images: CaptionedImages) -> None:
    monkeypatch.setattr(runs, "load_images", lambda dataset, **_: images)
    nothing = {"num_global": 0, "num_local": 0, "num_decoys": 0, "num_tints": 0, "num_backgrounds": 0, "num_decoy_images": 0}
    parts = []
    for seed, skip_first, own in ((0, 0, None), (1, 20, 0), (1, 20, None)):
        planting = PlantingConfig(**nothing, num_heldout=4, seed=own)  # type: ignore[arg-type]
        found = build_planted_set("any", resolution=8, planting=planting, seed=seed, set_size=20, skip_first=skip_first)
        parts.append([{found.names[row] for row in rows} for rows in (found.controls, found.heldout)])
    assert not parts[0][0] & parts[1][0] and parts[0][1] == parts[1][1]
    assert parts[0][0] & parts[2][0]


def test_load_planted_set_without_a_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AfterglowError, match="config.yaml is missing"):
        load_planted_set(tmp_path)


def test_runs_does_not_import_lightning() -> None:
    code = "import sys, afterglow.planting.runs, afterglow.planting.dataset; sys.exit('lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_build_planted_set_of_a_small_folder_shows_the_budget_before_it_decodes(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}.png").write_text("no image")
    with pytest.raises(AfterglowError, match="has 5 images, and 625 are needed: 48 plants"):
        build_planted_set("imagefolder", resolution=8, planting=PlantingConfig(), seed=0, data_dir=str(tmp_path))


def test_build_planted_set_with_max_images_reads_only_these(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for number in range(40):
        (tmp_path / "cat").mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (8, 8), dtype=np.uint8)).save(tmp_path / "cat" / f"{number:02d}.png")
    nothing = PlantingConfig(num_global=0, num_local=0, num_decoys=0, num_tints=0, num_backgrounds=0, num_decoy_images=0, num_heldout=2)
    one, same, other = (
        build_planted_set("imagefolder", resolution=8, planting=nothing, seed=seed, data_dir=str(tmp_path), max_images=10)
        for seed in (0, 0, 1)
    )
    assert len(one.pixels) == 10 and np.array_equal(one.pixels, same.pixels) and not np.array_equal(one.pixels, other.pixels)


def test_build_planted_set_says_what_becomes_of_images_without_a_caption(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(3):
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    nothing = {f"num_{name}": 0 for name in ("global", "local", "decoys", "tints", "backgrounds", "decoy_images", "heldout")}
    build_planted_set("imagefolder", resolution=8, planting=PlantingConfig(**nothing), seed=0, data_dir=str(tmp_path))  # type: ignore[arg-type]
    assert "such as 'evander'" in caplog.text
