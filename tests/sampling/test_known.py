"""Outpainting against closed forms: what a Gaussian's unknown part is, given its known part."""

from dataclasses import replace
from itertools import pairwise

import diffusers
import numpy as np
import pytest
import torch

from afterglow.models.denoiser import Denoiser
from afterglow.sampling.known import KnownPixels
from afterglow.sampling.loop import Sampler, generate, sample_steps
from afterglow.sampling.recorder import CaptureConfig

SAMPLER = Sampler(steps=10)
PLAIN = CaptureConfig(guidance=False, tokens=False, end_steps=())


class Gaussian(Denoiser):
    """The exact denoiser of pairs of pixels drawn from N(0, [[1, rho], [rho, 1]])."""

    rho = 0.8

    def __init__(self) -> None:
        super().__init__({"beta_schedule": "squaredcos_cap_v2", "clip_sample": False})
        self.unet = torch.nn.Linear(1, 1)  # for device and data type

    def latent_shape(self):
        return 1, 1, 2

    def forward(self, noisy, timesteps, condition=None):
        abar = self.scheduler.alphas_cumprod[timesteps[0]].double()
        covariance = torch.tensor([[1, self.rho], [self.rho, 1]], dtype=torch.double)
        clean = abar.sqrt() * noisy.double().flatten(1) @ (abar * covariance + (1 - abar) * torch.eye(2).double()).inverse() @ covariance
        return ((noisy.double().flatten(1) - abar.sqrt() * clean) / (1 - abar).sqrt()).view_as(noisy).to(noisy.dtype)


def completed(value, resamplings, count=600):
    """The second pixels of `count` pairs, the first of which has a value."""
    model = Gaussian()
    known = KnownPixels(torch.full((count, 1, 1, 2), value), torch.tensor([True, False]).expand(count, 1, 1, 2), resamplings)
    setup = replace(SAMPLER.setup(model, [""] * count, range(count)), known=known)
    for _, sample in sample_steps(model, setup):
        state = sample
    assert (state[..., 0] == value).all()
    return state[..., 1].flatten()


def moments(value, resamplings):
    """Mean and standard deviation of the unknown pixel: with an exact denoiser every operation is affine, so that both are recursions."""
    scheduler = SAMPLER.build(Gaussian().scheduler)
    levels = [*scheduler.alphas_cumprod[scheduler.timesteps].double().tolist(), 1.0]
    sigma, mean, cov = np.array([[1, Gaussian.rho], [Gaussian.rho, 1]]), np.zeros(2), np.eye(2)
    for abar, after in pairwise(levels):
        clean = np.sqrt(abar) * sigma @ np.linalg.inv(abar * sigma + (1 - abar) * np.eye(2))
        noise = (np.eye(2) - np.sqrt(abar) * clean) / np.sqrt(1 - abar)
        step = np.sqrt(after) * clean + np.sqrt(1 - after) * noise
        for turn in range(resamplings):
            if turn:
                kept = abar / after
                mean, cov = np.sqrt(kept) * mean, kept * cov + (1 - kept) * np.eye(2)
            mean[0], cov[0, :], cov[:, 0], cov[0, 0] = np.sqrt(abar) * value, 0, 0, 1 - abar
            mean, cov = step @ mean, step @ cov @ step.T
    return mean[1], np.sqrt(cov[1, 1])


@pytest.mark.parametrize("resamplings", [1, 5])
def test_completions_of_a_gaussian_have_the_moments_of_the_recursion(resamplings):
    mean, deviation = moments(1.5, resamplings)
    found = completed(1.5, resamplings)
    assert found.mean().item() == pytest.approx(mean, abs=4 * deviation / 600**0.5)
    assert found.std().item() == pytest.approx(deviation, rel=0.12)


def test_with_more_resamplings_the_completion_approaches_the_conditional_mean():
    """Its mean is rho x; replacement alone keeps only a part of the correlation (docs/methods.md#outpainting)."""
    errors = [abs(moments(1.5, resamplings)[0] - Gaussian.rho * 1.5) for resamplings in (1, 2, 5, 20, 200)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.05 < errors[0]


def test_known_pixels_are_exact_and_images_depend_on_no_other_row(small_plain):
    model = small_plain()
    images = torch.randint(256, (3, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    mask = torch.zeros(3, 1, 8, 8, dtype=torch.bool)
    mask[:, :, :, :4] = True
    known = KnownPixels(images.float() / 127.5 - 1, mask, 3)
    sampler = Sampler(steps=3)
    together = generate(model, [""] * 3, [0, 1, 2], sampler, PLAIN, known=known).images
    apart = generate(model, [""] * 3, [0, 1, 2], sampler, PLAIN, known=known, batch_size=1).images
    free = generate(model, [""] * 3, [0, 1, 2], sampler, PLAIN).images
    assert torch.equal(together, apart)
    assert torch.equal(together[..., :4], images[..., :4])
    assert not torch.equal(together[..., 4:], free[..., 4:])
    nothing = KnownPixels(known.images, torch.zeros_like(mask))
    assert torch.equal(generate(model, [""] * 3, [0, 1, 2], sampler, PLAIN, known=nothing).images, free)


def test_a_repeated_step_has_the_noise_of_its_level():
    """A state at level t' of x_0 = 0 that goes back to level t has the variance 1 - abar_t."""
    scheduler = diffusers.DDIMScheduler(timestep_spacing="trailing")
    scheduler.set_timesteps(10)
    generator = torch.Generator().manual_seed(0)
    shape = (200, 1, 8, 8)
    for index in (0, 5, 9):
        after = scheduler.alphas_cumprod[scheduler.timesteps[index + 1]] if index < 9 else 1.0
        state = torch.randn(shape, generator=generator) * (1 - after) ** 0.5
        known = KnownPixels(torch.zeros(shape), torch.zeros(shape, dtype=torch.bool))
        back = known.insert(state, scheduler, index, lambda: torch.randn(shape, generator=generator), back=True)
        expected = 1 - scheduler.alphas_cumprod[scheduler.timesteps[index]]
        assert np.isclose(back.var().item(), expected, rtol=0.05)


def test_what_cannot_be_outpainted_is_refused(small_plain):
    known = KnownPixels(torch.zeros(1, 3, 8, 8), torch.ones(1, 1, 8, 8, dtype=torch.bool), 2)
    with pytest.raises(ValueError, match="remembers earlier steps: resamplings must be 1"):
        generate(small_plain(), [""], [0], Sampler("DPMSolverMultistepScheduler", 3), PLAIN, known=known)
    with pytest.raises(ValueError, match="resamplings must be at least 1"):
        KnownPixels(known.images, known.mask, 0)
