import numpy as np
import pytest
import torch

from afterglow.datasets.images import CaptionedImages
from afterglow.neighbors.clusters import cluster_images
from afterglow.neighbors.gallery import Gallery, Template, _first_of_each, nearest_clusters, tile_masks


def slow_distance(a: np.ndarray, b: np.ndarray, mask: np.ndarray) -> float:
    """uint8 [C, H, W] twice, bool [H, W]: the formula, value by value."""
    values = [((float(a[c, y, x]) - float(b[c, y, x])) / 255) ** 2 for c in range(len(a)) for y, x in zip(*np.nonzero(mask), strict=True)]
    return (sum(values) / len(values)) ** 0.5


def test_gallery_nearest_equals_all_pairs(images: CaptionedImages) -> None:
    clusters = cluster_images(images.pixels, images.families)
    mask = np.zeros((8, 8), bool)
    mask[1:5, 2:8] = True
    exclude = {int(clusters[0]), int(clusters[7])}
    found, distances, _ = Gallery(images.pixels, clusters).nearest(
        torch.from_numpy(images.pixels[:3]), torch.from_numpy(mask[None]), [exclude] * 3, num_clusters=12
    )
    for image in range(3):
        best: dict[int, float] = {}
        for row, cluster in enumerate(clusters.tolist()):
            if cluster not in exclude:
                best[cluster] = min(best.get(cluster, 9.0), slow_distance(images.pixels[image], images.pixels[row], mask))
        wanted = sorted(best, key=best.__getitem__)[:12]
        assert found[image].tolist() == wanted
        assert distances[image].tolist() == pytest.approx([best[cluster] for cluster in wanted], abs=1e-6)


def test_gallery_nearest_with_few_clusters_pads_and_puts_a_copy_at_zero(images: CaptionedImages) -> None:
    gallery = Gallery(images.pixels[:4], np.arange(4))
    clusters, distances, _ = gallery.nearest(torch.from_numpy(images.pixels[2:3]), torch.ones(1, 8, 8, dtype=torch.bool))
    assert clusters.shape == distances.shape == (1, 50) and clusters[0, 0] == 2 and distances[0, 0] == 0
    assert (clusters[0, :4] >= 0).all() and (clusters[0, 4:] == -1).all() and distances[0, 4:].isinf().all()


def test_gallery_nearest_counts_a_template_that_covers_half_of_the_mask() -> None:
    generator = np.random.default_rng(3)
    pixels = generator.integers(0, 256, (5, 3, 8, 8), dtype=np.uint8)
    shown = np.zeros((1, 8, 8), bool)
    shown[:, :, :4] = True
    gallery = Gallery(pixels[:4], np.arange(4), (Template(pixels[4], shown, 77),))
    image = torch.from_numpy(np.where(shown, pixels[4], 0).astype(np.uint8))[None]
    for left, takes_part in ((0, True), (2, True), (3, False)):  # columns left..left+4: overlaps of 4, 2 and 1 columns
        mask = torch.zeros(1, 8, 8, dtype=torch.bool)
        mask[:, :, left : left + 4] = True
        clusters, distances, _ = gallery.nearest(image, mask)
        assert (77 in clusters[0].tolist()) == takes_part
        assert not takes_part or (clusters[0, 0] == 77 and distances[0, 0] == 0)
    assert 77 not in gallery.nearest(image, torch.from_numpy(shown), [{77}])[0][0].tolist()


def test_nearest_images_equals_all_pairs(images: CaptionedImages) -> None:
    image = np.clip(images.pixels[40].astype(int) + np.random.default_rng(1).integers(-9, 10, (3, 8, 8)), 0, 255).astype(np.uint8)
    everything = np.ones((8, 8), bool)
    wanted = min(range(len(images)), key=lambda row: slow_distance(image, images.pixels[row], everything))
    asked = torch.from_numpy(np.stack([images.pixels[7], image]))
    found, clusters = Gallery(images.pixels, np.arange(len(images)) + 100).nearest_images(asked)
    assert (
        clusters[1] == 100 + wanted and torch.equal(found[1], torch.from_numpy(images.pixels[wanted])) and torch.equal(found[0], asked[0])
    )


def random_images(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 3, 8, 8), dtype=np.uint8)


def slow_clusters(image, rows, clusters, mask):
    """[(distance, group)] of every group by its nearest member, nearest first."""
    best = {}
    for row, cluster in zip(rows, clusters.tolist(), strict=True):
        apart = (((image.astype(float) - row) / 255) ** 2)[:, mask].mean() ** 0.5
        best[cluster] = min(best.get(cluster, 9.0), apart)
    return sorted((apart, cluster) for cluster, apart in best.items())


