import numpy as np
import pytest
import torch

from afterglow.functional.localization import map_auc
from afterglow.measures import maps


def test_all_ones_has_an_auc_of_one_half(make_generations):
    generations = make_generations()
    assert map_auc(maps.all_ones(generations), generations.region).tolist() == [0.5] * 4


def test_centered_gaussian(make_generations):
    found = maps.centered_gaussian(make_generations(2, side=8))
    sigma = 7 / 4  # a quarter of the distance between the outer pixels
    for y in range(8):
        for x in range(8):
            assert found[1, y, x].item() == pytest.approx(np.exp(-((y - 3.5) ** 2 + (x - 3.5) ** 2) / (2 * sigma**2)), rel=1e-5)


def test_luminance_is_the_mean_of_the_channels(make_generations):
    generations = make_generations()
    np.testing.assert_allclose(maps.luminance(generations), generations.images.numpy().mean(1) / 255, rtol=1e-6)


def test_local_contrast_is_the_deviation_of_the_neighbors_that_exist(make_generations):
    generations = make_generations(2, side=5)
    light = generations.images.numpy().mean(1) / 255
    found = maps.local_contrast(generations)
    for row in range(2):
        for y in range(5):
            for x in range(5):
                window = light[row, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
                assert found[row, y, x].item() == pytest.approx(window.std(), rel=1e-4, abs=1e-6)


def test_flat_pieces_have_no_contrast_whatever_their_color(make_generations):
    levels = torch.arange(256, dtype=torch.uint8)
    flat = torch.stack([levels, levels.flip(0), (levels.int() * 37 % 256).to(torch.uint8)], 1)[..., None, None].expand(-1, -1, 4, 4)
    assert maps.local_contrast(make_generations(2, images=flat.contiguous())).abs().max() == 0


def test_what_collect_left_is_named_and_turned_so_that_high_means_copied(make_generations):
    values = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(0))
    names = ("curvature", "early_difference.last", "early_difference.summed", "patch_distance", "self_attention", "split_product")
    extras = {name: values + number for number, name in enumerate(names)} | {"split_product.cross": values + 6}
    generations = make_generations(2, extras=extras)
    assert torch.equal(maps.curvature_difference(generations), values.clamp(min=0))
    assert torch.equal(maps.curvature_difference(generations, relu=False), values)
    assert torch.equal(maps.curvature_difference(generations, of_score=True), (-values).clamp(min=0))
    assert torch.equal(maps.early_difference(generations, summed=False), values + 1)
    assert torch.equal(maps.early_difference(generations, summed=True), values + 2)
    assert torch.equal(maps.patch_nearness(generations), -(values + 3))
    assert torch.equal(maps.self_attention_concentration(generations), values + 4)
    assert torch.equal(maps.split_product(generations), values + 5)
    assert torch.equal(maps.split_product(generations, cross=True), values + 6)
