import numpy as np
import pytest
import torch

from afterglow.neighbors.clusters import first_of_each, image_of_row, near_gallery, nearest_clusters, tiles
from afterglow.neighbors.gallery import Gallery, Template


def random_images(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 3, 8, 8), dtype=np.uint8)


def slow_groups(image, rows, clusters, mask):
    """[(distance, group)] of every group by its nearest member, nearest first."""
    best = {}
    for row, cluster in zip(rows, clusters.tolist(), strict=True):
        apart = (((image.astype(float) - row) / 255) ** 2)[:, mask].mean() ** 0.5
        best[cluster] = min(best.get(cluster, 9.0), apart)
    return sorted((apart, cluster) for cluster, apart in best.items())


def test_the_nearest_groups_are_those_of_all_images():
    rows, images = random_images(60), random_images(5, seed=1)
    clusters = np.arange(60) // 3 + 100
    rows[:40] = images[0]  # near the first image, 40 images belong to 14 groups: it is asked again
    clusters[:40] = 7
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[:, 1:6, 2:7] = True
    found = nearest_clusters(images, rows, clusters, 6, mask=mask)
    for image in range(5):
        wanted = slow_groups(images[image], rows, clusters, mask[0].numpy())[:6]
        assert found.clusters[image].tolist() == [cluster for _, cluster in wanted]
        assert found.distances[image].tolist() == pytest.approx([apart for apart, _ in wanted], abs=1e-6)
        assert clusters[found.rows[image]].tolist() == found.clusters[image].tolist()
    assert found.rows[0, 0] == 0


def test_fewer_groups_than_asked_for():
    found = nearest_clusters(random_images(2, seed=1), random_images(4), np.array([3, 3, 5, 5]), 4)
    assert set(found.clusters[0, :2].tolist()) == {3, 5} and found.clusters[0, 2:].tolist() == [-1, -1]
    assert found.distances[0, 2:].isinf().all() and (found.rows[0, 2:] == -1).all()


def test_first_of_each():
    assert first_of_each(torch.tensor([[4, 4, 2, 4, 2, 1]])).tolist() == [[True, False, True, False, False, True]]


def test_it_agrees_with_the_gallerys_own_search_and_templates_stand_where_they_overlap():
    rows, hidden = random_images(30), random_images(1, seed=3)[0]
    left = np.zeros((1, 8, 8), bool)
    left[:, :, :4] = True
    gallery = Gallery(rows, np.arange(30) // 2, (Template(hidden, left, 77),))
    images = torch.from_numpy(np.concatenate([np.where(left, hidden, 9)[None].astype(np.uint8), random_images(3, seed=4)]))
    for tile, present in zip(tiles(8, 2), (True, False, True, False), strict=True):
        clusters, apart = gallery.nearest(images, tile, num_clusters=10)
        found = near_gallery(images, gallery, 10, mask=tile, alone=0)
        assert torch.equal(found.clusters, clusters) and torch.allclose(found.distances, apart, atol=1e-7)
        assert (found.rows[0, 0] == 30) == present
    whole = near_gallery(images, gallery, 10, mask=torch.ones(1, 8, 8, dtype=torch.bool), alone=1)
    assert whole.rows[0, 0] < 30 and whole.rows[0, 1] == 30  # half of the image is no whole image
    shown = image_of_row(gallery, 30)
    assert (shown[:, left[0]] == hidden[:, left[0]]).all() and (shown[:, ~left[0]] == 128).all()
    assert (image_of_row(gallery, 4) == rows[4]).all()


def test_tiles_cover_the_image_once():
    assert tiles(8, 4).shape == (16, 1, 8, 8) and (tiles(8, 4).sum(0) == 1).all()
    assert tiles(8, 2)[1, 0, :4, 4:].all() and tiles(8, 2)[1].sum() == 16
    with pytest.raises(ValueError, match="8 pixels does not divide into 3"):
        tiles(8, 3)
