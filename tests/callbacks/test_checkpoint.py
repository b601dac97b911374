import errno
import os
from pathlib import Path

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from afterglow.callbacks.checkpoint import AtomicCheckpointIO, RunCheckpoint, make_last, step_of
from afterglow.errors import AfterglowError


class Line(L.LightningModule):
    """One weight; the metric "score" is the given number of the step."""

    def __init__(self, scores: tuple[float, ...] = ()) -> None:
        super().__init__()
        self.weight, self.scores, self.seen = torch.nn.Parameter(torch.zeros(())), scores, []

    def training_step(self, batch, batch_idx):
        if self.scores:
            self.log("score", self.scores[self.trainer.global_step])
        self.seen.append(float(self.weight))
        return (self.weight - batch.mean()) ** 2

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder: Path, callback: RunCheckpoint, *, steps: int = 6, module: Line | None = None, resume: bool = False, **options) -> Line:
    module = module or Line()
    trainer = L.Trainer(
        default_root_dir=folder,
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback, *options.pop("callbacks", [])],
        **options,
    )
    trainer.strategy.checkpoint_io = AtomicCheckpointIO()
    path = str(folder / "checkpoints/last.ckpt") if resume else None
    trainer.fit(module, DataLoader(torch.ones(24, 1), batch_size=1), ckpt_path=path, weights_only=True)
    return module


def names(folder: Path) -> set[str]:
    return {path.name for path in (folder / "checkpoints").iterdir()}


def last_step(folder: Path) -> int:
    return torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["global_step"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"step=4.ckpt", "step=5.ckpt"}),  # the last step is saved between two intervals
        ({"save_top_k": 1}, {"step=5.ckpt"}),
        ({"save_top_k": 0}, set()),
        ({"save_top_k": -1}, {"step=2.ckpt", "step=4.ckpt", "step=5.ckpt"}),
        ({"every_n_train_steps": 0}, {"step=5.ckpt"}),
        ({"every_n_train_steps": 0, "every_minutes": 0, "save_top_k": -1}, {f"step={step}.ckpt" for step in range(1, 6)}),
    ],
)
def test_run_checkpoint_keeps_the_newest_files_and_the_last_step(tmp_path, options, expected):
    fit(tmp_path, RunCheckpoint(**({"every_n_train_steps": 2} | options)), steps=5)
    assert names(tmp_path) == {"last.ckpt"} | expected and last_step(tmp_path) == 5


@pytest.mark.parametrize(("mode", "best"), [("max", {"step=1.ckpt", "step=4.ckpt"}), ("min", {"step=2.ckpt", "step=3.ckpt"})])
def test_run_checkpoint_with_a_monitor_keeps_the_best_also_after_a_resume(tmp_path, mode, best):
    scores = (0.5, 0.1, 0.2, 0.9, 0.3, 0.4)
    fit(tmp_path, RunCheckpoint(1, monitor="score", mode=mode), steps=4, module=Line(scores))
    moved = tmp_path / "moved"
    moved.mkdir()
    (tmp_path / "checkpoints").rename(moved / "checkpoints")
    fit(moved, RunCheckpoint(1, monitor="score", mode=mode), module=Line(scores), resume=True)
    assert names(moved) == {"last.ckpt"} | best and last_step(moved) == 6


def test_run_checkpoint_of_a_key_that_is_not_logged_names_the_nearest(tmp_path):
    with pytest.raises(AfterglowError, match="no value is logged as scor: did you mean score"):
        fit(tmp_path, RunCheckpoint(1, monitor="scor"), module=Line((1.0,) * 6))


def test_run_checkpoint_of_a_moved_folder_replaces_its_last_file(tmp_path):
    fit(tmp_path / "a", RunCheckpoint(2), steps=4)
    (tmp_path / "a").rename(tmp_path / "b")
    resumed = fit(tmp_path / "b", RunCheckpoint(2), steps=8, resume=True)
    assert names(tmp_path / "b") == {"last.ckpt", "step=6.ckpt", "step=8.ckpt"} and last_step(tmp_path / "b") == 8
    assert not (tmp_path / "a").exists()
    assert resumed.seen == fit(tmp_path / "c", RunCheckpoint(2), steps=8).seen[4:]


