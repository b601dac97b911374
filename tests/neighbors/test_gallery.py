import numpy as np
import pytest
import torch

from afterglow.datasets.images import CaptionedImages
from afterglow.neighbors.gallery import TWIN_DISTANCE, Gallery, Template, cluster_images, correlated_pairs, distance, to_unit


def slow_distance(a: np.ndarray, b: np.ndarray, mask: np.ndarray) -> float:
    """uint8 [C, H, W] twice, bool [H, W]: the formula, value by value."""
    values = [((float(a[c, y, x]) - float(b[c, y, x])) / 255) ** 2 for c in range(len(a)) for y, x in zip(*np.nonzero(mask), strict=True)]
    return (sum(values) / len(values)) ** 0.5


def all_distances(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    flat = pixels[:, :, mask].reshape(len(pixels), -1).astype(np.float64) / 255
    return np.stack([np.sqrt(((flat - row) ** 2).mean(axis=1)) for row in flat])


def slow_groups(pixels: np.ndarray, families: np.ndarray) -> list[int]:
    """All pairs and union-find."""
    parent = list(range(len(pixels)))

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    near = all_distances(pixels, np.ones(pixels.shape[-2:], bool)) < TWIN_DISTANCE
    for i, j in zip(*np.nonzero(near), strict=True):
        parent[root(int(i))] = root(int(j))
    for i in range(len(pixels)):
        for j in range(i):
            if families[i] == families[j] >= 0:
                parent[root(i)] = root(j)
    return [root(i) for i in range(len(pixels))]


def same_partition(a: list[int], b: list[int]) -> bool:
    return len(set(zip(a, b, strict=True))) == len(set(a)) == len(set(b))


def test_distance_is_the_formula_and_blind_outside_the_mask() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.integers(0, 256, (2, 3, 6, 6), dtype=np.uint8)
    mask = generator.random((6, 6)) < 0.4
    found = float(distance(to_unit(a), to_unit(b), torch.from_numpy(mask[None])))
    assert found == pytest.approx(slow_distance(a, b, mask), rel=1e-5)
    changed = np.where(mask, b, 255 - b)
    assert float(distance(to_unit(a), to_unit(changed), torch.from_numpy(mask[None]))) == found
    assert float(distance(torch.zeros(3, 4, 4), torch.ones(3, 4, 4), torch.ones(1, 4, 4))) == 1


def test_groups_are_chains_of_twins_and_families(images: CaptionedImages) -> None:
    clusters = cluster_images(images.pixels, images.families)
    assert same_partition(clusters.tolist(), slow_groups(images.pixels, images.families))
    sizes = np.bincount(clusters)
    assert sorted(sizes[sizes > 1].tolist()) == [2] * 10 + [3] * 5  # twins; the chain, whose ends are no twins, and four families
    alone = cluster_images(images.pixels, np.full(len(images), -1))
    assert (np.bincount(alone) > 1).sum() == 11


@pytest.mark.parametrize("side", [16, 22])
def test_a_pair_just_under_the_limit_is_found_wherever_it_differs(side: int) -> None:
    """22 pixels are no multiple of the blocks: the difference lies where the blocks are, and the border is equal."""
    a = np.full((3, side, side), 100, np.uint8)
    b = a.copy()
    b[:, :20, :20] += 8 if side == 22 else 7
    pixels = np.stack([a, b, a + 40])
    assert slow_distance(a, b, np.ones((side, side), bool)) < TWIN_DISTANCE
    assert cluster_images(pixels, np.full(3, -1)).tolist() == [0, 0, 1]


def test_groups_of_the_real_set_are_those_of_all_pairs(openmoji: CaptionedImages) -> None:
    part = np.random.default_rng(0).choice(len(openmoji), 900, replace=False)
    pixels, families = openmoji.pixels[part], openmoji.families[part]
    clusters = cluster_images(pixels, families)
    assert same_partition(clusters.tolist(), slow_groups(pixels, families))
    assert (np.bincount(clusters) > 1).sum() > 50


def test_the_nearest_groups_are_those_of_all_pairs(images: CaptionedImages) -> None:
    clusters = cluster_images(images.pixels, images.families)
    mask = np.zeros((8, 8), bool)
    mask[1:5, 2:8] = True
    exclude = {int(clusters[0]), int(clusters[7])}
    found, distances = Gallery(images.pixels, clusters).nearest(
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


def test_fewer_groups_than_asked_for_are_all_of_them_and_a_copy_is_at_zero(images: CaptionedImages) -> None:
    gallery = Gallery(images.pixels[:4], np.arange(4))
    clusters, distances = gallery.nearest(torch.from_numpy(images.pixels[2:3]), torch.ones(1, 8, 8, dtype=torch.bool))
    assert clusters.shape == distances.shape == (1, 50) and clusters[0, 0] == 2 and distances[0, 0] == 0
    assert (clusters[0, :4] >= 0).all() and (clusters[0, 4:] == -1).all() and distances[0, 4:].isinf().all()


def test_a_template_takes_part_where_half_of_the_mask_overlaps_it() -> None:
    generator = np.random.default_rng(3)
    pixels = generator.integers(0, 256, (5, 3, 8, 8), dtype=np.uint8)
    shown = np.zeros((1, 8, 8), bool)
    shown[:, :, :4] = True
    gallery = Gallery(pixels[:4], np.arange(4), (Template(pixels[4], shown, 77),))
    image = torch.from_numpy(np.where(shown, pixels[4], 0).astype(np.uint8))[None]
    for left, takes_part in ((0, True), (2, True), (3, False)):  # columns left..left+4: overlaps of 4, 2 and 1 columns
        mask = torch.zeros(1, 8, 8, dtype=torch.bool)
        mask[:, :, left : left + 4] = True
        clusters, distances = gallery.nearest(image, mask)
        assert (77 in clusters[0].tolist()) == takes_part
        assert not takes_part or (clusters[0, 0] == 77 and distances[0, 0] == 0)
    assert 77 not in gallery.nearest(image, torch.from_numpy(shown), [{77}])[0][0].tolist()


def test_the_nearest_image_is_that_of_all_pairs(images: CaptionedImages) -> None:
    image = np.clip(images.pixels[40].astype(int) + np.random.default_rng(1).integers(-9, 10, (3, 8, 8)), 0, 255).astype(np.uint8)
    everything = np.ones((8, 8), bool)
    wanted = min(range(len(images)), key=lambda row: slow_distance(image, images.pixels[row], everything))
    asked = torch.from_numpy(np.stack([images.pixels[7], image]))
    found, clusters = Gallery(images.pixels, np.arange(len(images)) + 100).nearest_images(asked)
    assert (
        clusters[1] == 100 + wanted and torch.equal(found[1], torch.from_numpy(images.pixels[wanted])) and torch.equal(found[0], asked[0])
    )


def test_pairs_that_correlate_are_those_of_numpy_whatever_their_color():
    generator = np.random.default_rng(3)
    pixels = generator.integers(0, 256, (40, 3, 8, 8), dtype=np.uint8)
    pixels[7] = (pixels[2].astype(int) // 2 + 60).astype(np.uint8)  # darker, with less contrast
    pixels[9] = pixels[2][[1, 2, 0]]  # in other colors
    pixels[11] = 90  # of one gray
    first, second, apart = correlated_pairs(pixels, 0.3)
    gray = pixels.mean(1).reshape(40, -1)
    with np.errstate(invalid="ignore"):
        slow = 1 - np.corrcoef(gray)
    expected = {(i, j): slow[i, j] for i in range(40) for j in range(i + 1, 40) if slow[i, j] < 0.3}
    assert {(2, 7), (2, 9), (7, 9)} <= set(expected)
    assert set(zip(first.tolist(), second.tolist(), strict=True)) == set(expected)
    assert apart == pytest.approx(list(expected.values()), abs=1e-5)
