import math

import numpy as np
import pytest
import torch

from afterglow.functional.cross_seed import edges
from afterglow.measures.cross_seed import caption_edge_consistency, cross_seed_std, rows_by_caption, tiled_similarity


def asked(make_generations, **fields):
    """Three captions with 3, 2 and 1 generations of 8 by 8 pixels, in turns."""
    ids = torch.tensor([0, 1, 0, 2, 1, 0])
    return make_generations(6, plant_id=ids, caption=tuple(f"caption {i}" for i in ids.tolist()), **fields)


def test_rows_of_captions_with_several_samples_are_gathered(make_generations):
    assert [rows.tolist() for rows in rows_by_caption(asked(make_generations))] == [[0, 2, 5], [1, 4]]
    one_name = make_generations(4, plant_id=None, caption=("a", "b", "a", "a"))
    assert [rows.tolist() for rows in rows_by_caption(one_name)] == [[0, 2, 3]]


@pytest.mark.parametrize("local", [False, True])
def test_tiled_similarity_is_that_of_all_pairs_and_tiles(make_generations, local):
    generations = asked(make_generations)
    found = tiled_similarity(generations, local=local)
    images = generations.images.double().numpy() / 255
    for rows in ([0, 2, 5], [1, 4]):
        for row in rows:
            values = []
            for other in rows:
                if other == row:
                    continue
                tiles = [
                    math.sqrt(((images[row] - images[other])[:, y : y + 2, x : x + 2] ** 2).mean())
                    for y in range(0, 8, 2)
                    for x in range(0, 8, 2)
                ]
                assert len(tiles) == 16
                values.append(min(tiles) if local else max(tiles))
            assert found[row].item() == pytest.approx(-np.mean(values), rel=1e-5)
    assert found[3].isnan()


def test_one_tile_that_differs_vetoes_a_global_copy_and_not_a_local_one(make_generations):
    image = torch.full((2, 3, 8, 8), 100, dtype=torch.uint8)
    image[1, :, :2, :2] = 250
    generations = make_generations(2, images=image, plant_id=torch.zeros(2, dtype=torch.long), caption=("a", "a"))
    assert tiled_similarity(generations).tolist() == pytest.approx([-150 / 255] * 2)
    assert tiled_similarity(generations, local=True).tolist() == [0.0, 0.0]


def slow_edges(image):
    """Sobel by hand, borders repeated, magnitudes summed over channels."""
    light = np.pad(image.astype(float) / 255, ((0, 0), (1, 1), (1, 1)), mode="edge")
    total = np.zeros(image.shape[1:])
    for channel in light:
        for y in range(image.shape[1]):
            for x in range(image.shape[2]):
                w = channel[y : y + 3, x : x + 3]
                across = w[0, 2] + 2 * w[1, 2] + w[2, 2] - w[0, 0] - 2 * w[1, 0] - w[2, 0]
                down = w[2, 0] + 2 * w[2, 1] + w[2, 2] - w[0, 0] - 2 * w[0, 1] - w[0, 2]
                total[y, x] += math.hypot(across, down)
    return total > 1.5


def test_edges_and_their_consistency_are_those_by_hand(make_generations):
    smooth = (torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(3)) * 120).repeat_interleave(2, -1).repeat_interleave(2, -2)
    generations = asked(make_generations, images=smooth.to(torch.uint8))
    drawn = np.stack([slow_edges(image) for image in generations.images.numpy()])
    assert 0.05 < drawn.mean() < 0.95
    np.testing.assert_array_equal(edges(generations.images).numpy(), drawn)
    found = caption_edge_consistency(generations)
    for rows in ([0, 2, 5], [1, 4]):
        assert found[rows].tolist() == pytest.approx([(drawn[rows].mean(0) > 0.5).mean()] * len(rows))
    assert found[3].isnan()


def test_cross_seed_std_is_minus_the_spread_of_the_seeds(make_generations):
    generations = asked(make_generations)
    found = cross_seed_std(generations)
    spread = (generations.images[[0, 2, 5]].double() / 255).numpy().std(axis=0, ddof=1).mean(0)
    np.testing.assert_allclose(found[2], -spread, rtol=1e-5)
    assert (found[3] == 0).all()
    same = asked(make_generations, images=generations.images[:1].expand(6, -1, -1, -1))
    assert (cross_seed_std(same) == 0).all()
