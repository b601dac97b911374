"""A batch on its way to the loss, and what a mitigation at training time may change of it."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from afterglow.planting.dataset import Batch

if TYPE_CHECKING:
    from afterglow.models.denoiser import Denoiser, TextConditioning

FEWEST = 1e-6  # in place of 0 kept samples: their losses are 0 already


@dataclass(frozen=True)
class TrainStepOutput:
    """B samples as the network saw them in one training step.

    captions: what it was told, "" where the caption was dropped for guidance; noisy, output, target: [B, C, h, w];
    timesteps: int64 [B]; condition: None without text.
    """

    batch: Batch
    captions: Sequence[str]
    noisy: Tensor
    timesteps: Tensor
    condition: "TextConditioning | None"
    output: Tensor
    target: Tensor

    @property
    def losses(self) -> Tensor:
        """Mean squared error of every sample, [B], in the units of the network's target."""
        return (self.output - self.target).square().flatten(1).mean(1)


class TrainingMitigation:
    """Changes what a model is taught. As it stands here it changes nothing."""

    def told(self, model: "Denoiser", captions: Sequence[str], index: Sequence[int]) -> Sequence[str]:
        """The captions of samples, by their numbers in the training; the empty one stays empty."""
        return captions

    def heard(self, model: "Denoiser", condition: "TextConditioning", captions: Sequence[str], index: Sequence[int]) -> "TextConditioning":
        """What the text encoder says of the captions; of the empty one it stays as it is."""
        return condition

    def watch(self, model: "Denoiser") -> AbstractContextManager[Any]:
        """A context in which the network makes its call."""
        return nullcontext()

    def kept(self, model: "Denoiser", lesson: TrainStepOutput) -> Tensor | None:
        """Which samples count in the loss, bool [B]; None where the mitigation drops none ever."""
        return None


def masked_mean(losses: Tensor, kept: Tensor, gather: Callable[[Tensor], Any] = lambda count: count) -> Tensor:
    """The mean of the losses [B] that are kept, bool [B]; 0 with gradients of 0 where none is, the plain mean where all are.

    gather: of one count of every process. Averaged over processes as DDP averages gradients, it is the mean over all that they keep.
    """
    num_kept = gather(kept.sum()).float().mean()
    return losses.where(kept, torch.zeros_like(losses)).mean() * (len(kept) / num_kept.clamp(min=FEWEST))
