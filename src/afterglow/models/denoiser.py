"""The base class of all models: how a batch becomes a loss, and how a training mitigation may change that."""

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Self

import diffusers  # its classes are imported when they are first used
import numpy as np
import torch
from torch import Tensor, nn

from afterglow.errors import AfterglowError, one_line, require_fraction
from afterglow.functional.philox import WORD, Stream, random_integers, random_normal, random_words
from afterglow.models.conditioning import TextConditioning
from afterglow.models.networks import instantiate
from afterglow.models.noise import is_flow_config, noise_levels, noise_schedule, prediction_of, scheduler_class, training_timesteps
from afterglow.planting.dataset import Batch, PlantedDataset


@dataclass(frozen=True)
class TrainStepOutput:
    """B samples as the network saw them in one training step.

    Attributes:
        batch: the samples.
        captions: B captions as the network received them; "" where the caption was dropped for guidance.
        noisy: x_t, [B, C, h, w].
        timesteps: [B], int64 or, in flow matching, float.
        condition: output of the text encoder; None for a model without text.
        output: output of the network, [B, C, h, w].
        target: what the output is compared with, [B, C, h, w].
    """

    batch: Batch
    captions: Sequence[str]
    noisy: Tensor
    timesteps: Tensor
    condition: TextConditioning | None
    output: Tensor
    target: Tensor

    @property
    def losses(self) -> Tensor:
        """Mean squared error of each sample, [B], in units of the network's target."""
        return (self.output - self.target).square().flatten(1).mean(1)


