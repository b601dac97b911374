"""An exponential moving average of the weights, whose window grows with the training (docs/methods.md#ema)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from afterglow.errors import AfterglowError


def warmup_decay(num_updates: int, max_decay: float) -> float:
    """Decay min(d_max, (1+s)/(10+s)) after s updates: the window is about a tenth of the training so far."""
    return min(max_decay, (1 + num_updates) / (10 + num_updates))


class WarmupEMA(WeightAveraging):
    """An exponential moving average with a growing decay; a constant decay would keep the initial noise for too long.

    Args:
        max_decay: largest decay; the largest window is 1 / (1 - max_decay) steps.
    """

    def __init__(self, max_decay: float = 0.9999) -> None:
        if not 0 <= max_decay < 1:
            raise AfterglowError(f"max_decay must lie in [0, 1), not {max_decay}.")
        self.max_decay = max_decay
        super().__init__(use_buffers=False)
        self._averaged: list[Tensor] = []  # weights, as they are after the strategy has moved the module
        self._current: list[Tensor] = []

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if self._average_model is not None:  # the number of updates is read at every step, for which a GPU would be waited for
            self._average_model.n_averaged = self._average_model.n_averaged.cpu()

    @torch.no_grad()
    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Do what AveragedModel.update_parameters does without going through all modules at every step, which takes long."""
        if trainer.global_step <= self._latest_update_step:  # accumulated batches share a step
            return
        self._latest_update_step = trainer.global_step
        assert self._average_model is not None
        if not self._averaged:
            self._averaged, self._current = list(self._average_model.module.parameters()), list(pl_module.parameters())
        if self._average_model.n_averaged == 0:
            torch._foreach_copy_(self._averaged, self._current)
        else:
            torch._foreach_lerp_(self._averaged, self._current, 1 - self._decay)
        # buffers are copied, not averaged: the average of two equal integers (CLIP's position_ids) can be rounded down
        for old, new in zip(self._average_model.module.buffers(), pl_module.buffers(), strict=True):
            old.copy_(new)
        self._average_model.n_averaged += 1

    @property
    def _decay(self) -> float:
        assert self._average_model is not None
        return warmup_decay(int(self._average_model.n_averaged), self.max_decay)

    @property
    def window(self) -> float:
        """Current window of the average in steps."""
        return 1 / (1 - self._decay)

    @contextmanager
    def averaged(self, pl_module: L.LightningModule) -> Iterator[None]:
        """A context in which the module holds the averaged weights."""
        self._swap_models(pl_module)
        try:
            yield
        finally:
            self._swap_models(pl_module)
