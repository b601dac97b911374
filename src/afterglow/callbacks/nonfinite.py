"""Losses, gradients and weights that are not finite end a training before they reach a checkpoint."""

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.optim import Optimizer

from afterglow import keys
from afterglow.errors import AfterglowError, DivergedError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Step:
    """What is known of one optimizer step. stats: mean loss, norm of the gradient, number of processes whose loss is not finite, [3]."""

    number: int
    stats: Tensor
    copied: Any = None  # CUDA event after which `stats` can be read

    def read(self) -> list[float]:
        if self.copied is not None:
            self.copied.synchronize()
        return self.stats.tolist()


class NonFinite(L.Callback):
    """Ends the training at the first step whose loss or gradient is not finite; the weights are not updated with it.

    The host never waits for the step that a GPU computes: it reads there whether the step before was finite. The optimizer, which must be
    fused, skips a bad step on the GPU. With fp16, the gradient scaler skips a step whose gradients overflow; it is counted, and an error
    only if the loss is not finite.

    Args:
        skip: number of batches with a loss or gradient that is not finite that are skipped before the next one ends the training.
    """

    def __init__(self, skip: int = 0) -> None:
        if skip < 0:
            raise AfterglowError(f"on_nonfinite.skip must be at least 0, not {skip}.")
        self.skip, self.skipped, self.overflows = skip, 0, 0
        self.last_good: str | Path | None = None  # checkpoint
        self._unread: _Step | None = None
        self._last_loss = math.nan

    def state_dict(self) -> dict[str, Any]:
        return {"skipped": self.skipped, "overflows": self.overflows, "last_loss": self._last_loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.skipped, self.overflows = state_dict["skipped"], state_dict["overflows"]
        self._last_loss = state_dict.get("last_loss", math.nan)

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.last_good = trainer.ckpt_path
        pl_module.last_loss = self._last_loss

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: Any, optimizer: Optimizer) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        stats = _stats(trainer, pl_module.step_losses, [p.grad for p in parameters])
        pl_module.step_losses.clear()
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if stats.device.type == "cpu" or scaler is not None:  # a scaler waits for the GPU in any case
            if culprit := self._read(trainer, pl_module, _Step(trainer.global_step + 1, stats), scaler):
                self._skip(trainer, culprit, trainer.global_step + 1)
                _leave_weights(parameters, optimizer, scaler)
        else:
            self._read_last(trainer, pl_module)
            optimizer.found_inf = (~stats.isfinite()).any().float()  # type: ignore[attr-defined]  # such a step of a fused optimizer is none
            event = torch.cuda.Event() if stats.is_cuda else None
            self._unread = _Step(trainer.global_step + 1, stats.to("cpu", non_blocking=True), event)
            if event is not None:
                event.record()
        if not math.isnan(self._last_loss):
            pl_module.log("train/loss", torch.tensor(self._last_loss), batch_size=1)
        if scaler is not None:
            pl_module.log(keys.OVERFLOWS, torch.tensor(float(self.overflows)), batch_size=1)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._read_last(trainer, pl_module)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._read_last(trainer, pl_module)
        if not torch.nn.utils.get_total_norm([p.detach() for p in pl_module.parameters() if p.requires_grad]).isfinite():
            raise diverged(trainer, "the weights are no longer finite", trainer.global_step)
        self.last_good = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"

    def _read_last(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Read the step that was not read yet."""
        step, self._unread = self._unread, None
        if step is not None and (culprit := self._read(trainer, pl_module, step, None)):
            self._skip(trainer, culprit, step.number)

    def _read(self, trainer: L.Trainer, pl_module: Any, step: _Step, scaler: Any) -> str | None:
        """What is not finite in a step, if it must not be used."""
        loss, norm, bad_losses = step.read()
        pl_module.last_loss = self._last_loss = loss
        if bad_losses:
            return "loss"
        if math.isfinite(norm):
            return None
        if scaler is not None and scaler.get_scale() > 1:
            self.overflows += 1
            return None
        return "gradient"

    def _skip(self, trainer: L.Trainer, culprit: str, step: int) -> None:
        """Count a skipped batch, or raise DivergedError."""
        if self.skipped >= self.skip:
            raise diverged(trainer, f"the {culprit} is not finite", step)
        self.skipped += 1
        log.warning("Step %d: the %s is not finite; the batch is skipped (%d of %d).", step, culprit, self.skipped, self.skip)


def diverged(trainer: L.Trainer, cause: str, step: int) -> DivergedError:
    """Return an error that names the step, the learning rate and the last good checkpoint of a training."""
    rate = trainer.optimizers[0].param_groups[0]["lr"]
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    last_good = next((callback.last_good for callback in callbacks if isinstance(callback, NonFinite)), None)
    good = f"the last good checkpoint is {last_good}" if last_good else "there is no checkpoint yet"
    return DivergedError(f"The training diverged at step {step}: {cause} (learning rate {rate:g}); {good}.")


def _leave_weights(parameters: list[Any], optimizer: Optimizer, scaler: Any) -> None:
    """Make the next optimizer step leave the weights as they are."""
    # a fused fp16 step skips what its scaler finds, and does not work without gradients
    by_scaler = scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False)
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, math.nan) if by_scaler else None


def _stats(trainer: L.Trainer, losses: list[Tensor], gradients: list[Any]) -> Tensor:
    """The stats of `_Step`; the loss is the mean over the processes."""
    loss = torch.stack(losses).mean()
    means = torch.stack([loss, (~loss.isfinite()).to(loss)])
    if trainer.world_size > 1:  # DDP averages the gradients only
        means = trainer.strategy.reduce(means, reduce_op="sum") / torch.tensor([trainer.world_size, 1]).to(means, non_blocking=True)
    norm = torch.nn.utils.get_total_norm(gradients) if gradients else torch.zeros(())
    return torch.stack([means[0], norm.to(loss), means[1]])
