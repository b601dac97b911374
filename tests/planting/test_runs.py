import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from afterglow.datasets.images import CaptionedImages
from afterglow.errors import AfterglowError
from afterglow.planting import runs
from afterglow.planting.planner import plant_images
from afterglow.planting.plants import PlantingConfig
from afterglow.planting.runs import load_planted_set

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


def test_load_planted_set_without_a_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AfterglowError, match="config.yaml is missing"):
        load_planted_set(tmp_path)


def test_runs_does_not_import_lightning() -> None:
    code = "import sys, afterglow.planting.runs, afterglow.planting.dataset; sys.exit('lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
