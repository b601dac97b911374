"""An exponential moving average of the weights, whose window grows with the training (docs/methods.md#ema)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import lightning as L
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

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
        # buffers are copied, not averaged: the average of two equal integers (CLIP's position_ids) can be rounded down
        super().__init__(use_buffers=False, multi_avg_fn=self._average)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if self._average_model is not None:  # the number of updates is read at every step, for which a GPU would be waited for
            self._average_model.n_averaged = self._average_model.n_averaged.cpu()

    def _average(self, averaged: Sequence[Tensor], current: Sequence[Tensor], num_updates: Tensor | int) -> None:
        get_ema_multi_avg_fn(self._decay)(list(averaged), list(current), num_updates)

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
