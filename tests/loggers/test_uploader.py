import io
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import wandb

from afterglow.loggers import uploader
from afterglow.loggers.finished import log_pipeline
from afterglow.loggers.run_logger import RunLogger
from afterglow.loggers.uploader import Uploader
from afterglow.loggers.workspace import save_first

KEY = "0" * 40
PATIENCE = 120  # seconds for an upload on a busy machine


def record(folder: Path, steps=range(5), finish=lambda logger: None) -> RunLogger:
    """Log numbers, an image, a table and an alert to the run of a folder, and finish it."""
    logger = RunLogger()
    logger.use_folder(folder)
    images = np.random.default_rng(0).integers(0, 255, (2, 3, 16, 16), dtype=np.uint8)
    mask = np.arange(16)[:, None].repeat(16, 1) < 8
    for step in steps:
        logger.log_metrics({"train/loss": float(step)}, step)
    logger.log_images("media/samples/global", images, ["a", "b"], steps[-1])
    logger.log_rows("tables/evaluation", {"kind": ["x", "y"]}, [images, images[:1]], [mask, ~mask], steps[-1])
    logger.alert("done", "text")
    finish(logger)
    logger.finish()
    return logger


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_DATA_DIR", "WANDB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def offline_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("offline") / "one"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.delenv("WANDB_DATA_DIR", raising=False)
        record(folder)
        wandb.teardown()  # waits until the files are closed
    return folder


def wait_for(condition) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def losses(server, run_id):
    return [row["train/loss"] for _, row in sorted(server.history.get(run_id, {}).items()) if "train/loss" in row]


def test_upload_delivers_rows_files_tables_and_alerts(offline_run, tmp_path, monkeypatch, wandb_server):
    folder = shutil.copytree(offline_run / "wandb", tmp_path / "wandb", symlinks=True)
    monkeypatch.setattr(uploader, "SECONDS_AFTER_END", PATIENCE)
    with wandb_server() as server:
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        upload = Uploader(folder, workspace=True)
        assert upload.finish() is None
        assert [view["displayName"] for view in server.views] == ["Afterglow runs"] and "memorized/local" in server.views[0]["spec"]
        run_id = (folder / "run_id").read_text()
        assert upload.url == f"{server.url}/team/afterglow/runs/{run_id}"
        assert losses(server, run_id) == [0, 1, 2, 3, 4] and server.runs[run_id]["state"] == "finished"
        assert any(name.startswith("media/images/media/samples") for name in server.files[run_id])
        (table,) = server.artifacts
        assert (
            table["state"] == "COMMITTED" and sum(name.endswith(".png") for name in table["files"]) == 4
        )  # an image and a mask in each row
        assert [alert["title"] for alert in server.alerts] == ["done"]
        assert save_first("team", "afterglow") is None and len(server.views) == 1  # a second run of the project saves none


SOON, LATE = ("401", "hang"), ("500", "garbage", "close")


@pytest.mark.parametrize("fault", [*SOON, *(pytest.param(fault, marks=pytest.mark.faults) for fault in LATE)])
def test_upload_to_a_failing_server_ends_in_time_and_can_be_repeated(fault, offline_run, tmp_path, monkeypatch, wandb_server):
    folder = shutil.copytree(offline_run / "wandb", tmp_path / "wandb", symlinks=True)
    monkeypatch.setattr(uploader, "SECONDS_AFTER_END", 3)
    with wandb_server(fault) as server:
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        upload = Uploader(folder)
        wait_for(lambda: server.requests)
        begin = time.monotonic()
        assert upload.finish() and time.monotonic() - begin < 3 + uploader.SECONDS_TO_STOP + 1
        assert not list(folder.glob("*/*.synced"))


def test_upload_that_fails_again_and_again_waits_longer_and_is_tried_once_more_at_the_end(tmp_path, monkeypatch):
    pauses, attempts, priorities = [], [], []

    class Ended(threading.Event):
        def wait(self, timeout=None):
            pauses.append(timeout)

        def is_set(self):
            return len(attempts) == 8

    monkeypatch.setattr(sys, "stdin", io.StringIO())
    upload = uploader._Upload(tmp_path, 1, False)
    upload.ended = Ended()
    monkeypatch.setattr(upload, "_attempt", lambda: attempts.append(1))
    monkeypatch.setattr(uploader, "lower_priority", priorities.append)
    assert not upload.run() and pauses == [30, 60, 120, 240, 480, 600, 600] and set(priorities) == {19}


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="Linux only")
def test_no_call_of_the_training_waits_for_the_process_that_uploads_and_that_process_goes_last(tmp_path, monkeypatch, history):
    """The process is stopped, so that a call that waits for it never returns."""
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")
    monkeypatch.setattr(uploader, "SECONDS_AFTER_END", 0)
    monkeypatch.setattr(uploader, "SECONDS_TO_STOP", 1)

    def stop(logger):
        group = logger._uploader._process.pid
        session = Path(f"/proc/{group}/autogroup")  # empty where Linux shares the cores among processes only
        wait_for(lambda: os.getpriority(os.PRIO_PROCESS, group) == 10 and session.read_text().split()[2:] in ([], ["10"]))
        os.killpg(group, signal.SIGSTOP)
        for step in range(5, 10):
            logger.log_metrics({"train/loss": float(step)}, step)
            logger.flush()

    record(tmp_path, finish=stop)
    assert [row["train/loss"] for row in history(tmp_path)[0] if "train/loss" in row] == list(range(10))