class Denoiser(nn.Module):
    """A network that predicts noise or velocity, and the loss it is trained with.

    Args:
        noise_scheduler: arguments of diffusers' DDPMScheduler: num_train_timesteps, beta_schedule, prediction_type (epsilon, v_prediction);
            with prediction_type flow_prediction those of FlowMatchEulerDiscreteScheduler: num_train_timesteps, shift.
        cond_drop_prob: fraction of captions replaced by the empty caption in training (for classifier-free guidance).
        seed: seed of noise, timesteps and dropped captions.
        compile: train the network through torch.compile, which takes minutes before the first step; evaluations run it as it is.
        channels_last: keep the weights of convolutions in the memory format that is faster on GPUs in half precision.
    """

    unet: Any  # a diffusers model
    has_text = False
    vae_scale_factor = 1  # pixels per latent along one side; 1 for a model in pixel space
    name_or_path = ""  # run, checkpoint, folder or hub id from which the model was opened
    init_args: Mapping[str, Any]  # arguments of the constructor, from which a checkpoint rebuilds the model

    def __init__(
        self,
        noise_scheduler: Mapping[str, Any] | None = None,
        cond_drop_prob: float = 0.0,
        seed: int = 0,
        compile: bool = False,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        require_fraction(cond_drop_prob=cond_drop_prob)
        arguments = dict(noise_scheduler or {})
        if is_flow_config(arguments):
            del arguments["prediction_type"]  # which diffusers' scheduler does not take
        self.scheduler = noise_schedule(instantiate(scheduler_class(noise_scheduler or {}), arguments, "noise_scheduler"))
        self.cond_drop_prob, self.seed, self.compiles, self.channels_last = cond_drop_prob, seed, compile, channels_last

    @property
    def is_latent(self) -> bool:
        """Whether the network works on the latents of an autoencoder."""
        return self.vae_scale_factor > 1

    @property
    def device(self) -> torch.device:
        """Device of the network's weights."""
        return next(self.unet.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the network's weights."""
        return next(self.unet.parameters()).dtype

    @contextmanager
    def full_precision(self) -> Iterator[None]:
        """A context in which nothing is computed in half precision, as the launcher's precision lets the network be."""
        with torch.autocast("cpu", enabled=False), torch.autocast(self.device.type, enabled=False):
            yield

    def encode(self, images: Tensor) -> Tensor:
        """Convert pixels [B, C, H, W] in [-1, 1] to the values that are denoised, [B, C, h, w]; the identity in pixel space."""
        return images

    def decode(self, values: Tensor) -> Tensor:
        """Convert denoised values [B, C, h, w] to pixels [B, C, H, W] in [-1, 1], not clipped."""
        return values

    def target_x0(self, batch: Batch) -> Tensor:
        """The clean values x_0 of a training batch, [B, C, h, w]."""
        return self.encode(batch.image)

    def reconstruct(self, pixels: np.ndarray) -> np.ndarray:
        """Images uint8 [N, C, H, W] after decode(encode(x)): the nearest that the model can generate; unchanged in pixel space."""
        return pixels

    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one sample of the values that are denoised."""
        raise NotImplementedError

    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one image."""
        return self.latent_shape()

    def condition(self, captions: Sequence[str]) -> TextConditioning | None:
        """Encode B captions; the empty caption is the unconditional one. None for a model without text."""
        return None

    def forward(self, noisy: Tensor, timesteps: Tensor, condition: TextConditioning | None) -> Tensor:
        """The network's own output, noise or velocity [B, C, h, w], for x_t [B, C, h, w] and timesteps [B]."""
        raise NotImplementedError

    def pipeline(self) -> "diffusers.DiffusionPipeline":
        """The model as a diffusers pipeline, which `save_pretrained` writes and `from_pretrained` opens."""
        raise NotImplementedError

    def with_network(self, unet: Any) -> Self:
        """The same model around another network; everything else is shared."""
        other = copy.copy(self)
        other._modules = {**self._modules, "unet": unet}
        return other

    def prepare_training(self, dataset: PlantedDataset, num_samples: int, rank: int, world_size: int, barrier: Callable[[], None]) -> None:
        """Called once before the first of `num_samples` training samples (over all processes); `barrier` waits for all processes."""

    def compile_network(self) -> None:
        """Compile the network in place if this was asked for; its weights keep their names.

        Raises:
            AfterglowError: torch.compile does not work on this machine.
        """
        if not self.compiles:
            return
        try:
            compiled = torch.compile(lambda values: values.sin() + int(torch.compiler.is_compiling()))
            if not compiled(torch.zeros(8, device=self.device)).all():  # it leaves alone what it does not know
                raise RuntimeError(f"{self.device} is no device that it compiles for")
        except Exception as error:  # of the compiler that this device needs
            reason = one_line(f"{type(error).__name__} {error}", 130)
            raise AfterglowError(f"model.compile: torch.compile does not work here ({reason}); leave it out.") from error
        self.unet.compile()

    def sample_noise_and_timesteps(self, index: Tensor, clean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Draw what is random in a training step; each row depends only on the seed and the number of the sample.

        Args:
            index: numbers of the samples, int64 [B], on the CPU.
            clean: x_0, [B, C, h, w], whose shape and device the noise has.

        Returns:
            Noise [B, C, h, w] and timesteps int64 [B] (of a flow: before its shift) on the device; dropped captions, bool [B], on the CPU.
        """
        words = random_words(self.seed, Stream.TIMESTEP, index, 2)
        timesteps = random_integers(words[:, 0], len(self.scheduler)).to(clean.device, non_blocking=True)
        noise = random_normal(self.seed, Stream.NOISE, index.to(clean.device, non_blocking=True), clean.shape[1:])
        return noise, timesteps, words[:, 1] < self.cond_drop_prob * WORD

    def forward_batch(self, batch: Batch, mitigations: Sequence["TrainingMitigation"] = ()) -> TrainStepOutput:
        """Add noise to a training batch, apply the mitigations in their order, and run the network."""
        clean = self.target_x0(batch)
        noise, timesteps, dropped = self.sample_noise_and_timesteps(batch.index, clean)
        perturbed: Sequence[str] = batch.caption
        index = batch.index.tolist()
        for mitigation in mitigations:
            perturbed = mitigation.perturb_captions(self, perturbed, index)
            timesteps = mitigation.change_timesteps(self, timesteps)
        captions = ["" if drop else caption for caption, drop in zip(perturbed, dropped.tolist(), strict=True)]
        timesteps = training_timesteps(self.scheduler, timesteps)
        noisy = self.add_noise(clean, noise, timesteps)
        target = prediction_of(self.scheduler).target(clean, noise, *noise_levels(self.scheduler, timesteps, clean))
        condition = self.condition(captions)
        with ExitStack() as hooks:
            for mitigation in mitigations:
                condition = None if condition is None else mitigation.perturb_embeddings(self, condition, captions, index)
                hooks.enter_context(mitigation.hooks(self))
            output = self(noisy, timesteps, condition)
        return TrainStepOutput(batch, captions, noisy, timesteps, condition, output, target)

    def losses(self, batch: Batch) -> Tensor:
        """Mean squared error of each sample of a batch, [B], in units of the network's target."""
        return self.forward_batch(batch).losses

    def add_noise(self, clean: Tensor, noise: Tensor, timestep: float | Tensor) -> Tensor:
        """x_t = a x_0 + s eps, [B, C, h, w], of clean values and noise of this shape; timestep: one for all rows, or [B]."""
        signal, spread = noise_levels(self.scheduler, timestep, clean)
        return signal * clean + spread * noise

    def to_noise(self, output: Tensor, noisy: Tensor, timestep: float | Tensor) -> Tensor:
        """Convert the network's output [B, C, h, w] to predicted noise (docs/methods.md#predictions).

        Args:
            output: output of the network.
            noisy: x_t, [B, C, h, w].
            timestep: one for all rows, or [B].
        """
        return prediction_of(self.scheduler).noise(output, noisy, *noise_levels(self.scheduler, timestep, output))


class TrainingMitigation:
    """Changes how a model is trained to reduce memorization; this base class changes nothing."""

    def setup(self, model: Denoiser, captions: Collection[str]) -> None:
        """Called before training with the captions of the training set; raises AfterglowError if the mitigation does not apply."""

    def perturb_captions(self, model: Denoiser, captions: Sequence[str], index: Sequence[int]) -> Sequence[str]:
        """Change B captions, of the samples with these numbers in the training; the empty caption must stay empty."""
        return captions

    def change_timesteps(self, model: Denoiser, timesteps: Tensor) -> Tensor:
        """Change the timesteps of B samples, int64 [B]."""
        return timesteps

    def perturb_embeddings(
        self, model: Denoiser, condition: TextConditioning, captions: Sequence[str], index: Sequence[int]
    ) -> TextConditioning:
        """Change the encoded captions; those of the empty caption must stay. Arguments as in `perturb_captions`."""
        return condition

    def hooks(self, model: Denoiser) -> AbstractContextManager[Any]:
        """A context in which the network is called."""
        return nullcontext()

    def loss_mask(self, model: Denoiser, step: TrainStepOutput) -> Tensor | None:
        """Samples that count in the loss, bool [B]; None if the mitigation never drops samples."""
        return None

    def on_optimizer_step(self, gather: Callable[[Tensor], Any]) -> None:
        """Called before each optimizer step; `gather` stacks a tensor of every process."""

    def state_dict(self) -> dict[str, Any]:
        """State that a checkpoint keeps."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state of `state_dict`."""
