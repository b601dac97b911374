import numpy as np
import pytest
import torch

from afterglow.errors import AfterglowError
from afterglow.mitigations.unlearning import UnlearningBudget, importance_weights, siss_losses, subtract_scaled, unlearn
from afterglow.models.denoiser import Denoiser
from afterglow.planting.dataset import Batch

SLOPE, CLEAN = 0.7, (0.4, -0.8)  # of the network below; the only pixel of a kept and of a forgotten image


class Line(Denoiser):
    """Predicts a multiple of its input, one value for each pixel; its images are 1 x 1."""

    def __init__(self, **training):
        super().__init__(noise_scheduler={"num_train_timesteps": 2, "beta_start": 0.3, "beta_end": 0.4}, **training)
        self.unet = torch.nn.Module()
        self.unet.register_parameter("slope", torch.nn.Parameter(torch.tensor(SLOPE)))

    def forward(self, noisy, timesteps, condition):
        return self.unet.slope * noisy


def batch(value: float, count: int) -> Batch:
    return Batch(torch.full((count, 1, 1, 1), value), ("",) * count, ("control",) * count, torch.arange(count))


@pytest.mark.parametrize("mixture", [0.5, 0.2])
def test_the_weights_are_those_of_the_densities(mixture):
    levels, points = torch.tensor([0.6, 0.8]).view(2, 1, 1, 1, 1), torch.linspace(-3, 3, 41).view(41, 1, 1, 1)
    kept, forgotten = (torch.full_like(points, value) for value in CLEAN)
    weights = importance_weights(points, kept, forgotten, *levels, mixture)
    densities = [torch.distributions.Normal(levels[0] * clean, levels[1]).log_prob(points).exp().flatten() for clean in (kept, forgotten)]
    both = (1 - mixture) * densities[0] + mixture * densities[1]
    for weight, density in zip(weights, densities, strict=True):
        torch.testing.assert_close(weight, density / both)


@pytest.mark.parametrize("mixture", [0.5, 0.2])
def test_in_expectation_the_terms_are_the_denoising_losses_of_the_two_images(mixture):
    model, count = Line(), 200_000
    with torch.no_grad():
        terms = siss_losses(model, *(batch(value, count) for value in CLEAN), mixture, torch.Generator().manual_seed(0))
    bars = model.scheduler.alphas_cumprod.tolist()
    for term, clean in zip(terms, CLEAN, strict=True):
        # E (slope (a clean + s eps) - eps)^2 over eps ~ N(0, 1), mean over the timesteps
        expected = np.mean([SLOPE**2 * bar * clean**2 + (SLOPE * (1 - bar) ** 0.5 - 1) ** 2 for bar in bars])
        assert abs(term.mean().item() - expected) < 4 * term.std().item() / count**0.5
        assert term.std().item() / count**0.5 < expected / 50  # else any value passes


def test_the_second_gradient_gets_a_fraction_of_the_norm_of_the_first():
    kept, forgotten = ([torch.randn(3, generator=g), torch.randn(2, 2, generator=g)] for g in [torch.Generator().manual_seed(0)] * 2)
    flat = [np.concatenate([gradient.numpy().ravel() for gradient in of]) for of in (kept, forgotten)]
    expected = flat[0] - 0.25 * np.linalg.norm(flat[0]) / np.linalg.norm(flat[1]) * flat[1]
    found = torch.cat([gradient.flatten() for gradient in subtract_scaled(kept, forgotten, 0.25)])
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)
    zero = [torch.zeros_like(gradient) for gradient in kept]
    assert all(map(torch.equal, subtract_scaled(kept, zero, 0.25), kept))


class Pair:
    """A training set whose first epoch shows two images once each."""

    epoch_length = 2

    def keys(self, numbers):
        return np.array(list(numbers))[:, None]

    def shown(self, keys, index):
        images = torch.tensor([CLEAN[number] for number in keys[:, 0]]).view(-1, 1, 1, 1)
        return Batch(images, ("",) * len(keys), ("control",) * len(keys), index)


def test_forgetting_turns_the_network_away_from_what_both_images_want():
    bars, slopes = Line().scheduler.alphas_cumprod.tolist(), []
    best = [np.mean([(1 - bar) ** 0.5 for bar in bars]) / np.mean([bar * clean**2 + 1 - bar for bar in bars]) for clean in CLEAN]
    assert min(best) > SLOPE  # either image alone wants a larger slope
    for strength in (0.0, 2.0):
        model = Line()
        unlearn(model, Pair(), np.array([False, True]), UnlearningBudget(10, 256, 1e-2, strength))
        slopes.append(model.unet.slope.item())
    assert slopes[1] < SLOPE - 0.05 < SLOPE + 0.05 < slopes[0]


@pytest.mark.parametrize("options", [{"steps": 0}, {"strength": -1}, {"mixture": 1.0}, {"learning_rate": 0}])
def test_a_budget_out_of_range_is_refused(options):
    with pytest.raises(AfterglowError, match=next(iter(options))):
        UnlearningBudget(**options)


@pytest.mark.parametrize("value", [False, True])
def test_nothing_and_everything_cannot_be_forgotten(value):
    with pytest.raises(AfterglowError, match="of 2 training samples"):
        unlearn(Line(), Pair(), np.array([value, value]), UnlearningBudget(1))
