"""The leading indicator on errors whose answer is known."""

import math

import pytest
import torch

from afterglow.measures.denoising_ratio import advantage


def test_half_the_error_inside_is_ln_two_and_nothing_outside():
    heldout = torch.full((5, 3, 8, 8), 0.04)
    errors = torch.full((3, 8, 8), 0.04)
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[:, 2:6, 2:6] = True
    errors[:, 2:6, 2:6] = 0.01
    assert advantage(errors, heldout, mask).tolist() == pytest.approx([math.log(2)] * 3)
    assert advantage(errors, heldout, ~mask).tolist() == pytest.approx([0.0] * 3, abs=1e-6)


def test_a_mask_of_pixels_weighs_the_values_of_a_latent_by_its_share_of_them():
    errors, heldout = torch.tensor([[[1.0, 9.0]]]), torch.ones(1, 1, 1, 2)
    mask = torch.tensor([[[True, True, True, False]]]).expand(1, 2, 4)  # three quarters: all of one value, half of the other
    assert float(advantage(errors, heldout, mask)) == pytest.approx(-0.5 * math.log((1 + 9 / 2) / 1.5))


def test_held_out_images_are_averaged_in_the_same_mask():
    heldout = torch.stack([torch.full((1, 4, 4), 1.0), torch.full((1, 4, 4), 3.0)])
    everything = torch.ones(1, 4, 4, dtype=torch.bool)
    assert float(advantage(torch.ones(1, 4, 4), heldout, everything)) == pytest.approx(0.5 * math.log(2))
