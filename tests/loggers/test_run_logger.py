import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from afterglow.errors import AfterglowError
from afterglow.loggers.finished import log_pipeline
from afterglow.loggers.run_logger import RunLogger


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
        logger.log_files({}, {"tables/audit": pd.DataFrame({"file_name": ["a.png"], "limit": [np.nan]})})
        logger.summarize({"emergence/global_step": step})
        logger.finish()
        assert not logger.failed
    segments = sorted((folder / "wandb").glob("offline-run-*"))
    run_id = (folder / "wandb" / "run_id").read_text()
    assert len(segments) == 2 and all(run_id in path.name for path in segments)
    masks = sorted(segments[0].glob("files/media/images/**/*.mask.png"))
    assert sorted(set(np.unique(np.asarray(Image.open(mask)))) for mask in masks) == [{0, 1}, {0, 2}]
    (table,) = segments[0].glob("files/media/table/tables/*.table.json")
    assert json.loads(table.read_text())["columns"] == ["file_name", "limit"] and "a.png" in table.read_text()
    losses = [row["train/loss"] for segment in history(folder) for row in segment if "train/loss" in row]
    assert losses == [3.1, 4.1]
    assert "wandb leet" in logger.how_to_view() and "wandb sync" in logger.how_to_view()


def test_a_failure_is_said_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_MODE", "offline")
    logger = RunLogger()
    logger.use_folder(tmp_path / "one")
    monkeypatch.setattr("lightning.pytorch.loggers.WandbLogger.log_metrics", lambda *_: (_ for _ in ()).throw(RuntimeError("gone")))
    logger.log_metrics({"a": 1.0}, 0)
    logger.log_metrics({"a": 1.0}, 1)
    logger.finish()
    assert logger.failed and sum("W&B failed" in record.message for record in caplog.records) == 1


def test_run_logger_refuses_an_invalid_project_although_wandb_is_disabled(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with pytest.raises(AfterglowError, match="--wandb.project"):
        RunLogger(project="a/b")


def test_run_that_cannot_be_opened_is_said_once_and_ends_nothing(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_MODE", "offline")
    logger = RunLogger()
    logger.use_folder(tmp_path / "one")
    logger._wandb_init["id"] = ""  # as after a full disk
    logger.log_metrics({"train/loss": 1.0}, 0)
    logger.finish()
    assert sum("W&B failed" in record.message for record in caplog.records) == 1
    assert logger.how_to_view() == "W&B: nothing was recorded."


def test_how_to_view_says_why_a_run_is_offline(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    for mode, reason in [("offline", "WANDB_MODE=offline"), ("online", "no API key")]:
        monkeypatch.setenv("WANDB_MODE", mode)
        logger = RunLogger()
        logger.use_folder(tmp_path / "one")
        logger.failed = True  # one failure is not a run without records
        assert f"(offline: {reason}" in logger.how_to_view() and "wandb sync" in logger.how_to_view()


def test_pages_lineage_and_preemption_are_recorded(tmp_path, monkeypatch, records):
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder, pipeline = tmp_path / "one", tmp_path / "exported"
    for name in ("plants/metadata.jsonl", "measurements.parquet", "emergence.json", "report.html", "../exported/model_index.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    logger = RunLogger()
    logger.use_folder(folder)
    logger.log_page(folder / "report.html", 3)
    logger.log_results(folder / "report.html")
    logger.mark_preempting()
    logger.finish()
    assert "wandb sync" in log_pipeline(pipeline, folder) and not logger.failed
    first, second = records(folder)
    used = [
        {r["artifact"]["name"]: r["artifact"].get("use_after_commit", False) for r in part if r["type"] == "artifact"}
        for part in (first, second)
    ]
    assert used == [
        {"one-plants": True, "one-measurements": False},
        {"one-plants": True, "one-measurements": True, "one-pipeline": False},
    ]
    assert [r["type"] for r in first].count("preempting") == 1
    (page,) = [r["history"]["item"] for r in first if r["type"] == "history"]
    assert page["media/report._type"] == "html-file" and page["trainer/global_step"] == 3
