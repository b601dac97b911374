"""The one base of everything that is trained: how a batch becomes a loss."""

import copy
import inspect
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import lightning as L
import numpy as np
import torch
from diffusers import DDPMScheduler, DiffusionPipeline
from torch import Tensor

from afterglow.models.training_mitigation import TrainingMitigation, TrainStepOutput, masked_mean
from afterglow.planting.dataset import Batch


@dataclass(frozen=True)
class TextConditioning:
    """What a text encoder says of B captions.

    states: [B, L, D]; mask: bool [B, L], the positions that the U-Net may attend to;
    prompt_length: int64 [B], tokens up to and with the first end token (at most L);
    """

    states: Tensor
    mask: Tensor
    prompt_length: Tensor

    def __getitem__(self, rows: Any) -> "TextConditioning":
        return TextConditioning(self.states[rows], self.mask[rows], self.prompt_length[rows])

    def to(self, device: torch.device | str) -> "TextConditioning":
        return TextConditioning(self.states.to(device), self.mask.to(device), self.prompt_length.to(device))

    @staticmethod
    def cat(parts: Sequence["TextConditioning"]) -> "TextConditioning":
        names = ("states", "mask", "prompt_length")
        return TextConditioning(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


class Denoiser(L.LightningModule):
    """A U-Net that predicts noise (or velocity) and the loss it is trained with.

    Args of every subclass:
        resolution, channels: of the images; linked to the data.
        noise_scheduler: arguments of diffusers' DDPMScheduler: num_train_timesteps, beta_schedule, prediction_type (epsilon, v_prediction).
        learning_rate: of AdamW, after the warm-up.
        warmup_steps: optimizer steps over which the rate rises linearly from 0.
        lr_decay_fraction: last share of the training over which the rate falls linearly to 0.
        weight_decay: of AdamW; with 0 it is Adam.
        cond_drop_prob: share of the captions that are replaced by the empty one (for guidance).
        seed: of noise, timesteps and dropped captions.
    """

    unet: Any  # of diffusers
    has_text = False
    origin = ""  # the run, checkpoint, folder or hub id that it was opened from
    use_fused_adamw = False  # so many that AdamW in one kernel saves a good part of a step
    mitigations: tuple[TrainingMitigation, ...] = ()  # of a training; no argument, because they are no part of the model
    grid = 1  # pixels a side of one value that the U-Net sees: the factor of a VAE, 1 without

    def __init__(
        self,
        noise_scheduler: Mapping[str, Any] | None = None,
        learning_rate: float = 1e-4,
        warmup_steps: int = 100,
        lr_decay_fraction: float = 0.0,
        weight_decay: float = 0.01,
        cond_drop_prob: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.scheduler = validate_prediction_type(build(DDPMScheduler, noise_scheduler or {}, "noise_scheduler"))
        self.learning_rate, self.warmup_steps, self.lr_decay_fraction, self.weight_decay = (
            learning_rate,
            warmup_steps,
            lr_decay_fraction,
            weight_decay,
        )
        self.cond_drop_prob, self.seed = cond_drop_prob, seed

    def encode(self, images: Tensor) -> Tensor:
        """Pixels [B, C, H, W] in [-1, 1] => what is denoised; the identity without a VAE."""
        return images

    def clean(self, batch: Batch) -> Tensor:
        """What the network learns to denoise of a batch, [B, C, h, w]."""
        return self.encode(batch.image)

    def decode(self, values: Tensor) -> Tensor:
        """What was denoised => pixels [B, C, H, W] in [-1, 1], not clipped."""
        return values

    @property
    def precision(self) -> torch.dtype:
        """Of the weights."""
        return next(self.unet.parameters()).dtype

    def reconstruct(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 [N, C, H, W] => the nearest that the model could generate: decode(encode(x)); the same without a VAE."""
        return pixels

    def shape(self) -> tuple[int, int, int]:
        """Of one sample of what is denoised: (channels, height, width)."""
        raise NotImplementedError

    def image_shape(self) -> tuple[int, int, int]:
        """Of one image: (channels, height, width)."""
        return self.shape()

    def condition(self, captions: Sequence[str]) -> TextConditioning | None:
        """The text states of captions; None for a model without text. The empty caption is the unconditional one."""
        return None

    def forward(self, noisy: Tensor, timesteps: Tensor, condition: TextConditioning | None) -> Tensor:
        """The network's own output (noise or velocity), shaped as `noisy` [B, C, h, w]; timesteps: int64 [B]."""
        raise NotImplementedError

    def pipeline(self) -> DiffusionPipeline:
        """The model as a diffusers pipeline that `save_pretrained` writes and `from_pretrained` opens."""
        raise NotImplementedError

    def with_network(self, unet: Any) -> "Denoiser":
        """The same model around another network; everything else is shared."""
        twin = copy.copy(self)
        twin._modules = {**self._modules, "unet": unet}
        return twin

    def draw(self, batch: Batch, shape: torch.Size) -> tuple[Tensor, Tensor, Tensor]:
        """Noise, timesteps and dropped captions, each a pure function of the seed and the number of the sample."""
        noise, timesteps, dropped = torch.empty(shape), [], []
        for row, index in enumerate(batch.index.tolist()):
            generator = sample_generator(self.seed, index)
            timesteps.append(torch.randint(len(self.scheduler), (1,), generator=generator))
            dropped.append(torch.rand(1, generator=generator) < self.cond_drop_prob)
            torch.randn(shape[1:], generator=generator, out=noise[row])
        return noise, torch.cat(timesteps), torch.cat(dropped)

    def lesson(self, batch: Batch) -> TrainStepOutput:
        """One call of the network on a batch, as the mitigations say."""
        clean = self.clean(batch)
        noise, timesteps, dropped = (drawn.to(clean.device) for drawn in self.draw(batch, clean.shape))
        told: Sequence[str] = batch.caption
        index = batch.index.tolist()
        for mitigation in self.mitigations:
            told = mitigation.told(self, told, index)
        captions = ["" if drop else caption for caption, drop in zip(told, dropped.tolist(), strict=True)]
        noisy = self.scheduler.add_noise(clean, noise, timesteps)
        velocity = self.scheduler.config.prediction_type == "v_prediction"
        target = self.scheduler.get_velocity(clean, noise, timesteps) if velocity else noise
        condition = self.condition(captions)
        with ExitStack() as watching:
            for mitigation in self.mitigations:
                condition = None if condition is None else mitigation.heard(self, condition, captions, index)
                watching.enter_context(mitigation.watch(self))
            output = self(noisy, timesteps, condition)
        return TrainStepOutput(batch, captions, noisy, timesteps, condition, output, target)

    def losses(self, batch: Batch) -> Tensor:
        """Mean squared error of every sample, [B], in the units of the network's target."""
        return self.lesson(batch).losses

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        lesson = self.lesson(batch)
        votes = [vote for mitigation in self.mitigations if (vote := mitigation.kept(self, lesson)) is not None]
        if votes:
            kept = torch.stack(votes).all(0)
            loss = masked_mean(lesson.losses, kept, self.all_gather)
            self.log("train/dropped", 1 - kept.float().mean(), sync_dist=True, batch_size=len(kept))
        else:
            loss = lesson.losses.mean()
        self.log("train/loss", loss, sync_dist=True, batch_size=len(batch.image))
        return loss

    def to_noise(self, output: Tensor, noisy: Tensor, timestep: int | Tensor) -> Tensor:
        """The network's output => predicted noise eps, [B, C, h, w]: eps = sqrt(abar) v + sqrt(1 - abar) x for velocity.

        timestep: of all rows, or int64 [B], of each.
        """
        if self.scheduler.config.prediction_type == "epsilon":
            return output
        alpha_bar = self.scheduler.alphas_cumprod.to(output)[timestep].reshape(-1, 1, 1, 1)
        return alpha_bar.sqrt() * output + (1 - alpha_bar).sqrt() * noisy

    def rate(self, step: int, num_steps: int) -> float:
        """Factor of the learning rate at an optimizer step: up over the warm-up, 1, down to 0 over the last `fall` of the run."""
        up = min(1.0, (step + 1) / max(1, self.warmup_steps))
        left = (num_steps - step) / max(1.0, self.lr_decay_fraction * num_steps)
        return up * min(1.0, max(0.0, left) if self.lr_decay_fraction else 1.0)

    def configure_optimizers(self) -> Any:
        num_steps = self.trainer.max_steps
        fused = self.use_fused_adamw and not self.trainer.gradient_clip_val  # Lightning cannot clip what a fused step unscales
        learned = [p for p in self.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(learned, lr=self.learning_rate, weight_decay=self.weight_decay, fused=fused)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.rate(step, num_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["denoiser"] = type(self).__name__

    def check_resolution(self, side: int, num_levels: int) -> None:
        """Raises ValueError where the U-Net cannot halve its input at every level but the last."""
        if side % 2 ** (num_levels - 1):
            raise ValueError(
                f"resolution: a side of {side} cannot be halved {num_levels - 1} times, as a U-Net of {num_levels} levels needs."
            )


def build(cls: Any, arguments: Mapping[str, Any], option: str) -> Any:
    """An object of a library's class from the arguments that a recipe gives it; raises ValueError that names one it does not have."""
    unknown = [name for name in arguments if name not in inspect.signature(cls).parameters]
    if unknown:
        raise ValueError(f"{option}: {cls.__name__} has no argument '{unknown[0]}'.")
    return cls(**arguments)


def validate_prediction_type(scheduler: DDPMScheduler) -> DDPMScheduler:
    """The same; ValueError where the network would predict something else than noise or velocity."""
    kind = scheduler.config.prediction_type
    if kind not in ("epsilon", "v_prediction"):
        raise ValueError(f"noise_scheduler: prediction_type must be epsilon or v_prediction, and it is {kind}.")
    return scheduler


def sample_generator(seed: int, index: int) -> torch.Generator:
    """The random numbers of training sample `index`: the same for any number of processes, and after a resume."""
    state = np.random.SeedSequence([seed, 0xD4A3, index]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]) >> 1)