def test_run_checkpoint_removes_the_step_files_that_a_kill_left(tmp_path):
    fit(tmp_path, RunCheckpoint(2), steps=4)
    for name in ("step=1.ckpt", "step=3.ckpt"):
        (tmp_path / "checkpoints" / name).write_bytes(b"left by a kill")
    fit(tmp_path, RunCheckpoint(2), steps=6, resume=True)
    assert names(tmp_path) == {"last.ckpt", "step=4.ckpt", "step=6.ckpt"}


def test_resume_of_a_complete_training_finishes_what_a_kill_interrupted(tmp_path):
    fit(tmp_path, RunCheckpoint(2), steps=6)
    (tmp_path / "checkpoints/step=6.ckpt").unlink()  # killed before last.ckpt had its second name
    (tmp_path / "checkpoints/step=2.ckpt").write_bytes(b"left by a kill")
    fit(tmp_path, RunCheckpoint(2), steps=6, resume=True)
    assert names(tmp_path) == {"last.ckpt", "step=4.ckpt", "step=6.ckpt"}


def test_make_last_leaves_no_checkpoint_of_a_later_step(tmp_path):
    fit(tmp_path, RunCheckpoint(2, save_top_k=-1), steps=6)
    make_last(tmp_path / "checkpoints/step=2.ckpt", 2, tmp_path / "another")
    assert last_step(tmp_path) == 6
    make_last(tmp_path / "checkpoints/step=2.ckpt", 2, tmp_path)
    assert names(tmp_path) == {"last.ckpt", "step=2.ckpt"} and last_step(tmp_path) == 2


def test_run_checkpoint_stopped_between_accumulated_batches_resumes_with_the_same_weights(tmp_path):
    whole = fit(tmp_path / "whole", RunCheckpoint(2), accumulate_grad_batches=2)

    class Stop(L.Callback):
        def on_train_batch_end(self, trainer, *_):
            trainer.should_stop = trainer.fit_loop.epoch_loop.total_batch_idx >= 6  # in the middle of step 4

    fit(tmp_path / "torn", RunCheckpoint(0), accumulate_grad_batches=2, callbacks=[Stop()])
    assert last_step(tmp_path / "torn") == 3
    checkpoint = torch.load(tmp_path / "torn/checkpoints/last.ckpt", weights_only=True)
    assert float(checkpoint["state_dict"]["weight"]) == whole.seen[6]


def test_save_now_saves_a_step_once(tmp_path, monkeypatch):
    written: list[int] = []
    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", lambda self, checkpoint, *_, **__: written.append(checkpoint["global_step"]))
    monkeypatch.setattr(RunCheckpoint, "_keep", lambda *_: None)

    class Often(L.Callback):
        def on_train_batch_end(self, trainer, *_):
            for _ in range(2):
                assert trainer.checkpoint_callback.save_now(trainer) == tmp_path / "checkpoints/last.ckpt"

    fit(tmp_path, RunCheckpoint(1), steps=3, callbacks=[Often()])
    assert written == [1, 2, 3]


def test_run_checkpoint_on_a_full_disk_keeps_the_last_file_and_names_it(tmp_path, monkeypatch):
    fit(tmp_path, RunCheckpoint(2), steps=2)
    before = (tmp_path / "checkpoints/last.ckpt").read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        fit(tmp_path, RunCheckpoint(2), steps=4, resume=True)
    assert caught.value.filename == str(tmp_path / "checkpoints/last.ckpt")
    assert names(tmp_path) == {"last.ckpt", "step=2.ckpt"} and (tmp_path / "checkpoints/last.ckpt").read_bytes() == before


def test_run_checkpoint_copies_where_the_file_system_knows_no_links(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(errno.EPERM, "no links")

    monkeypatch.setattr("os.link", refused)
    fit(tmp_path, RunCheckpoint(2), steps=2)
    files = [tmp_path / "checkpoints" / name for name in ("last.ckpt", "step=2.ckpt")]
    assert files[0].read_bytes() == files[1].read_bytes() and files[0].stat().st_ino != files[1].stat().st_ino


def test_step_of_reads_the_name():
    assert [step_of(Path(name)) for name in ("step=12.ckpt", "last.ckpt", "step=x.ckpt")] == [12, -1, -1]