def test_nearest_clusters_equals_all_images():
    rows, images = random_images(60), random_images(5, seed=1)
    clusters = np.arange(60) // 3 + 100
    rows[:40] = images[0]  # near the first image, 40 images belong to 14 groups: it is asked again
    clusters[:40] = 7
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[:, 1:6, 2:7] = True
    found = nearest_clusters(images, rows, clusters, 6, mask=mask)
    for image in range(5):
        wanted = slow_clusters(images[image], rows, clusters, mask[0].numpy())[:6]
        assert found.clusters[image].tolist() == [cluster for _, cluster in wanted]
        assert found.distances[image].tolist() == pytest.approx([apart for apart, _ in wanted], abs=1e-6)
        assert clusters[found.rows[image]].tolist() == found.clusters[image].tolist()
    assert found.rows[0, 0] == 0


def test_nearest_clusters_with_few_clusters_pads():
    found = nearest_clusters(random_images(2, seed=1), random_images(4), np.array([3, 3, 5, 5]), 4)
    assert set(found.clusters[0, :2].tolist()) == {3, 5} and found.clusters[0, 2:].tolist() == [-1, -1]
    assert found.distances[0, 2:].isinf().all() and (found.rows[0, 2:] == -1).all()


def test_first_of_each_marks_first_occurrences():
    assert _first_of_each(torch.tensor([[4, 4, 2, 4, 2, 1]])).tolist() == [[True, False, True, False, False, True]]


def test_gallery_nearest_in_tiles_includes_templates_and_names_their_rows():
    rows, hidden = random_images(30), random_images(1, seed=3)[0]
    left = np.zeros((1, 8, 8), bool)
    left[:, :, :4] = True
    gallery = Gallery(rows, np.arange(30) // 2, (Template(hidden, left, 77),))
    images = torch.from_numpy(np.concatenate([np.where(left, hidden, 9)[None].astype(np.uint8), random_images(3, seed=4)]))
    for tile, present in zip(tile_masks(8, 2), (True, False, True, False), strict=True):
        result = gallery.nearest(images, tile, num_clusters=10)
        for row, image in enumerate(images.numpy()):
            expected = slow_clusters(image, rows, gallery.clusters, tile[0].numpy())
            inside = np.broadcast_to(tile.numpy(), image.shape)
            template = (((image.astype(float) - hidden)[inside] / 255) ** 2).mean() ** 0.5
            expected = sorted([*expected, (template, 77)] if present else expected)[:10]
            assert result.clusters[row].tolist() == [cluster for _, cluster in expected]
            assert result.distances[row].tolist() == pytest.approx([distance for distance, _ in expected], abs=1e-6)
        assert (result.rows[0, 0] == 30) == present
    whole = gallery.nearest(images, torch.ones(1, 8, 8, dtype=torch.bool), num_clusters=10, image_first=True)
    assert whole.rows[0, 0] < 30 and whole.rows[0, 1] == 30  # the nearest entry is an image, though the template is nearer
    shown = gallery.image(30)
    assert (shown[:, left[0]] == hidden[:, left[0]]).all() and (shown[:, ~left[0]] == 128).all()
    assert (gallery.image(4) == rows[4]).all()


def test_gallery_nearest_with_a_mask_per_image_equals_one_search_per_image():
    generator = np.random.default_rng(5)
    gallery, images = Gallery(random_images(40), np.arange(40) // 2), torch.from_numpy(random_images(6, seed=2))
    masks = torch.from_numpy(generator.random((6, 1, 8, 8)) < 0.5)
    masks[4], masks[5] = masks[1], True
    exclude = [{row, 19 - row} for row in range(6)]
    result = gallery.nearest(images, masks, exclude, num_clusters=7)
    for row in range(6):
        alone = gallery.nearest(images[row : row + 1], masks[row], exclude[row : row + 1], num_clusters=7)
        assert all(torch.equal(values[row], one[0]) for values, one in zip(result, alone, strict=True))
        inside = masks[row, 0].numpy()
        expected = [
            pair for pair in slow_clusters(images[row].numpy(), gallery.pixels, gallery.clusters, inside) if pair[1] not in exclude[row]
        ]
        assert result.clusters[row].tolist() == [cluster for _, cluster in expected[:7]]


@pytest.mark.gpu
def test_gallery_nearest_on_a_gpu_equals_the_cpu():
    pixels, images = random_images(64), torch.from_numpy(random_images(8, seed=1))
    masks = torch.from_numpy(np.random.default_rng(1).random((8, 1, 8, 8)) < 0.5)
    here, there = (Gallery(pixels, np.arange(64), device=device).nearest(images, masks, num_clusters=9) for device in ("cpu", "cuda"))
    assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))


def test_tile_masks_cover_the_image_once():
    assert tile_masks(8, 4).shape == (16, 1, 8, 8) and (tile_masks(8, 4).sum(0) == 1).all()
    assert tile_masks(8, 2)[1, 0, :4, 4:].all() and tile_masks(8, 2)[1].sum() == 16
    with pytest.raises(ValueError, match="side of 8 pixels does not divide into 3"):
        tile_masks(8, 3)
