import math

import numpy as np
import pytest
import torch

from afterglow.functional.guidance import denoising_log_ratio, guidance_norm, local_detection
from afterglow.functional.pixels import resize


def stored_delta(generations):
    """Delta as it was kept, float64 [T, B, C, h, w]."""
    return generations.guidance.double().numpy() * generations.guidance_rms.double().numpy()[..., None, None, None]


def norm(values):
    return math.sqrt(sum(value * value for value in np.ravel(values).tolist()))


def bilinear(grid, height, width):
    """The textbook's: pixel centers at half integers, the border repeated."""
    rows, columns = grid.shape
    out = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            y = min(max((i + 0.5) * rows / height - 0.5, 0), rows - 1)
            x = min(max((j + 0.5) * columns / width - 0.5, 0), columns - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
            dy, dx = y - top, x - left
            upper = (1 - dx) * grid[top, left] + dx * grid[top, right]
            lower = (1 - dx) * grid[bottom, left] + dx * grid[bottom, right]
            out[i, j] = (1 - dy) * upper + dy * lower
    return out


def ld(generations, mask, num_steps=None):
    return local_detection(generations.guidance[:num_steps], generations.guidance_rms[:num_steps], mask)


def norm_of(generations):
    return guidance_norm(generations.guidance_rms, generations.guidance[0, 0].numel())


@pytest.mark.parametrize("num_steps", [1, None])
def test_local_detection_follows_its_formula_in_plain_loops(make_generations, num_steps):
    generations = make_generations()
    mask = torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(3))
    delta, steps = stored_delta(generations), num_steps or 5
    expected = [sum(norm(delta[t, j] * mask[j].numpy()) / mask[j].numpy().mean() for t in range(steps)) / steps for j in range(4)]
    torch.testing.assert_close(ld(generations, mask, num_steps), torch.tensor(expected), rtol=1e-5, atol=0)


@pytest.mark.parametrize("constant", [1e-3, 0.3, 1.0])
def test_local_detection_under_a_constant_mask_is_the_guidance_norm(make_generations, constant):
    signs = torch.randint(2, (5, 4, 3, 8, 8), generator=torch.Generator().manual_seed(1)).mul(2).sub(1)
    exact = make_generations(guidance=signs.half())  # +-1: without the rounding of halves
    rounded = make_generations()
    mask = torch.full((4, 8, 8), constant)
    torch.testing.assert_close(ld(exact, mask), norm_of(exact), rtol=2e-6, atol=0)
    torch.testing.assert_close(ld(rounded, mask), norm_of(rounded), rtol=1e-3, atol=0)


def test_a_brighter_mask_of_the_same_shape_changes_nothing(make_generations):
    generations, mask = make_generations(), torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(ld(generations, 0.01 * mask), ld(generations, mask), rtol=1e-5, atol=0)


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_a_binary_mask_of_area_a_over_an_even_difference_divides_by_the_root_of_a(make_generations, rows):
    generations = make_generations(guidance=torch.ones(5, 4, 3, 8, 8).half())
    mask = torch.zeros(4, 8, 8)
    mask[:, :rows] = 1
    area = rows / 8
    torch.testing.assert_close(ld(generations, mask), norm_of(generations) / area**0.5, rtol=1e-5, atol=0)


def test_a_coarse_mask_is_resized_to_the_grid_of_the_difference(make_generations):
    generations, coarse = make_generations(), torch.rand(4, 4, 4, generator=torch.Generator().manual_seed(4))
    fine = torch.tensor(np.stack([bilinear(grid, 8, 8) for grid in coarse.numpy()])).float()
    torch.testing.assert_close(ld(generations, coarse), ld(generations, fine), rtol=1e-5, atol=0)


@pytest.mark.parametrize(("before", "after"), [((4, 4), (8, 8)), ((3, 5), (7, 6)), ((8, 8), (8, 8)), ((8, 8), (4, 4))])
def test_resize_is_bilinear(before, after):
    maps = torch.rand(2, *before, generator=torch.Generator().manual_seed(5))
    expected = np.stack([bilinear(grid, *after) for grid in maps.numpy()])
    torch.testing.assert_close(resize(maps, after), torch.tensor(expected).float())


def test_half_the_error_inside_is_ln_two_and_nothing_outside():
    heldout = torch.full((5, 3, 8, 8), 0.04)
    errors = torch.full((3, 8, 8), 0.04)
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[:, 2:6, 2:6] = True
    errors[:, 2:6, 2:6] = 0.01
    assert denoising_log_ratio(errors, heldout, mask).tolist() == pytest.approx([math.log(2)] * 3)
    assert denoising_log_ratio(errors, heldout, ~mask).tolist() == pytest.approx([0.0] * 3, abs=1e-6)


def test_a_mask_of_pixels_weighs_the_values_of_a_latent_by_its_share_of_them():
    errors, heldout = torch.tensor([[[1.0, 9.0]]]), torch.ones(1, 1, 1, 2)
    mask = torch.tensor([[[True, True, True, False]]]).expand(1, 2, 4)  # three quarters: all of one value, half of the other
    assert float(denoising_log_ratio(errors, heldout, mask)) == pytest.approx(-0.5 * math.log((1 + 9 / 2) / 1.5))


def test_held_out_images_are_averaged_in_the_same_mask():
    heldout = torch.stack([torch.full((1, 4, 4), 1.0), torch.full((1, 4, 4), 3.0)])
    everything = torch.ones(1, 4, 4, dtype=torch.bool)
    assert float(denoising_log_ratio(torch.ones(1, 4, 4), heldout, everything)) == pytest.approx(0.5 * math.log(2))
