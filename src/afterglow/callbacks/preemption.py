"""An orderly end of a training before its last step: after a signal, or when trainer.max_time is over."""

import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Timer

from afterglow.signals import Stopped, StopSignals

TIME_OVER = 1  # smaller than the number of every signal that is handled


class Preemption(L.Callback):
    """Saves a checkpoint when a signal ends the training. The monitor calls `check` where the training can end.

    Args:
        signals: the handlers of the process.
        max_seconds: duration after which this process ends the training; None: no limit.
    """

    def __init__(self, signals: StopSignals, max_seconds: float | None = None) -> None:
        self.signals = signals
        self.deadline = None if max_seconds is None else time.monotonic() + max_seconds
        self._group: Any = None  # of all processes
        self._stopped = False  # all of them, by a signal

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.world_size > 1:
            self._group = torch.distributed.new_group(backend="gloo")  # between the hosts, so that no GPU waits
        self.signals.defer()

    def check(self) -> bool:
        """Whether trainer.max_time is over; all processes decide the same.

        Raises:
            Stopped: a process has received a signal.
        """
        over = self.deadline is not None and time.monotonic() >= self.deadline
        request = torch.tensor(self.signals.received or int(over) * TIME_OVER)
        if self._group is not None:
            torch.distributed.all_reduce(request, torch.distributed.ReduceOp.MAX, self._group)
        if request > TIME_OVER:
            raise Stopped(int(request))
        return bool(request == TIME_OVER)

    def wait_for_all(self) -> None:
        """Wait for all processes after a signal, since a launcher kills the others when the first one ends."""
        if self._stopped and self._group is not None:
            torch.distributed.barrier(self._group)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.signals.state = (
            f"after step {trainer.global_step}, when the training was done; the same command with --resume auto writes its report"
        )
        self.signals.act()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if self.signals.deferred and isinstance(exception, Stopped):
            self._stopped, path = True, save_now(trainer)
            self.signals.state = f"at step {trainer.global_step}, saved in {path}; continue with the same command and --resume auto"


def save_now(trainer: L.Trainer) -> Path:
    """Save the current step as last.ckpt; all processes call it."""
    path = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
    trainer.save_checkpoint(path)
    return path


def take_max_seconds(trainer: L.Trainer) -> float | None:
    """Remove the timer of trainer.max_time, whose saved state would end a resumed training at once, and return its seconds."""
    timers = [callback for callback in trainer.callbacks if isinstance(callback, Timer)]  # type: ignore[attr-defined]
    for timer in timers:
        trainer.callbacks.remove(timer)  # type: ignore[attr-defined]
    return timers[0].time_remaining() if timers else None
