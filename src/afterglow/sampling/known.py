"""Known pixels of a sampling pass, whose rest is outpainted (docs/methods.md#outpainting)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from afterglow.errors import AfterglowError, require_positive


@dataclass(frozen=True)
class KnownPixels:
    """What is kept of B images while a model samples the rest (Lugmayr et al. 2022, RePaint, equations 8a to 8c and 10).

    Before each call of the network the known pixels are replaced by a draw of q(x_t | x_0), with new noise each time. With R > 1
    resamplings each step t -> t' is repeated: x_t = sqrt(abar_t / abar_t') x_t' + sqrt(1 - abar_t / abar_t') eps.

    Attributes:
        images: float [B, C, h, w], x_0; values outside of `mask` are not read.
        mask: bool [B, 1, h, w], True where pixels are known.
        resamplings: R, how often each step of the sampler is made.
    """

    images: Tensor
    mask: Tensor
    resamplings: int = 1

    def __post_init__(self) -> None:
        require_positive(resamplings=self.resamplings)

    def __getitem__(self, rows: slice) -> "KnownPixels":
        return KnownPixels(self.images[rows], self.mask[rows], self.resamplings)

    def restore(self, sample: Tensor) -> Tensor:
        """A sample of x_0 [B, C, h, w] with the known pixels."""
        return torch.where(self.mask.to(sample.device), self.images.to(sample), sample)

    def insert(self, sample: Tensor, scheduler: Any, index: int, draw: Callable[[], Tensor], *, back: bool) -> Tensor:
        """The sampler's state [B, C, h, w] before step `index` with its known pixels at the same level of noise.

        Args:
            scheduler: its timesteps are set.
            draw: gives new noise [B, C, h, w].
            back: the state is that after the step, which is made again.

        Raises:
            AfterglowError: a step is made again with a scheduler that remembers earlier steps.
        """
        timestep = scheduler.timesteps[index]
        if back:
            if hasattr(scheduler, "step_index"):
                raise AfterglowError(f"{type(scheduler).__name__} remembers earlier steps: resamplings must be 1, or use DDIMScheduler.")
            abar = scheduler.alphas_cumprod[timestep]
            after = scheduler.alphas_cumprod[scheduler.timesteps[index + 1]] if index + 1 < len(scheduler.timesteps) else 1.0
            kept = (abar / after).to(sample)
            sample = kept.sqrt() * sample + (1 - kept).sqrt() * draw()
        images, noise, time = self.images.to(sample), draw(), timestep.reshape(1)
        flow = hasattr(scheduler, "scale_noise")  # the same of flow matching, by another name
        known = scheduler.scale_noise(images, time, noise) if flow else scheduler.add_noise(images, noise, time)
        return torch.where(self.mask.to(sample.device), known, sample)
