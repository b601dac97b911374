"""The closed-form optimal denoiser of a finite set (Gu et al. 2023): it memorizes everything, without training."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from afterglow.errors import AfterglowError
from afterglow.models.conditioning import TextConditioning
from afterglow.models.denoiser import Denoiser
from afterglow.neighbors.search import iter_chunks
from afterglow.planting.dataset import PlantedDataset
from afterglow.planting.runs import load_planted_set


class OptimalDenoiser(Denoiser):
    """E[eps | x_t] for x_0 drawn from images, each blurred by a Gaussian.

    p(x_t) is a mixture of N(sqrt(abar) x_i, v), v = abar width^2 + 1 - abar, weighted by softmax(-|x_t - sqrt(abar) x_i|^2 / 2v), and
    E[x_0 | x_t, i] = x_i + sqrt(abar) width^2 / v (x_t - sqrt(abar) x_i). With width 0 its samples are the images themselves: the
    positive control of every search for copies.

    Args:
        pixels: the images, uint8 [N, C, H, W].
        width: standard deviation of the Gaussian, in units of values in [-1, 1].
    """

    def __init__(self, pixels: np.ndarray, width: float = 0.0) -> None:
        super().__init__()
        self.pixels, self.width = pixels, width
        self.unet = nn.Linear(1, 1, bias=False)  # stands for the network, whose weights define device and dtype
        nn.init.zeros_(self.unet.weight)

    @classmethod
    def of_run(cls, run: Path) -> "OptimalDenoiser":
        """The optimal denoiser of one epoch of a run: plants with their copies, regions with their backgrounds."""
        planted = load_planted_set(run)
        samples = PlantedDataset(planted, 0)
        return cls(samples.images(samples.keys(range(samples.epoch_length))).numpy())

    def latent_shape(self) -> tuple[int, int, int]:
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    def forward(self, noisy: Tensor, timesteps: Tensor, condition: TextConditioning | None = None) -> Tensor:
        """Predict eps [B, C, H, W]; all rows have the same timestep."""
        abar = self.scheduler.alphas_cumprod.to(noisy.device)[timesteps[0]].double()
        x = noisy.double().flatten(1)
        variance = abar * self.width**2 + 1 - abar
        distances = torch.cat([torch.cdist(x, abar.sqrt() * part) for part in self._parts(x)], dim=1)
        weights = (-distances.square() / (2 * variance)).softmax(1)
        mean, start = torch.zeros_like(x), 0
        for part in self._parts(x):
            mean += weights[:, start : start + len(part)] @ part
            start += len(part)
        clean = mean + abar.sqrt() * self.width**2 / variance * (x - abar.sqrt() * mean)
        return ((x - abar.sqrt() * clean) / (1 - abar).sqrt()).view_as(noisy).to(noisy.dtype)

    def pipeline(self) -> DiffusionPipeline:
        raise AfterglowError("The optimal denoiser has no network that could be exported.")

    def _parts(self, like: Tensor) -> Iterator[Tensor]:
        """The images in [-1, 1], a few [n, C * H * W] at a time."""
        for piece in iter_chunks(self.pixels):
            yield (torch.from_numpy(np.array(self.pixels[piece])).to(like) / 127.5 - 1).flatten(1)
