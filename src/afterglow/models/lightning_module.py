"""Training of a Denoiser with Lightning: optimizer, learning-rate schedule, logging and the contents of a checkpoint."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from torch import Tensor

from afterglow.errors import AfterglowError, require, require_fraction
from afterglow.models.denoiser import Denoiser, TrainingMitigation
from afterglow.planting.dataset import Batch

MIN_KEPT = 1e-6  # replaces a count of 0 kept samples, whose summed loss is 0 as well


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW and its learning-rate schedule.

    Args:
        learning_rate: learning rate after the warm-up.
        warmup_steps: optimizer steps over which the learning rate rises linearly from 0.
        lr_decay_fraction: last fraction of the training over which the learning rate falls linearly to 0.
        weight_decay: weight decay of AdamW; 0 is Adam.
    """

    learning_rate: float = 1e-4
    warmup_steps: int = 100
    lr_decay_fraction: float = 0.0
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        require("learning_rate", self.learning_rate, 0 < self.learning_rate < math.inf, "a finite number above 0")
        require("warmup_steps", self.warmup_steps, self.warmup_steps >= 0, "at least 0")
        require("weight_decay", self.weight_decay, 0 <= self.weight_decay < math.inf, "a finite number from 0")
        require_fraction(lr_decay_fraction=self.lr_decay_fraction)

    def lr_factor(self, step: int, num_steps: int) -> float:
        """Factor of the learning rate at an optimizer step of a training of `num_steps` steps."""
        warmup = min(1.0, (step + 1) / max(1, self.warmup_steps))
        remaining = (num_steps - step) / max(1.0, self.lr_decay_fraction * num_steps)
        return warmup * min(1.0, max(0.0, remaining) if self.lr_decay_fraction else 1.0)


class DenoiserModule(L.LightningModule):
    """Trains a Denoiser.

    Args:
        model: the model that is trained.
        optimizer: options of the optimizer.
        mitigations: training mitigations, applied in this order.

    Raises:
        AfterglowError: if there are mitigations and the model has no captions, or one that does not work with model.compile.
    """

    def __init__(
        self, model: Denoiser, optimizer: OptimizerConfig = OptimizerConfig(), mitigations: Sequence[TrainingMitigation] = ()
    ) -> None:
        super().__init__()
        self.model, self.optimizer, self.mitigations = model, optimizer, tuple(mitigations)
        self.step_losses: list[Tensor] = []  # of the batches since the last optimizer step
        self.last_loss = math.nan  # mean over the processes at the last optimizer step that the callback NonFinite has read
        if mitigations and not model.has_text:
            names = ", ".join(type(mitigation).__name__ for mitigation in mitigations)
            raise AfterglowError(f"mitigations: {names} act on captions, and {type(model).__name__} has no captions.")
        hooked = [type(each).__name__ for each in mitigations if type(each).hooks is not TrainingMitigation.hooks]
        if model.compiles and hooked:
            raise AfterglowError(f"model.compile cannot be used with {hooked[0]}, which reads the network while it runs.")
        if model.channels_last:
            model.unet.to(memory_format=torch.channels_last)

    def setup_mitigations(self, planted: Any) -> None:
        """Prepare the mitigations for a PlantedSet; raises AfterglowError if one does not apply to it."""
        captions = {*planted.captions, *(plant.caption for plant in planted.plants)}
        for mitigation in self.mitigations:
            mitigation.setup(self.model, captions)

    def on_fit_start(self) -> None:
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        self.setup_mitigations(data.planted)
        self.model.compile_network()
        trainer, num_samples = self.trainer, self.trainer.max_steps * data.batch_size
        self.model.prepare_training(data.samples, num_samples, trainer.global_rank, trainer.world_size, trainer.strategy.barrier)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        step = self.model.forward_batch(batch, self.mitigations)
        masks = [mask for mitigation in self.mitigations if (mask := mitigation.loss_mask(self.model, step)) is not None]
        if masks:
            kept = torch.stack(masks).all(0)
            loss = masked_mean(step.losses, kept, self.all_gather)
            self.log("train/dropped_fraction", 1 - kept.float().mean(), sync_dist=True, batch_size=len(kept))
        else:
            loss = step.losses.mean()
        self.step_losses.append(loss.detach())
        return loss

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        for mitigation in self.mitigations:
            mitigation.on_optimizer_step(self.all_gather)

    def configure_optimizers(self) -> Any:
        options, num_steps = self.optimizer, self.trainer.max_steps
        # one kernel instead of hundreds, and the callback NonFinite can skip its update; Lightning cannot clip what it unscales
        fused = not (self.trainer.gradient_clip_val and getattr(self.trainer.precision_plugin, "scaler", None))
        trainable = [p for p in self.parameters() if p.requires_grad]
        adamw = torch.optim.AdamW(trainable, lr=options.learning_rate, weight_decay=options.weight_decay, fused=fused)
        schedule = torch.optim.lr_scheduler.LambdaLR(adamw, lambda step: options.lr_factor(step, num_steps))
        return {"optimizer": adamw, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["denoiser"] = {"name": type(self.model).__name__, "init_args": dict(self.model.init_args)}
        checkpoint["mitigations"] = [(type(mitigation).__name__, mitigation.state_dict()) for mitigation in self.mitigations]

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        states = dict(checkpoint.get("mitigations", []))
        for mitigation in self.mitigations:
            if type(mitigation).__name__ in states:
                mitigation.load_state_dict(states[type(mitigation).__name__])


def masked_mean(losses: Tensor, kept: Tensor, gather: Callable[[Tensor], Any] = lambda count: count) -> Tensor:
    """Mean of the kept losses; after DDP's average of gradients, the mean over the kept samples of all processes.

    Args:
        losses: loss of each sample, [B].
        kept: samples that count, bool [B].
        gather: stacks a count of every process.

    Returns:
        A scalar; 0 with zero gradients if no sample is kept, the plain mean if all are.
    """
    num_kept = gather(kept.sum()).float().mean()
    return losses.where(kept, torch.zeros_like(losses)).mean() * (len(kept) / num_kept.clamp(min=MIN_KEPT))
