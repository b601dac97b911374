import numpy as np
import pytest
import torch
from scipy.stats import truncnorm

from afterglow.errors import AfterglowError
from afterglow.mitigations.training import TimestepSampling
from afterglow.planting.dataset import Batch

EVERY = torch.arange(1000)


@pytest.mark.parametrize(("mean", "std"), [(0.25, 0.25), (0.9, 0.1)])
def test_timesteps_follow_the_truncated_normal_distribution(small_captioned, mean, std):
    mapped = TimestepSampling(mean, std).change_timesteps(small_captioned(), EVERY).numpy()
    expected = truncnorm(-mean / std, (1 - mean) / std, mean, std)
    for level in (0.1, 0.3, 0.5, 0.7, 0.9):
        assert (mapped < 1000 * level).mean() == pytest.approx(expected.cdf(level), abs=0.002)
    assert (np.diff(mapped) >= 0).all() and mapped.min() >= 0 and mapped.max() <= 999


def test_a_wide_distribution_is_the_uniform_one(small_captioned):
    assert (TimestepSampling(0.5, 1e4).change_timesteps(small_captioned(), EVERY) - EVERY).abs().max() <= 1


def test_a_training_step_has_the_mapped_timesteps_and_the_same_noise(small_captioned):
    model, images = small_captioned(), torch.zeros(3, 3, 8, 8)
    batch = Batch(image=images, caption=("a", "b", "c"), kind=("control",) * 3, index=torch.arange(3))
    usual, changed = model.forward_batch(batch), model.forward_batch(batch, [TimestepSampling()])
    assert torch.equal(changed.timesteps, TimestepSampling().change_timesteps(model, usual.timesteps))
    assert not torch.equal(changed.timesteps, usual.timesteps) and changed.captions == usual.captions
    sigma = [(1 - model.scheduler.alphas_cumprod[step.timesteps]).sqrt()[:, None, None, None] for step in (usual, changed)]
    torch.testing.assert_close(usual.noisy / sigma[0], changed.noisy / sigma[1])  # of gray images nothing but the noise is left


@pytest.mark.parametrize("options", [{"std": 0.0}, {"mean": 1.5}])
def test_impossible_distributions_are_refused(options):
    with pytest.raises(AfterglowError, match="TimestepSampling"):
        TimestepSampling(**options)
