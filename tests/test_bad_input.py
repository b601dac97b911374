"""Bad input: one sentence that names the culprit, exit code 2, nothing lost; W&B without a network: the training goes on."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fast_training import ENDS, FAST
from PIL import Image

from afterglow.cli import main
from afterglow.loggers import uploader

ROOT = Path(__file__).parent.parent


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """refused(*arguments) => the one sentence with which the command exited."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> str:
        with pytest.raises(SystemExit) as left:
            main(["train", *FAST, "--name", "x", *arguments])
        assert left.value.code == 2
        text = capsys.readouterr().err
        exit_on_user_error = [line for line in text.splitlines() if line.startswith("error: ")]
        assert len(exit_on_user_error) == 1 and "Traceback" not in text, text
        return exit_on_user_error[0]

    return run


def images(folder: Path, count: int = 3, side: int = 16) -> Path:
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(count):
        Image.fromarray(generator.integers(0, 255, (side, side, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


def test_unknown_source(refused):
    sentence = refused("--data.dataset", "imagenet")
    assert "imagenet" in sentence and "openmoji" in sentence
    assert not Path("runs/x").exists()


def test_a_set_size_larger_than_the_set(refused):
    assert "100000 to train on (set_size)" in refused("--data.set_size", "100000")
    assert not Path("runs/x").exists()


def test_missing_image(refused, tmp_path):
    folder = images(tmp_path / "set", 99)
    lines = [f'{{"file_name": "{name}.png", "text": "{name}"}}' for name in (*range(99), "gone")]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    assert "gone.png" in refused("--data.dataset", "imagefolder", "--data.data_dir", str(folder))


def test_a_image_smaller_than_the_square(refused, tmp_path):
    folder = images(tmp_path / "set", 99)
    Image.new("RGB", (40, 12)).save(folder / "small.png")
    sentence = refused("--data.dataset", "imagefolder", "--data.data_dir", str(folder))
    assert "small.png cannot be read (it has 40 x 12 pixels, less than the resolution 16)" in sentence


def test_unreadable_image(refused, tmp_path):
    folder = images(tmp_path / "set", 99)
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:60])
    assert "1.png" in refused("--data.dataset", "imagefolder", "--data.data_dir", str(folder))


def test_empty_folder(refused, tmp_path):
    (tmp_path / "nothing").mkdir()
    assert "nothing" in refused("--data.dataset", "imagefolder", "--data.data_dir", str(tmp_path / "nothing"))


def test_mask_of_another_size(refused, tmp_path):
    from afterglow.planting.datamodule import PlantedDataModule
    from afterglow.planting.io import write_planted
    from afterglow.planting.plants import PlantingConfig

    planting = PlantingConfig(
        num_global=1, num_local=1, num_decoys=0, num_tints=0, copies=(2,), num_backgrounds=4, num_decoy_images=4, num_heldout=4
    )
    data = PlantedDataModule(set_size=8, planting=planting)
    data.setup()
    write_planted(data.planted, tmp_path / "planted")
    mask = next((tmp_path / "planted" / "masks").glob("002.png"))
    Image.new("L", (8, 8)).save(mask)
    sentence = refused("--data.dataset", "planted", "--data.data_dir", str(tmp_path / "planted"))
    assert mask.name in sentence and "8x8" in sentence


def test_resolution_that_cannot_be_halved(refused):
    assert "15" in refused("--data.resolution", "15")


def test_more_plants_than_eligible_images(refused):
    assert "eligible" in refused("--data.planting.num_global", "1900")


def test_run_folder_that_cannot_be_written(refused, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "x").write_text("a file where the folder should be")
    assert "runs/x" in refused()


def test_checkpoint_that_does_not_exist(refused):
    assert "nowhere.ckpt" in refused("--ckpt_path", "nowhere.ckpt")


def test_batch_that_does_not_divide(refused):
    assert "batch_size 8" in refused("--trainer.accumulate_grad_batches", "3")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--mitigations+=RandomTokens", "--mitigations.fraction=1.5"], "not 1.5"),
        (["--monitor.early_stop.monitor", "memorized", "--monitor.early_stop.kinds", "[phantom]"], "phantom"),
    ],
)
def test_mitigations_of_a_training_that_cannot_be(refused, arguments, named):
    assert named in refused(*arguments)
    assert not Path("runs/x").exists()


def test_paraphrases_of_other_captions(refused, tmp_path):
    (tmp_path / "others.jsonl").write_text('{"caption": "no such caption", "paraphrases": ["none"]}\n')
    sentence = refused("--mitigations+=MultipleCaptions", "--mitigations.paraphrases=others.jsonl")
    assert "no caption of the training set" in sentence and not Path("runs/x").exists()


def test_mitigations_of_a_training_without_captions(refused):
    sentence = refused(
        "--config", str(ROOT / "configs/openmoji_ddpm.yaml"), "--mitigations+=SampleDropping", "--mitigations.measure=entropy"
    )
    assert "SampleDropping act on captions" in sentence and "DDPM has no captions" in sentence and not Path("runs/x").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full: a full disk cannot be had")
def test_disk_full_while_writing_an_evaluation(refused, tmp_path, monkeypatch, capsys):
    """The evaluation before stays readable, and the run continues once there is room."""
    main(["train", *FAST, *ENDS, "--name", "x", "--trainer.max_steps", "2"])
    before = pd.read_parquet("runs/x/measurements.parquet")
    unfinished = tmp_path / "runs" / "x" / f"measurements.parquet.{os.getpid()}.unfinished"
    unfinished.symlink_to("/dev/full")
    sentence = refused(*ENDS, "--ckpt_path", "last", "--trainer.max_steps", "4")
    assert "No space left" in sentence and "measurements.parquet" in sentence
    pd.testing.assert_frame_equal(pd.read_parquet("runs/x/measurements.parquet"), before)
    main(["train", *FAST, *ENDS, "--name", "x", "--trainer.max_steps", "4", "--ckpt_path", "last"])
    after = pd.read_parquet("runs/x/measurements.parquet")
    assert after["step"].max() == 4 and not after.duplicated(["step", "plant_id", "seed", "measure"]).any()


def test_no_network_for_the_tracker(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(uploader, "SECONDS_AFTER_END", 3)  # of 20; test_uploader.py measures the wait
    main(["train", *FAST, *ENDS, "--name", "alone", "--trainer.max_steps", "1"])
    assert Path("runs/alone/report.html").exists() and list(Path("runs/alone/wandb").glob("offline-run-*"))


def test_a_tracker_that_breaks_does_not_end_the_training(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr("lightning.pytorch.loggers.WandbLogger.log_metrics", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("gone")))
    main(["train", *FAST, *ENDS, "--name", "broken", "--trainer.max_steps", "2"])
    assert Path("runs/broken/report.html").exists()
    assert sum("W&B failed" in record.message for record in caplog.records) == 1
    assert os.path.getsize("runs/broken/measurements.parquet") > 0
