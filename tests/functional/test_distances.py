import numpy as np
import pytest
import torch

from afterglow.functional.distances import (
    calibrated_l2,
    masked_correlation,
    masked_rms,
    masked_std,
    mean_finite,
    middle_contrast,
    nn_ratio,
)


def random_images(count, *, seed):
    return torch.rand(count, 3, 5, 6, generator=torch.Generator().manual_seed(seed))


def random_mask(count):
    return torch.rand(count, 1, 5, 6, generator=torch.Generator().manual_seed(9)) < 0.4


def test_masked_rms_agrees_with_a_loop_over_pixels():
    a, b, mask = random_images(4, seed=1), random_images(4, seed=2), random_mask(4)
    for row, found in enumerate(masked_rms(a, b, mask)):
        inside = mask[row, 0].numpy()
        squares = (a[row].numpy() - b[row].numpy())[:, inside] ** 2
        assert float(found) == pytest.approx(np.sqrt(squares.mean()), rel=1e-6)


def test_masked_rms_broadcasts_one_image_over_a_batch():
    a, b, mask = random_images(3, seed=1), random_images(1, seed=2)[0], random_mask(1)[0]
    assert torch.equal(masked_rms(a, b, mask), torch.stack([masked_rms(image, b, mask) for image in a]))


def test_calibrated_l2_ignores_missing_neighbors():
    others = torch.tensor([[0.2, 0.4, torch.inf], [0.3, 0.3, 0.3]])
    assert mean_finite(others).tolist() == pytest.approx([0.3, 0.3])
    assert calibrated_l2(torch.tensor([0.15, 0.3]), others).tolist() == pytest.approx([1.0, 2.0])
    assert mean_finite(torch.full((1, 2), torch.inf)).isnan().all()


def test_nn_ratio_is_undefined_below_one_gray_level_and_without_neighbors():
    found = nn_ratio(torch.tensor([0.1, 0.003, 0.003, 0.1]), torch.tensor([0.3, 0.003, 0.3, torch.inf]))
    assert found.isnan().tolist() == [False, True, False, True] and found[0] == pytest.approx(1 / 3)


def test_masked_correlation_agrees_with_numpy():
    a, b, mask = random_images(3, seed=3), random_images(3, seed=4), random_mask(3)
    for row, found in enumerate(masked_correlation(a, b, mask)):
        inside = mask[row, 0].numpy()
        each = [np.corrcoef(a[row, c].numpy()[inside], b[row, c].numpy()[inside])[0, 1] for c in range(3)]
        assert float(found) == pytest.approx(np.mean(each), abs=1e-6)


def test_masked_correlation_of_a_constant_channel_is_zero():
    a = torch.stack([torch.zeros(5, 6), torch.arange(30.0).view(5, 6)])[None]
    assert masked_correlation(a, a, torch.ones(1, 1, 5, 6, dtype=torch.bool)).item() == pytest.approx(0.5)


def test_masked_std_agrees_with_numpy():
    images, mask = random_images(5, seed=6), random_mask(1)[0]
    deviations = images.numpy().std(axis=0, ddof=1)[:, mask[0].numpy()]
    assert float(masked_std(images, mask)) == pytest.approx(np.sqrt((deviations**2).mean()), rel=1e-5)
    assert float(masked_std(images[:1], mask)) == 0


def test_middle_contrast_agrees_with_a_loop_and_is_0_if_half_of_the_pixels_have_one_color():
    images, mask = random_images(4, seed=1), random_mask(4)
    for row, found in enumerate(middle_contrast(images, mask)):
        pixels = images[row].numpy()[:, mask[row, 0].numpy()]
        apart = [np.sqrt(np.mean((pixel - np.percentile(pixels, 50, axis=1, method="lower")) ** 2)) for pixel in pixels.T]
        assert abs(sorted(apart)[(len(apart) - 1) // 2] - found.item()) < 1e-6
    images[:, :, :, :3] = 0.5
    half = middle_contrast(images, torch.ones(1, 5, 6, dtype=torch.bool))
    images[:, :, 0, 0] = 0.9
    assert (half == 0).all() and (middle_contrast(images, torch.ones(1, 5, 6, dtype=torch.bool)) > 0).all()
