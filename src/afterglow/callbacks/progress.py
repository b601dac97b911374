"""The progress bar of a training; it also logs the speed and the learning rate."""

import time
from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm

from afterglow import keys
from afterglow.callbacks.monitor import MemorizationMonitor

LINE = "{n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"  # steps, and the time until now and until the end


class Progress(ProgressBar):
    """Shows steps, time left, loss, images per second, and the memorized fractions of the last evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: tqdm | None = None
        self._enabled = True

    def disable(self) -> None:  # Lightning calls this on all processes but one
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._monitor = next((c for c in trainer.callbacks if isinstance(c, MemorizationMonitor)), None)  # type: ignore[attr-defined]
        self._bar = tqdm(
            total=trainer.max_steps,
            initial=trainer.global_step,
            bar_format=LINE,
            disable=not self._enabled,
            dynamic_ncols=True,
            smoothing=0,
        )
        self._begin, self._begin_step = self._training_seconds(), trainer.global_step

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        assert self._bar is not None
        images = (trainer.global_step - self._begin_step) * trainer.datamodule.batch_size  # type: ignore[attr-defined]
        speed = images / max(self._training_seconds() - self._begin, 1e-9)
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        # tensors of the CPU: Lightning would send numbers to a GPU, and wait
        pl_module.log_dict({key: torch.tensor(value) for key, value in ((keys.SPEED, speed), (keys.LEARNING_RATE, rate))}, batch_size=1)
        self._bar.n = trainer.global_step
        fractions = self._monitor.fractions if self._monitor else {}
        self._bar.set_postfix_str(_postfix(pl_module.last_loss, speed, fractions), refresh=False)
        self._bar.update(0)

    def _training_seconds(self) -> float:
        return time.perf_counter() - (self._monitor.clock.evaluation if self._monitor else 0.0)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._bar is not None:
            self._bar.refresh()
            self._bar.close()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if self._bar is not None:  # the error message starts on a new line
            self._bar.close()

    def print(self, *args: Any, **kwargs: Any) -> None:
        if self._enabled:
            tqdm.write(" ".join(map(str, args)))


def _postfix(loss: float, speed: float, fractions: Mapping[str, float]) -> str:
    memorized = ", ".join(f"{kind} {fraction:.0%}" for kind, fraction in fractions.items())
    return f"loss {loss:.3f}, {speed:.0f} images/s" + (f", memorized: {memorized}" if memorized else "")
