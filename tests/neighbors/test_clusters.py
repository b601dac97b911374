import numpy as np
import pytest

from afterglow.datasets.images import CaptionedImages
from afterglow.neighbors.clusters import NEAR_DUPLICATE_DISTANCE, cluster_images, correlated_pairs, near_duplicate_seconds


def slow_distance(a: np.ndarray, b: np.ndarray, mask: np.ndarray) -> float:
    """uint8 [C, H, W] twice, bool [H, W]: the formula, value by value."""
    values = [((float(a[c, y, x]) - float(b[c, y, x])) / 255) ** 2 for c in range(len(a)) for y, x in zip(*np.nonzero(mask), strict=True)]
    return (sum(values) / len(values)) ** 0.5


def all_distances(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    flat = pixels[:, :, mask].reshape(len(pixels), -1).astype(np.float64) / 255
    return np.stack([np.sqrt(((flat - row) ** 2).mean(axis=1)) for row in flat])


def slow_clusters(pixels: np.ndarray, families: np.ndarray) -> list[int]:
    """All pairs and union-find."""
    parent = list(range(len(pixels)))

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    near = all_distances(pixels, np.ones(pixels.shape[-2:], bool)) < NEAR_DUPLICATE_DISTANCE
    for i, j in zip(*np.nonzero(near), strict=True):
        parent[root(int(i))] = root(int(j))
    for i in range(len(pixels)):
        for j in range(i):
            if families[i] == families[j] >= 0:
                parent[root(i)] = root(j)
    return [root(i) for i in range(len(pixels))]


def same_partition(a: list[int], b: list[int]) -> bool:
    return len(set(zip(a, b, strict=True))) == len(set(a)) == len(set(b))


def test_cluster_images_joins_chains_of_near_duplicates_and_families(images: CaptionedImages) -> None:
    clusters = cluster_images(images.pixels, images.families)
    assert same_partition(clusters.tolist(), slow_clusters(images.pixels, images.families))
    sizes = np.bincount(clusters)
    assert sorted(sizes[sizes > 1].tolist()) == [2] * 10 + [3] * 5  # twins; the chain, whose ends are no twins, and four families
    alone = cluster_images(images.pixels, np.full(len(images), -1))
    assert (np.bincount(alone) > 1).sum() == 11


@pytest.mark.parametrize("side", [16, 22])
def test_near_duplicate_pairs_finds_a_pair_just_below_the_limit(side: int) -> None:
    """22 pixels are no multiple of the blocks: the difference lies where the blocks are, and the border is equal."""
    a = np.full((3, side, side), 100, np.uint8)
    b = a.copy()
    b[:, :20, :20] += 8 if side == 22 else 7
    pixels = np.stack([a, b, a + 40])
    assert slow_distance(a, b, np.ones((side, side), bool)) < NEAR_DUPLICATE_DISTANCE
    assert cluster_images(pixels, np.full(3, -1)).tolist() == [0, 0, 1]


def test_cluster_images_of_openmoji_equals_all_pairs(openmoji: CaptionedImages) -> None:
    part = np.random.default_rng(0).choice(len(openmoji), 900, replace=False)
    pixels, families = openmoji.pixels[part], openmoji.families[part]
    clusters = cluster_images(pixels, families)
    assert same_partition(clusters.tolist(), slow_clusters(pixels, families))
    assert (np.bincount(clusters) > 1).sum() > 50


def test_the_time_of_a_search_grows_with_the_square_of_the_set():
    images = (np.broadcast_to(np.zeros(1, np.uint8), (count, 3, 8, 8)) for count in (10**6, 10**5))
    many, fewer = map(near_duplicate_seconds, images)
    assert 20 < many / fewer < 500


def test_correlated_pairs_equals_numpy_for_any_color():
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
