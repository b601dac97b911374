"""Averaged weights whose window grows with the training (METHODS section 4)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import lightning as L
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn


def warmup_decay(num_updates: int, max_decay: float) -> float:
    """min(d_max, (1+s)/(10+s)) after s updates: the window is about a tenth of the training so far."""
    return min(max_decay, (1 + num_updates) / (10 + num_updates))


class WarmupEMA(WeightAveraging):
    """An exponential average of the weights with the ramp above; a constant decay keeps the initial noise for too long.

    Args:
        max_decay: the largest decay; 1 - 1/max_decay is the largest window in steps.
    """

    def __init__(self, max_decay: float = 0.9999) -> None:
        if not 0 <= max_decay < 1:
            raise ValueError(f"max_decay must lie in [0, 1), and it is {max_decay}.")
        self.max_decay = max_decay
        # buffers are copied, not averaged: the average of two equal whole numbers (CLIP's position_ids) can round down to the one below
        super().__init__(use_buffers=False, multi_avg_fn=self._average)

    def _average(self, averaged: Sequence[Tensor], current: Sequence[Tensor], num_updates: Tensor | int) -> None:
        get_ema_multi_avg_fn(warmup_decay(int(num_updates), self.max_decay))(list(averaged), list(current), num_updates)

    @property
    def window(self) -> float:
        """Of the average, in steps."""
        assert self._average_model is not None
        return 1 / (1 - warmup_decay(int(self._average_model.n_averaged), self.max_decay))

    @contextmanager
    def averaged(self, model: L.LightningModule) -> Iterator[None]:
        """Inside the block the model holds the averaged weights."""
        self._swap_models(model)
        try:
            yield
        finally:
            self._swap_models(model)
