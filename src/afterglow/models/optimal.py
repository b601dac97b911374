"""The closed-form optimal denoiser of a finite set (Gu et al. 2023): it memorizes everything, without training."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from afterglow.models.denoiser import Denoiser, TextConditioning
from afterglow.neighbors.search import iter_chunks
from afterglow.planting.dataset import PlantedDataset
from afterglow.planting.runs import load_planted_set


class OptimalDenoiser(Denoiser):
    """E[eps | x_t] for x_0 drawn from images, each blurred by a Gaussian of standard deviation `width` a value (in [-1, 1]).

    p(x_t) is a mixture of N(sqrt(abar) x_i, v), v = abar width^2 + 1 - abar, weighted by softmax(-|x_t - sqrt(abar) x_i|^2 / 2v), and
    E[x_0 | x_t, i] = x_i + sqrt(abar) width^2 / v (x_t - sqrt(abar) x_i). With width 0 its samples are the images themselves: the
    positive control of every search for copies. pixels: uint8 [N, C, H, W].
    """

    def __init__(self, pixels: np.ndarray, width: float = 0.0) -> None:
        super().__init__()
        self.pixels, self.width = pixels, width
        self.unet = nn.Linear(1, 1)  # it has no network; a model says its precision and its device by it

    @classmethod
    def of_run(cls, run: Path) -> "OptimalDenoiser":
        """Of all that a run shows in an epoch, as often as it shows it: plants with their copies, regions with their fills."""
        planted = load_planted_set(run)
        samples = PlantedDataset(planted, 0)
        return cls(np.stack([samples.pixels(samples.key(index)) for index in range(samples.epoch_length)]))

    def shape(self) -> tuple[int, int, int]:
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    def forward(self, noisy: Tensor, timesteps: Tensor, condition: TextConditioning | None = None) -> Tensor:
        """All rows are at one time, as a sampler calls it; [B, C, H, W]."""
        abar = self.scheduler.alphas_cumprod.to(noisy.device)[timesteps[0]].double()
        x = noisy.double().flatten(1)
        variance = abar * self.width**2 + 1 - abar
        apart = torch.cat([torch.cdist(x, abar.sqrt() * part) for part in self._parts(x)], dim=1)
        weights = (-apart.square() / (2 * variance)).softmax(1)
        mean, start = torch.zeros_like(x), 0
        for part in self._parts(x):
            mean += weights[:, start : start + len(part)] @ part
            start += len(part)
        clean = mean + abar.sqrt() * self.width**2 / variance * (x - abar.sqrt() * mean)
        return ((x - abar.sqrt() * clean) / (1 - abar).sqrt()).view_as(noisy).to(noisy.dtype)

    def pipeline(self) -> DiffusionPipeline:
        raise ValueError("The optimal denoiser is its training set, and no network that could be exported.")

    def _parts(self, like: Tensor) -> Iterator[Tensor]:
        """The images in [-1, 1], [n, C * H * W] at a time."""
        for piece in iter_chunks(self.pixels):
            yield (torch.from_numpy(np.array(self.pixels[piece])).to(like) / 127.5 - 1).flatten(1)
