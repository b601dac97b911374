import math

import numpy as np
import pytest
import torch

from afterglow.measures.guidance import local_magnitude, magnitude, resize, score_difference


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


@pytest.mark.parametrize(("num_steps", "used"), [(1, 1), (3, 3), (None, 5), (10, 5)])
def test_magnitude_is_the_mean_norm_of_the_stored_differences(make_generations, num_steps, used):
    generations = make_generations()
    delta = stored_delta(generations)
    expected = [sum(norm(delta[t, j]) for t in range(used)) / used for j in range(4)]
    torch.testing.assert_close(magnitude(generations, num_steps), torch.tensor(expected), rtol=1e-3, atol=0)


@pytest.mark.parametrize("num_steps", [1, None])
def test_local_magnitude_follows_its_formula_in_plain_loops(make_generations, num_steps):
    generations = make_generations()
    mask = torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(3))
    delta, steps = stored_delta(generations), num_steps or 5
    expected = [sum(norm(delta[t, j] * mask[j].numpy()) / mask[j].numpy().mean() for t in range(steps)) / steps for j in range(4)]
    torch.testing.assert_close(local_magnitude(generations, mask, num_steps), torch.tensor(expected), rtol=1e-5, atol=0)


@pytest.mark.parametrize("constant", [1e-3, 0.3, 1.0])
def test_under_a_constant_mask_local_magnitude_is_magnitude(make_generations, constant):
    signs = torch.randint(2, (5, 4, 3, 8, 8), generator=torch.Generator().manual_seed(1)).mul(2).sub(1)
    exact = make_generations(guidance=signs.half())  # +-1: without the rounding of halves
    rounded = make_generations()
    mask = torch.full((4, 8, 8), constant)
    torch.testing.assert_close(local_magnitude(exact, mask), magnitude(exact), rtol=2e-6, atol=0)
    torch.testing.assert_close(local_magnitude(rounded, mask), magnitude(rounded), rtol=1e-3, atol=0)


def test_a_brighter_mask_of_the_same_shape_changes_nothing(make_generations):
    generations, mask = make_generations(), torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(local_magnitude(generations, 0.01 * mask), local_magnitude(generations, mask), rtol=1e-5, atol=0)


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_a_binary_mask_of_area_a_over_an_even_difference_divides_by_the_root_of_a(make_generations, rows):
    generations = make_generations(guidance=torch.ones(5, 4, 3, 8, 8).half())
    mask = torch.zeros(4, 8, 8)
    mask[:, :rows] = 1
    area = rows / 8
    torch.testing.assert_close(local_magnitude(generations, mask), magnitude(generations) / area**0.5, rtol=1e-5, atol=0)


def test_a_coarse_mask_is_resized_to_the_grid_of_the_difference(make_generations):
    generations, coarse = make_generations(), torch.rand(4, 4, 4, generator=torch.Generator().manual_seed(4))
    fine = torch.tensor(np.stack([bilinear(grid, 8, 8) for grid in coarse.numpy()])).float()
    torch.testing.assert_close(local_magnitude(generations, coarse), local_magnitude(generations, fine), rtol=1e-5, atol=0)


@pytest.mark.parametrize(("before", "after"), [((4, 4), (8, 8)), ((3, 5), (7, 6)), ((8, 8), (8, 8)), ((8, 8), (4, 4))])
def test_resize_is_bilinear(before, after):
    maps = torch.rand(2, *before, generator=torch.Generator().manual_seed(5))
    expected = np.stack([bilinear(grid, *after) for grid in maps.numpy()])
    torch.testing.assert_close(resize(maps, after), torch.tensor(expected).float())


def test_score_difference_at_the_last_step_and_summed(make_generations):
    generations = make_generations()
    delta = stored_delta(generations)
    last, summed = np.zeros((4, 8, 8)), np.zeros((4, 8, 8))
    for j in range(4):
        for c in range(3):
            last[j] += delta[4, j, c] ** 2
            for t in range(5):
                summed[j] += delta[t, j, c] ** 2
    torch.testing.assert_close(score_difference(generations, summed=False), torch.tensor(last).float(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(score_difference(generations, summed=True), torch.tensor(summed).float(), rtol=1e-4, atol=1e-6)
