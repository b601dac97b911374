import numpy as np
import pytest
from PIL import Image

from afterglow.loggers.run_logger import RunLogger, masked_images, upscale


def test_images_are_enlarged_in_whole_multiples_and_never_floats():
    image = np.random.default_rng(0).integers(0, 255, (3, 16, 16), dtype=np.uint8)
    shown = np.asarray(upscale(image))
    assert shown.shape == (128, 128, 3) and np.array_equal(shown[::8, ::8].transpose(2, 0, 1), image)
    with pytest.raises(AssertionError):
        upscale(image / 255)


def test_offline_numbers_images_masks_and_the_same_id_after_a_resume(tmp_path, monkeypatch, history):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_DATA_DIR", raising=False)
    folder = tmp_path / "runs" / "one"
    images = np.full((2, 3, 16, 16), 77, dtype=np.uint8)
    mask = np.zeros((2, 16, 16), dtype=bool)
    mask[:, :8] = True
    for step in (3, 4):
        logger = RunLogger()
        logger.use_folder(folder)
        logger.log_metrics({"train/loss": 0.1 + step}, step)
        logger.log_masks("media/masks/x", images, {"planted": mask, "predicted": ~mask}, ["a", "b"], step)
        logger.log_histogram("media/h", np.arange(10), step)
        logger.summarize({"emergence/global_step": step})
        logger.finish()
        assert not logger.failed
    segments = sorted((folder / "wandb").glob("offline-run-*"))
    run_id = (folder / "wandb" / "run_id").read_text()
    assert len(segments) == 2 and all(run_id in path.name for path in segments)
    masks = sorted(segments[0].glob("files/media/images/**/*.mask.png"))
    assert len(masks) == 2 and set(np.unique(np.asarray(Image.open(masks[0])))) == {0, 1}
    losses = [row["train/loss"] for segment in history(folder) for row in segment if "train/loss" in row]
    assert losses == [3.1, 4.1]
    assert "wandb leet" in logger.how_to_view() and "wandb sync" in logger.how_to_view()


def test_a_mask_is_enlarged_with_its_image():
    (image,) = masked_images(np.zeros((1, 1, 16, 16), dtype=np.uint8), {"planted": np.ones((1, 16, 16), dtype=bool)}, ["a"])
    assert image.image.size == (128, 128) and set(image._masks) == {"planted"}


def test_a_failure_is_said_once(tmp_path, monkeypatch, caplog):
    logger = RunLogger()
    monkeypatch.setattr("lightning.pytorch.loggers.WandbLogger.log_metrics", lambda *_: (_ for _ in ()).throw(RuntimeError("gone")))
    logger.log_metrics({"a": 1.0}, 0)
    logger.log_metrics({"a": 1.0}, 1)
    assert logger.failed and sum("W&B failed" in record.message for record in caplog.records) == 1
