"""Losses, gradients and weights that are not finite end a training before they reach a checkpoint."""

import logging
import math
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.optim import Optimizer

from afterglow import keys
from afterglow.errors import AfterglowError, DivergedError

log = logging.getLogger(__name__)


class NonFinite(L.Callback):
    """Ends the training at the first step whose loss or gradient is not finite, before the weights are updated with it.

    With fp16, the gradient scaler skips a step whose gradients overflow; it is counted, and an error only if the loss is not finite.

    Args:
        skip: number of batches with a loss or gradient that is not finite that are skipped before the next one ends the training.
    """

    def __init__(self, skip: int = 0) -> None:
        if skip < 0:
            raise AfterglowError(f"on_nonfinite.skip must be at least 0, not {skip}.")
        self.skip, self.skipped, self.overflows = skip, 0, 0
        self._last_good: str | Path | None = None  # checkpoint

    def state_dict(self) -> dict[str, Any]:
        return {"skipped": self.skipped, "overflows": self.overflows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.skipped, self.overflows = state_dict["skipped"], state_dict["overflows"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._last_good = trainer.ckpt_path

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: Any, optimizer: Optimizer) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        pl_module.last_loss, norm, bad_losses = _read(trainer, pl_module.step_losses, [p.grad for p in parameters])
        pl_module.step_losses.clear()
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if bad_losses:
            self._skip(trainer, "loss", parameters, optimizer)
        elif not math.isfinite(norm) and scaler is not None and scaler.get_scale() > 1:
            self.overflows += 1
        elif not math.isfinite(norm):
            self._skip(trainer, "gradient", parameters, optimizer)
        if scaler is not None:
            pl_module.log(keys.OVERFLOWS, float(self.overflows), batch_size=1)

    def _skip(self, trainer: L.Trainer, culprit: str, parameters: list[Any], optimizer: Optimizer) -> None:
        """Make the optimizer leave the weights as they are, or raise DivergedError."""
        if self.skipped >= self.skip:
            raise self._error(trainer, f"the {culprit} is not finite")
        self.skipped += 1
        step = trainer.global_step + 1
        log.warning("Step %d: the %s is not finite; the batch is skipped (%d of %d).", step, culprit, self.skipped, self.skip)
        # a fused fp16 step skips what its scaler finds, and does not work without gradients
        by_scaler = getattr(trainer.precision_plugin, "scaler", None) and getattr(optimizer, "_step_supports_amp_scaling", False)
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, math.nan) if by_scaler else None

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if not torch.nn.utils.get_total_norm([p.detach() for p in pl_module.parameters() if p.requires_grad]).isfinite():
            raise self._error(trainer, "the weights are no longer finite")
        self._last_good = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"

    def _error(self, trainer: L.Trainer, cause: str) -> DivergedError:
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        good = f"the last good checkpoint is {self._last_good}" if self._last_good else "there is no checkpoint yet"
        return DivergedError(f"The training diverged at step {trainer.global_step + 1}: {cause} (learning rate {rate:g}); {good}.")


def _read(trainer: L.Trainer, losses: list[torch.Tensor], gradients: list[Any]) -> list[float]:
    """Mean loss of this process, norm of the gradient, and the number of processes whose loss is not finite.

    This is the only wait for a GPU in a step; the progress bar shows the loss that is read here. It comes before the optimizer's kernels
    are queued, so that the GPU idles while they are launched.
    """
    loss = torch.stack(losses).mean()
    bad = (~loss.isfinite()).to(loss)
    if trainer.world_size > 1:  # DDP averages the gradients only
        bad = trainer.strategy.reduce(bad, reduce_op="sum")
    return torch.stack([loss, torch.nn.utils.get_total_norm(gradients).to(loss), bad]).tolist()
