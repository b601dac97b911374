import numpy as np
import pytest

from afterglow.planting.duplicates import Duplicates, embedded, exact, near, shared_region


def by_hand(count, similarity, limit):
    """Greedy in order, one pair at a time: the image that stays for each."""
    representative = []
    for row in range(count):
        kept = [other for other in range(row) if representative[other] == other]
        alike = [(similarity(row, other), -other) for other in kept]
        best = max(alike, default=(-1, 0))
        representative.append(-best[1] if best[0] >= limit else row)
    return representative


def noise(count, side=8, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, channels, side, side), dtype=np.uint8)


def shared(pixels, median):
    """likeness(i, j) as METHODS says it, one pixel at a time."""

    def colors(values):
        return [tuple(map(float, color)) for color in values.reshape(len(values), -1).T]

    def apart(a, b):
        return max(abs(x - y) for x, y in zip(a, b, strict=True))

    middle, shown = colors(median), [colors(image) for image in pixels]

    def share(i, j):
        places = zip(shown[i], shown[j], middle, strict=True)
        agreed = [apart(a, b) <= 2 and apart(a, usual) > 25.5 and apart(b, usual) > 25.5 for a, b, usual in places]
        return 1.0 if shown[i] == shown[j] else sum(agreed) / len(agreed)

    return share


@pytest.mark.parametrize("method", [exact, near, shared_region])
def test_duplicates_of_no_or_one_image_keep_everything(method):
    assert method(noise(0)).keep.tolist() == [] and method(noise(0)).num_clusters == 0
    assert method(noise(1)).keep.tolist() == [True] and np.isnan(method(noise(1)).similarity).all()


@pytest.mark.parametrize("method", [exact, near, shared_region])
def test_every_method_keeps_the_first_of_equal_images(method):
    found = method(noise(3)[[0, 1, 0, 2, 1, 1]])
    assert found.representative.tolist() == [0, 1, 0, 3, 1, 1] and found.keep.tolist() == [True, True, False, True, False, False]
    assert found.num_clusters == 2 and np.isnan(found.similarity[found.keep]).all()
    assert (found.similarity[~found.keep] == (1 if method is shared_region else 0)).all()


def test_exact_does_not_join_images_one_gray_level_apart():
    pixels = noise(1)[[0, 0]]
    pixels[1, 0, 0, 0] ^= 1
    assert exact(pixels).keep.all()


def test_near_keeps_the_first_of_a_chain():
    """Steps of 6 gray levels are .024: a chain of three is one group, although its ends are .047 apart."""
    base = noise(1).clip(0, 200)
    other = noise(1, seed=1)
    pixels = np.concatenate([base + 12, other, base, base + 6, base + 6])
    found = near(pixels)
    assert found.representative.tolist() == [0, 1, 0, 0, 0] and found.num_clusters == 1
    assert found.similarity[2:] == pytest.approx([12 / 255, 6 / 255, 6 / 255], abs=1e-6)
    assert near(pixels, 0.02).keep.tolist() == [True, True, True, True, False]


def test_near_equals_a_double_loop():
    generator = np.random.default_rng(3)
    pixels = (noise(6)[generator.integers(0, 6, 40)].astype(int) + generator.integers(0, 12, (40, 1, 1, 1))).clip(0, 255).astype(np.uint8)
    cluster, unit = list(range(40)), pixels / 255
    twins = [(i, j) for i, j in np.ndindex(40, 40) if i < j and np.sqrt(((unit[i] - unit[j]) ** 2).mean()) < 0.02]
    for _ in range(40):
        for i, j in twins:
            cluster[i] = cluster[j] = min(cluster[i], cluster[j])
    assert near(pixels, 0.02).representative.tolist() == cluster


def test_embedded_compares_with_kept_images_only():
    """Turned by 50 degrees each: the third is a copy of the second, which is gone; the fourth is a copy of the third."""
    angles = np.radians([0, 50, 100, 150, 350])
    found = embedded(np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32))
    assert found.representative.tolist() == [0, 0, 2, 2, 0]
    assert found.similarity[[1, 3, 4]] == pytest.approx(np.cos(np.radians([50, 50, 10])), abs=1e-6)


def test_embedded_equals_a_double_loop():
    rows = np.random.default_rng(0).standard_normal((150, 4)).astype(np.float32)  # more than look together
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert embedded(rows, 0.7).representative.tolist() == by_hand(150, lambda i, j: float(unit[i] @ unit[j]), 0.7)


@pytest.mark.parametrize("channels", [1, 3])
def test_shared_region_equals_a_double_loop(channels):
    """Cut and pasted rows of a few images, on a background that all share; more than look together."""
    generator = np.random.default_rng(1)
    sources, count = noise(5, 6, channels), 80
    pixels = np.full((count, channels, 6, 6), 128, dtype=np.uint8)
    for row in range(count):
        for y in generator.permutation(6)[:3]:
            pixels[row, :, y] = sources[generator.integers(5), :, y].clip(0, 250) + generator.integers(0, 4)
    distinct = pixels[exact(pixels).keep]
    found = shared_region(pixels, 0.2)
    share = shared(pixels, np.median(distinct, axis=0))
    assert found.representative.tolist() == by_hand(count, share, 0.2) and 10 < found.keep.sum() < 70
    for row in np.flatnonzero(~found.keep):
        assert found.similarity[row] == pytest.approx(share(row, found.representative[row]))


def test_shared_region_ignores_the_common_background():
    generator = np.random.default_rng(2)
    pixels = np.full((12, 3, 8, 8), 255, dtype=np.uint8)
    pixels[:, :, 2:5, 2:5] = generator.integers(0, 200, (12, 3, 3, 3))
    assert shared_region(pixels, 0.05).keep.all()
    pixels[7, :, 5:], pixels[9, :, 5:] = 20, 22
    found = shared_region(pixels, 0.3)
    assert np.flatnonzero(~found.keep).tolist() == [9] and found.representative[9] == 7
    assert found.similarity[9] == pytest.approx(3 / 8)
    pixels[9, :, 5:] = 23
    assert shared_region(pixels, 0.3).keep.all()


def test_shared_region_does_not_chain_images():
    pixels = noise(12)
    pixels[1, :, :4], pixels[1, :, 4:] = pixels[0, :, :4], pixels[2, :, 4:]
    assert np.flatnonzero(~shared_region(pixels, 0.2).keep).tolist() == [1]
    assert np.flatnonzero(~shared_region(pixels[[1, 0, *range(2, 12)]], 0.2).keep).tolist() == [1, 2]


@pytest.mark.parametrize("limit", [0, 1, -0.1, 1.5, float("nan")])
def test_limit_out_of_range_is_refused(limit):
    for method in (near, shared_region, lambda _, limit: embedded(np.ones((2, 2), dtype=np.float32), limit)):
        with pytest.raises(ValueError, match=f"must lie between 0 and 1, and it is {limit}"):
            method(noise(2), limit)


def test_refine_combines_two_methods():
    first = Duplicates(np.array([0, 0, 2, 3, 2]), np.array([np.nan, 0, np.nan, np.nan, 0], dtype=np.float32))
    second = Duplicates(np.array([0, 0, 2]), np.array([np.nan, 0.7, np.nan], dtype=np.float32))  # of rows 0, 2, 3
    both = first.refine(second, same=1.0)
    assert both.representative.tolist() == [0, 0, 0, 3, 0]
    assert both.similarity == pytest.approx([np.nan, 1.0, 0.7, np.nan, 0.7], nan_ok=True)
