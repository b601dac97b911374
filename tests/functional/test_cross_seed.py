import pytest
import torch

from afterglow.functional.cross_seed import edge_consistency, edges, tiled_l2


def test_tiled_l2_of_one_changed_tile_is_seen_globally_and_not_locally():
    images = torch.full((2, 3, 8, 8), 100, dtype=torch.uint8)
    images[1, :, :2, :2] = 250
    assert tiled_l2(images).tolist() == pytest.approx([150 / 255] * 2)
    assert tiled_l2(images, local=True).tolist() == [0.0, 0.0]


def test_tiled_l2_is_a_mean_over_the_other_images():
    images = torch.tensor([0, 0, 255], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 1, 8, 8)
    assert tiled_l2(images).tolist() == pytest.approx([0.5, 0.5, 1.0])


def test_a_gray_image_has_the_edges_of_its_rgb_twin():
    gray = torch.randint(256, (2, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert torch.equal(edges(gray), edges(gray.expand(-1, 3, -1, -1)))


def test_edge_consistency_needs_more_than_half_of_the_images():
    maps = torch.tensor([[[1, 1, 0, 0]], [[1, 1, 0, 0]], [[1, 0, 1, 0]], [[1, 0, 0, 0]]]).bool()
    assert edge_consistency(maps).item() == 0.25
    assert edge_consistency(maps[:3]).item() == 0.5