@pytest.mark.faults
@pytest.mark.parametrize("fault", ["401", "500", "garbage", "slow", "hang", "close"])
def test_run_with_a_server_that_fails_midway_costs_at_most_30_seconds(fault, tmp_path, monkeypatch, wandb_server, history):
    with wandb_server() as server:
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        begin = time.monotonic()
        logger = RunLogger()
        logger.use_folder(tmp_path / "one")
        logger.log_metrics({"train/loss": 0.0}, 0)
        assert time.monotonic() - begin < 30
        wait_for(lambda: server.runs)
        server.fault, ready = fault, time.monotonic()
        for step in range(1, 20):
            logger.log_metrics({"train/loss": float(step)}, step)
        logger.finish()
        assert time.monotonic() - ready < 30
    assert not logger.failed
    assert [row["train/loss"] for segment in history(tmp_path / "one") for row in segment if "train/loss" in row] == list(range(20))
    if fault != "slow":
        assert "offline: " in logger.how_to_view() and not list((tmp_path / "one").glob("wandb/*/*.synced"))


@pytest.mark.faults
def test_run_behind_a_proxy_is_uploaded(tmp_path, monkeypatch, wandb_server):
    monkeypatch.setattr(uploader, "SECONDS_AFTER_END", PATIENCE)
    with wandb_server() as server:
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_BASE_URL", "http://wandb.invalid")  # only the proxy resolves this name
        monkeypatch.setenv("HTTP_PROXY", server.url)
        logger = record(tmp_path / "one")
        assert logger.how_to_view().startswith("W&B: http://wandb.invalid/team/") and losses(server, logger.version) == [0, 1, 2, 3, 4]


def record_and_die(folder: Path, steps: range) -> None:
    """Log numbers in a process that is killed right after they are flushed."""
    wandb.teardown()  # the process starts W&B's service itself
    if (process := os.fork()) == 0:
        logger = RunLogger()
        logger.use_folder(folder)
        for step in steps:
            logger.log_metrics({"train/loss": float(step)}, step)
        logger.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
    time.sleep(1.1)  # W&B names a folder after the second in which a run began


@pytest.mark.faults
def test_killed_and_resumed_run_is_uploaded_completely(tmp_path, monkeypatch, wandb_server):
    with wandb_server() as server:
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setattr(uploader, "SECONDS_AFTER_END", 3)
        for first in (0, 5):
            record_and_die(tmp_path / "one", range(first, first + 5))
        monkeypatch.setattr(uploader, "SECONDS_AFTER_END", PATIENCE)
        for name in ("plants/metadata.jsonl", "plants/masks/0.png", "measurements.parquet", "emergence.json", "../exported/model.json"):
            (tmp_path / "one" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "one" / name).write_text(name)
        logger = record(tmp_path / "one", range(10, 15), finish=lambda logger: logger.log_results(tmp_path / "one" / "report.html"))
        assert logger.how_to_view().startswith("W&B: http://")
        assert losses(server, logger.version) == list(range(15))
        assert len(list((tmp_path / "one").glob("wandb/offline-run-*/*.synced"))) == 3
        log_pipeline(tmp_path / "exported", tmp_path / "one")
        assert all(artifact["state"] == "COMMITTED" for artifact in server.artifacts)
        sent = {part["artifactCollectionName"]: set(part["files"]) - {"wandb_manifest.json"} for part in server.artifacts}
        assert sent["one-plants"] == {"metadata.jsonl", "masks/0.png"} and sent["one-pipeline"] == {"model.json"}
        assert sent["one-measurements"] == {"measurements.parquet", "emergence.json"}
        assert server.used[0] == "one-plants"  # by the training; the export uses both, in any order
        assert sorted(server.used[1:]) == ["one-measurements", "one-plants"]


def test_flushed_rows_survive_a_kill(tmp_path, monkeypatch, history):
    monkeypatch.setenv("WANDB_MODE", "offline")
    record_and_die(tmp_path / "one", range(5))
    assert [row["train/loss"] for row in history(tmp_path / "one")[0]] == [0, 1, 2, 3, 4]
