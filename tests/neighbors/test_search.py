import numpy as np
import pytest
import torch

from afterglow.cache import LazyRows
from afterglow.neighbors import search
from afterglow.neighbors.search import _product_error, all_distances, iter_chunks, nearest


def test_iter_chunks_covers_a_set_of_any_size():
    class Large:
        shape = (5, 3, 4096, 4096)

        def __len__(self) -> int:
            return 5

    assert [(part.start, part.stop) for part in iter_chunks(Large())] == [(row, row + 1) for row in range(5)]
    assert list(iter_chunks(np.zeros((3, 1, 2, 2), np.uint8))) == [slice(0, 3)]


def slow_nearest(queries, rows, k, mask=None):
    """All differences in doubles, ordered by distance and then by index."""
    first, second = (np.asarray(values).reshape(len(values), -1).astype(float) for values in (queries, rows))
    if mask is not None:
        inside = np.broadcast_to(mask.numpy(), rows.shape[1:]).ravel()
        first, second = first[:, inside], second[:, inside]
    squares = np.stack([((second - one) ** 2).sum(1) for one in first])
    order = np.argsort(squares, axis=1, kind="stable")[:, :k]
    scale = 255 * first.shape[1] ** 0.5 if rows.dtype == np.uint8 else 1
    return order, np.sqrt(np.take_along_axis(squares, order, 1)) / scale


def same_nearest(queries, rows, k, mask=None):
    index, apart = nearest(queries, rows, k, mask=mask)
    order, wanted = slow_nearest(queries, rows, k, mask)
    np.testing.assert_array_equal(index.numpy(), order)
    np.testing.assert_allclose(apart.numpy(), wanted, rtol=1e-6)


def images(count, side=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 3, side, side), dtype=np.uint8)


@pytest.fixture
def small_steps(monkeypatch):
    """Chunks, blocks and margins so small that every seam between them is crossed."""
    for name, value in {"PRODUCT": (4, 8), "GROUP": 2, "EXACT_VALUES": 50, "MARGIN": 2, "PAIR_VALUES": 5 * 192}.items():
        monkeypatch.setattr(search, name, value)


@pytest.mark.parametrize("k", [1, 4, 5, 61, 62, 99])
def test_nearest_equals_all_differences(small_steps, monkeypatch, k):
    monkeypatch.setattr(search, "EXACT_KEYS", 2**53 if k % 2 else 0)
    rows = images(61)
    rows[50] = rows[3]
    same_nearest(np.concatenate([rows[[3, 60]], images(9, seed=1)]), rows, k)


def test_nearest_in_a_mask_of_lazy_rows_equals_all_differences(small_steps, tmp_path):
    np.save(tmp_path / "set.npy", images(80))
    rows = LazyRows(np.load(tmp_path / "set.npy", mmap_mode="r"), np.random.default_rng(2).permutation(80)[:50])
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[:, 2:5, 1:7] = True
    queries = torch.from_numpy(images(6, seed=3))
    index, apart = nearest(queries, rows, 4, mask=mask)
    order, wanted = slow_nearest(queries.numpy(), rows[np.arange(50)], 4, mask)
    np.testing.assert_array_equal(index.numpy(), order)
    np.testing.assert_allclose(apart.numpy(), wanted, rtol=1e-6)


@pytest.mark.parametrize("masks", [torch.ones(1, 8, 8) > 0, torch.rand(6, 1, 8, 8) < 0.5])
def test_all_distances_are_those_of_nearest(small_steps, masks):
    rows, queries = images(61), images(6, seed=3)
    found = all_distances(queries, rows, masks)
    index, apart = nearest(queries, rows, 61, mask=masks)
    assert found.shape == (6, 61) and torch.equal(found.gather(1, index), apart)


