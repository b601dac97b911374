"""Data unlearning by SISS (Alberti et al. 2025): a trained model is fine-tuned away from given images (docs/methods.md#unlearning)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from afterglow.errors import AfterglowError, require, require_positive
from afterglow.models.denoiser import Denoiser
from afterglow.models.noise import noise_levels, prediction_of, training_timesteps
from afterglow.planting.dataset import Batch, PlantedDataset

_DRAWS = 0x5155  # separates these draws from those of the training


@dataclass(frozen=True)
class UnlearningBudget:
    """How far the fine-tuning goes; steps, batch size and mixture are the authors' for CelebA-HQ.

    Args:
        steps: optimizer steps.
        batch_size: pairs of a kept and a forgotten image in each step.
        learning_rate: of AdamW.
        strength: norm of the gradient that forgets, in units of the norm of the gradient that keeps.
        mixture: fraction of the noisy images that begin at a forgotten image.
    """

    steps: int = 60
    batch_size: int = 64
    learning_rate: float = 5e-4
    strength: float = 0.3
    mixture: float = 0.5

    def __post_init__(self) -> None:
        require_positive(steps=self.steps, batch_size=self.batch_size)
        require("learning_rate", self.learning_rate, 0 < self.learning_rate < float("inf"), "a finite number above 0")
        require("strength", self.strength, 0 <= self.strength < float("inf"), "a finite number from 0")
        require("mixture", self.mixture, 0 < self.mixture < 1, "between 0 and 1")


def importance_weights(
    noisy: Tensor, kept: Tensor, forgotten: Tensor, signal: Tensor, spread: Tensor, mixture: float
) -> tuple[Tensor, Tensor]:
    """q(x_t | x) / q_mix(x_t) and q(x_t | a) / q_mix(x_t) with q_mix = (1 - mixture) q(. | x) + mixture q(. | a), both [B].

    Args:
        noisy: x_t, [B, C, h, w].
        kept: x, likewise.
        forgotten: a, likewise.
        signal: factor of the clean image in x_t, [B, 1, 1, 1].
        spread: standard deviation of the noise in x_t, likewise.
        mixture: as in UnlearningBudget.
    """
    to_kept, to_forgotten = (((noisy - signal * clean) / spread).double().square().flatten(1).sum(1) for clean in (kept, forgotten))
    log_odds = (to_kept - to_forgotten) / 2 + np.log(mixture / (1 - mixture))  # that x_t began at a
    return (-log_odds).sigmoid().to(noisy) / (1 - mixture), log_odds.sigmoid().to(noisy) / mixture


def siss_losses(model: Denoiser, kept: Batch, forgotten: Batch, mixture: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The two terms of SISS for B pairs of a kept and a forgotten image, each [B] in units of the network's target.

    Each pair shares one noisy image, drawn from the mixture; in expectation the terms are the denoising losses of the two images.
    """
    images = model.target_x0(kept), model.target_x0(forgotten)
    noise, integers, dropped = model.sample_noise_and_timesteps(kept.index, images[0])
    timesteps = training_timesteps(model.scheduler, integers)
    signal, spread = noise_levels(model.scheduler, timesteps, noise)
    from_forgotten = torch.rand(len(noise), generator=generator).to(noise.device) < mixture
    noisy = model.add_noise(torch.where(from_forgotten[:, None, None, None], images[1], images[0]), noise, timesteps)
    weights, losses = importance_weights(noisy, *images, signal, spread, mixture), []
    for clean, batch, weight in zip(images, (kept, forgotten), weights, strict=True):
        with torch.no_grad():
            condition = model.condition(["" if drop else text for text, drop in zip(batch.caption, dropped.tolist(), strict=True)])
        target = prediction_of(model.scheduler).target(clean, (noisy - signal * clean) / spread, signal, spread)
        losses.append(weight * (model(noisy, timesteps, condition) - target).square().flatten(1).mean(1))
    return losses[0], losses[1]


def subtract_scaled(kept: Sequence[Tensor], forgotten: Sequence[Tensor], strength: float) -> list[Tensor]:
    """g_x - s g_a, where s gives the second gradient `strength` times the norm of the first; of each parameter."""
    norms = [torch.stack([gradient.norm() for gradient in gradients]).norm() for gradients in (kept, forgotten)]
    scale = strength * norms[0] / norms[1].clamp(min=torch.finfo(norms[1].dtype).tiny)
    return [of_kept - scale * of_forgotten for of_kept, of_forgotten in zip(kept, forgotten, strict=True)]


@torch.enable_grad()
def unlearn(model: Denoiser, samples: PlantedDataset, forgotten: np.ndarray, budget: UnlearningBudget, seed: int = 0) -> None:
    """Fine-tune the network of a model, in place, away from some of the images that it was trained on; the text encoder stays.

    Args:
        model: the trained model.
        samples: its training set.
        forgotten: which samples of the first epoch to forget, bool [epoch length].
        budget: length and strength of the fine-tuning.
        seed: decides which images each step shows.

    Raises:
        AfterglowError: if nothing or everything is to be forgotten.
    """
    keys = samples.keys(range(samples.epoch_length))
    parts = keys[~forgotten], keys[forgotten]
    if not all(map(len, parts)):
        raise AfterglowError(
            f"{int(forgotten.sum())} of {len(keys)} training samples would be forgotten; at least one must be forgotten, and at least "
            "one must be kept."
        )
    parameters = [parameter for parameter in model.unet.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=budget.learning_rate)
    choice, generator = np.random.default_rng([seed, _DRAWS]), torch.Generator().manual_seed(seed)
    for step in tqdm(range(budget.steps), desc="unlearning", unit="step"):
        index = torch.arange(budget.batch_size) + step * budget.batch_size
        kept, away = (samples.shown(part[choice.integers(len(part), size=len(index))], index).to(model.device) for part in parts)
        losses = siss_losses(model, kept, away, budget.mixture, generator)
        keep, forget = (torch.autograd.grad(loss.mean(), parameters, materialize_grads=True) for loss in losses)
        for parameter, gradient in zip(parameters, subtract_scaled(keep, forget, budget.strength), strict=True):
            parameter.grad = gradient
        optimizer.step()
