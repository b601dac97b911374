"""Checkpoints in the run folder: by steps and by time, the newest and the best."""

import math
import os
import shutil
import time
from pathlib import Path
from typing import Any, Literal

import lightning as L
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from afterglow.cache import atomic_path
from afterglow.errors import AfterglowError, did_you_mean, require
from afterglow.loggers.run_logger import RunLogger
from afterglow.models.checkpoint import write_checkpoint


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes each checkpoint of a Trainer to a temporary file and renames it when it is on the disk."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        write_checkpoint(checkpoint, Path(path))


class RunCheckpoint(Checkpoint):
    """Writes checkpoints/last.ckpt and keeps some as checkpoints/step=N.ckpt; the last step is always saved.

    Args:
        every_n_train_steps: optimizer steps between two checkpoints; 0: none by steps.
        every_minutes: minutes between two checkpoints; null: none by time.
        save_top_k: number of step=N.ckpt that are kept: the newest, or the best by `monitor`; -1: all.
        monitor: W&B key, such as memorized/global, whose newest value at the time of a checkpoint decides which are the best; null: none.
        mode: whether the best value is the largest or the smallest.
    """

    def __init__(
        self,
        every_n_train_steps: int = 200,
        every_minutes: float | None = None,
        save_top_k: int = 2,
        monitor: str | None = None,
        mode: Literal["max", "min"] = "max",
    ) -> None:
        require("checkpoint.every_n_train_steps", every_n_train_steps, every_n_train_steps >= 0, "at least 0")
        require("checkpoint.every_minutes", every_minutes, every_minutes is None or 0 <= every_minutes < math.inf, "a finite number from 0")
        require("checkpoint.save_top_k", save_top_k, save_top_k >= -1, "at least -1")
        self.every_n_train_steps, self.every_minutes = every_n_train_steps, every_minutes
        self.save_top_k, self.monitor, self.mode = save_top_k, monitor, mode
        self.world_size = 1
        self.scores: dict[str, float] = {}  # value of `monitor` by name of the file
        self._saved_step, self._saved_time = -1, time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        return {"world_size": self.world_size, "scores": dict(self.scores)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.scores = dict(state_dict["scores"])

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._saved_step = checkpoint["global_step"]

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        file = Path(trainer.ckpt_path or "")
        of_this_run = file.parent.resolve() == (Path(trainer.default_root_dir) / "checkpoints").resolve()
        if file.name and of_this_run and trainer.is_global_zero:
            self._keep(file, self._saved_step)  # again: the process that wrote it may have been killed before

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.world_size = trainer.world_size
        self._saved_step, self._saved_time = trainer.global_step, time.monotonic()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        step = trainer.global_step
        last = step >= trainer.max_steps or trainer.should_stop
        by_steps = self.every_n_train_steps > 0 and step % self.every_n_train_steps == 0
        if last or by_steps or self._minutes_passed(trainer):
            self.save_now(trainer)

    def _minutes_passed(self, trainer: L.Trainer) -> bool:
        if self.every_minutes is None:
            return False
        return trainer.strategy.broadcast(time.monotonic() - self._saved_time >= 60 * self.every_minutes)  # one clock decides for all

    def save_now(self, trainer: L.Trainer) -> Path:
        """Save the current step as last.ckpt if it is not saved yet; all processes call it.

        Returns:
            The file.

        Raises:
            OSError: the disk is full or fails; the last checkpoint stays as it was.
        """
        folder, step = Path(trainer.default_root_dir) / "checkpoints", trainer.global_step
        last = folder / "last.ckpt"
        if step == self._saved_step:  # accumulated batches share a step
            return last
        if self.monitor is not None:
            self.scores[_file_name(step)] = self._score(trainer)
        for logger in trainer.loggers:
            if isinstance(logger, RunLogger):
                logger.flush()  # a resumed run repeats only what comes after the checkpoint
        trainer.save_checkpoint(last)
        self._saved_step, self._saved_time = step, time.monotonic()
        if trainer.is_global_zero:
            self._keep(last, step)
        return last

    def _score(self, trainer: L.Trainer) -> float:
        metrics = trainer.callback_metrics
        if self.monitor not in metrics:
            nearest = did_you_mean(str(self.monitor), metrics) or f"; known are {', '.join(sorted(metrics)[:8])}."
            raise AfterglowError(f"checkpoint.monitor: no value is logged as {self.monitor}{nearest}")
        return float(metrics[self.monitor])

    def _keep(self, file: Path, step: int) -> None:
        """Keep a checkpoint as step=N.ckpt and remove the files that are neither among the newest nor among the best."""
        kept = file.with_name(_file_name(step))
        if self.save_top_k and not (kept.is_file() and kept.samefile(file)):
            with atomic_path(kept) as path:
                link_or_copy(file, path)
        files = sorted(file.parent.glob("step=*.ckpt"), key=self._rank, reverse=True)
        for file in files[self.save_top_k :] if self.save_top_k >= 0 else ():
            file.unlink()
            self.scores.pop(file.name, None)

    def _rank(self, file: Path) -> tuple[float, int]:
        sign = 1 if self.mode == "max" else -1
        score = sign * self.scores.get(file.name, -sign * float("inf")) if self.monitor is not None else 0.0
        return score, step_of(file)


def _file_name(step: int) -> str:
    return f"step={step}.ckpt"


def step_of(file: Path) -> int:
    """Return N of step=N.ckpt, -1 for other names."""
    number = file.stem.removeprefix("step=")
    return int(number) if number.isdecimal() else -1


def make_last(file: Path, step: int, folder: Path) -> None:
    """Make a checkpoint of a run folder its last one: what came after its step is trained again, and no later resume may use it."""
    checkpoints = folder / "checkpoints"
    if folder.resolve() not in file.resolve().parents:
        return
    if file.resolve() != (checkpoints / "last.ckpt").resolve():
        with atomic_path(checkpoints / "last.ckpt") as path:
            link_or_copy(file, path)
    for later in checkpoints.glob("step=*.ckpt"):
        if step_of(later) > step:
            later.unlink()


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the file system knows no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