@pytest.mark.parametrize("count", [7, 61])
def test_nearest_in_a_mask_per_query_equals_one_search_per_query(small_steps, count):
    rows, queries = images(count), images(6, seed=3)
    masks = torch.from_numpy(np.random.default_rng(4).random((6, 1, 8, 8)) < 0.3)
    masks[4], masks[5] = masks[1], True
    index, apart = nearest(queries, rows, 5, mask=masks)
    for row in range(6):
        alone = nearest(queries[row : row + 1], rows, 5, mask=masks[row])
        assert torch.equal(index[row], alone[0][0]) and torch.equal(apart[row], alone[1][0])
        order, wanted = slow_nearest(queries[row : row + 1], rows, 5, masks[row])
        np.testing.assert_array_equal(index[row].numpy(), order[0])
        np.testing.assert_allclose(apart[row].numpy(), wanted[0], rtol=1e-6)


def test_exact_product_of_extreme_gray_levels_equals_whole_numbers():
    black = torch.full((2, 2 * search.EXACT_VALUES + 1), -128.0)
    zero = torch.zeros(1, 1, dtype=torch.float64)
    assert (search._add_product(zero, black, black) == 128**2 * black.shape[1]).all()
    odd = black.clone()
    odd[:, ::2] = 127
    wanted = odd.numpy().astype(np.int64) @ black.numpy().astype(np.int64).T
    np.testing.assert_array_equal(search._add_product(zero, odd, black, alpha=-2).numpy(), -2 * wanted)


def test_nearest_puts_ties_in_order_of_rows(small_steps):
    same = np.repeat(images(1), 70, axis=0)
    index, apart = nearest(same[:3], same, 4)
    assert index.tolist() == [[0, 1, 2, 3]] * 3 and (apart == 0).all()
    same_nearest(images(5, seed=4), np.concatenate([images(9, seed=5)] * 6), 8)


def test_nearest_resolves_differences_below_float32_products(small_steps):
    """White images: |a|^2 is 5e7, where float32 knows no single gray levels; all rows differ from white by one or two of them."""
    generator = np.random.default_rng(6)
    rows = np.full((120, 3, 32, 32), 255, np.uint8)
    for row in rows:
        row.reshape(-1)[generator.choice(3072, generator.integers(1, 60), replace=False)] -= 1
    same_nearest(np.full((2, 3, 32, 32), 255, np.uint8), rows, 5)


def test_nearest_of_embeddings_equals_float64(small_steps):
    generator = np.random.default_rng(7)
    rows = generator.standard_normal((90, 33)).astype(np.float32)
    far = rows[:5] + np.float32(1e-4) * generator.standard_normal((5, 33)).astype(np.float32) + np.float32(300)
    close = (rows[:1] + np.float32(1e-6) * generator.standard_normal((90, 33))).astype(np.float32) + np.float32(300)
    for queries, among in ((rows[:9], rows), (far, rows + np.float32(300)), (close[:4], close)):
        same_nearest(queries, among, 6)


def test_product_error_bounds_float32_products():
    """Sums one after another, the worst order there is, stay within the bound."""
    generator = np.random.default_rng(8)
    for offset in (0, 5):
        a, b = (generator.standard_normal((40, 500)).astype(np.float32) + np.float32(offset) for _ in range(2))
        one_by_one = np.add.accumulate(a * b, axis=1, dtype=np.float32)[:, -1]
        exact = (a.astype(float) * b).sum(1)
        sizes = torch.from_numpy(np.linalg.norm(a.astype(float), axis=1) * np.linalg.norm(b.astype(float), axis=1))
        assert (np.abs(one_by_one - exact) <= _product_error(sizes, 501).numpy()).all()


def test_nearest_restores_the_matmul_precision():
    torch.set_float32_matmul_precision("high")
    try:
        nearest(images(2), images(5), 1)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_nearest_is_exact_where_a_training_computes_in_half_precision():
    with torch.autocast("cpu", torch.bfloat16):
        same_nearest(images(9, seed=1), images(61), 5)
        vectors = np.random.default_rng(0).normal(size=(70, 64)).astype(np.float32)
        same_nearest(vectors[:9], vectors[9:], 5)


@pytest.mark.gpu
def test_nearest_on_a_gpu_equals_the_cpu():
    queries, rows = images(40, 16), images(500, 16, seed=1)
    here, there = nearest(queries, rows, 7), nearest(queries, rows, 7, device="cuda")
    assert torch.equal(here[0], there[0]) and torch.equal(here[1], there[1])
