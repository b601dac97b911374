"""Exact nearest neighbors in a set of any size: matrix products over chunks of the set, on any device."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

CHUNK_BYTES = 2**24  # bytes of the set that are read together
PRODUCT = (1024, 8192)  # queries and rows in one product: large enough to be fast, and its result takes 64 MiB in float64
CENTER = 128  # subtracted from gray levels, so that their absolute values are at most 128
EXACT_VALUES = 1024  # this many products of centered gray levels sum to at most 2^24, up to where float32 holds all whole numbers
EXACT_KEYS = 2**53  # up to where float64 holds all whole numbers
GROUP = 8  # rows of which only the nearest is compared at first: the k nearest are among the k groups with the nearest rows
MARGIN = 24  # candidates beyond the k nearest vectors that are kept for the exact second pass
PAIR_VALUES = 2**20  # values of pairs that are compared directly together: they stay in the cache
ROUNDING = 2.0**-24  # relative error of one rounding of a float32

Device = torch.device | str


def iter_chunks(pixels: Any) -> Iterator[slice]:
    """Yield slices of a uint8 set [N, ...], each of at most CHUNK_BYTES bytes and at least one row."""
    return _slices(len(pixels), max(1, CHUNK_BYTES // max(1, int(np.prod(pixels.shape[1:])))))


def nearest(queries: Any, rows: Any, k: int, *, mask: Tensor | None = None, device: Device = "cpu") -> tuple[Tensor, Tensor]:
    """Find the k nearest rows of a set for each query, exactly as all distances in float64 would give them.

    Several processes can share a search by its queries: `queries[rank::world_size]`.

    Args:
        queries: uint8 [B, C, H, W], or float32 [B, D].
        rows: the set, alike [N, ...]; an array, a memory map or `LazyRows`, read chunk by chunk.
        k: number of neighbors.
        mask: bool [1, H, W] or for each query [B, 1, H, W], region in which images are compared; None compares everything.
        device: device of the products.

    Returns:
        Rows int64 [B, K] and distances float32 [B, K] on the CPU with K = min(k, N), nearest first, ties by lowest row. The
        distance is the root mean square in [0, 1] pixels inside the mask for uint8, else Euclidean.
    """
    queries, rows = (values.numpy(force=True) if isinstance(values, Tensor) else values for values in (queries, rows))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")  # even if the training allows TF32 or bfloat16
    try:
        with torch.autocast(torch.device(device).type, enabled=False):
            if rows.dtype != np.uint8:
                return _nearest_vectors(queries, rows, min(k, len(rows)), device)
            masks = torch.ones(1, 1, *rows.shape[2:], dtype=torch.bool) if mask is None else mask.reshape(-1, 1, *rows.shape[2:])
            return _nearest_images(queries, rows, min(k, len(rows)), masks, device)
    finally:
        torch.set_float32_matmul_precision(before)


def all_distances(queries: Any, rows: Any, mask: Tensor, device: Device = "cpu") -> Tensor:
    """The distance of each query to every row of a set, float32 [B, N] on the CPU; arguments and distances as in `nearest`, uint8 only."""
    found = torch.empty(len(queries), len(rows))
    queries = queries.numpy(force=True) if isinstance(queries, Tensor) else queries
    masks = mask.reshape(-1, 1, *rows.shape[2:])
    with torch.autocast(torch.device(device).type, enabled=False):
        for part, chunk, own, rest, widths in _image_squares(queries, rows, masks, device):
            found[part, chunk] = ((rest.add_(own) / widths).sqrt() / 255).float().cpu()
    return found


def _slices(count: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


def _nearest_images(queries: Any, rows: Any, k: int, masks: Tensor, device: Device) -> tuple[Tensor, Tensor]:
    """One sortable number holds the square and the row: a float64, which is faster, or an int64 where a float64 would round."""
    exact = 4 * (rows[0].size * 255**2 + 1) * len(rows) < EXACT_KEYS
    keys = torch.full((len(queries), k), 2**62, dtype=torch.float64 if exact else torch.int64, device=device)
    widths = torch.ones(len(queries), 1, dtype=torch.float64, device=device)
    for part, _, own, rest, width in _image_squares(queries, rows, masks, device, numbers=keys.dtype):
        new = _smallest(rest, min(k, rest.shape[1])) + own.to(keys.dtype) * len(rows)
        keys[part] = torch.cat([keys[part], new], 1).topk(k, largest=False).values
        widths[part] = width
    return (keys % len(rows)).long().cpu(), (((keys // len(rows)) / widths).sqrt() / 255).float().cpu()


def _smallest(values: Tensor, k: int) -> Tensor:
    """The k smallest of each row of [A, R], in any order."""
    if values.shape[1] % GROUP == 0 and k * GROUP < values.shape[1]:
        groups = values.unflatten(1, (GROUP, -1))
        nearest = groups.amin(1).topk(k, largest=False, sorted=False).indices
        values = groups.gather(2, nearest[:, None].expand(-1, GROUP, -1)).flatten(1)
    return values.topk(k, largest=False, sorted=False).values


def _image_squares(
    queries: Any, rows: Any, masks: Tensor, device: Device, numbers: torch.dtype | None = None
) -> Iterator[tuple[slice, slice, Tensor, Tensor, Tensor]]:
    """|a - b|^2 = |a|^2 + (|b|^2 - 2 a.b) inside masks, in whole numbers.

    Yields:
        Queries, rows, |a|^2 in float64 [A, 1], the rest in float64 [A, R], and the number of values of each mask [A, 1]. With a data
        type `numbers`, the rest is (|b|^2 - 2 a.b) * len(rows) + row in this type.
    """
    distinct, which = (found.to(device) for found in masks.expand(-1, rows.shape[1], -1, -1).flatten(1).unique(dim=0, return_inverse=True))
    which, columns = which.expand(len(queries)), distinct.any(0).nonzero()[:, 0]
    inside = distinct[:, columns].float()
    widths = inside.sum(1, dtype=torch.float64)[which, None]
    scale = 1 if numbers is None else len(rows)

    def levels(images: Any) -> Tensor:
        values = torch.from_numpy(np.array(images)).to(device).flatten(1)
        return (values if len(columns) == values.shape[1] else values[:, columns]).float().sub_(CENTER)

    step = min(PRODUCT[1], max(1, CHUNK_BYTES // inside.shape[1]))
    for chunk in _slices(len(rows), step // GROUP * GROUP or step):
        values = levels(rows[chunk])
        first = torch.arange(chunk.start, chunk.stop, device=device) if numbers is not None else torch.zeros(1, device=device)
        row_term = _add_product(first[None].to(numbers or torch.float64), inside, values.square(), scale)
        for part in _slices(len(queries), PRODUCT[0]):
            own = levels(queries[part])
            if len(inside) > 1:  # otherwise its columns are the mask
                own *= inside[which[part]]
            rest = _add_product(row_term if len(inside) == 1 else row_term[which[part]], own, values, -2 * scale)
            yield part, chunk, own.square().sum(1, dtype=torch.float64)[:, None], rest, widths[part]


def _add_product(total: Tensor, a: Tensor, b: Tensor, alpha: int = 1) -> Tensor:
    """Compute total + alpha * a @ b.T of whole numbers [A, B] in the type of total: float32 products of few values are exact."""
    for number, (left, right) in enumerate(zip(a.split(EXACT_VALUES, 1), b.split(EXACT_VALUES, 1), strict=True)):
        product = left @ right.T if total.dtype == torch.float64 else (left @ right.T).to(total.dtype)
        total = (total.add_ if number else total.add)(product, alpha=alpha)  # the argument stays as it is
    return total


def _nearest_vectors(queries: Any, rows: Any, k: int, device: Device) -> tuple[Tensor, Tensor]:
    """float32 products choose candidates, direct differences order them.

    A row that was no candidate is farther than the k-th candidate by more than the products can err; otherwise the query is
    repeated with more candidates.
    """
    index, squares = torch.zeros(len(queries), k, dtype=torch.int64), torch.zeros(len(queries), k, dtype=torch.float64)
    pending, num_candidates = torch.arange(len(queries)), min(k + MARGIN, len(rows))
    while len(pending):
        proven = torch.zeros(len(queries), dtype=torch.bool)
        for part in pending.split(PRODUCT[0]):
            index[part], squares[part], proven[part] = _best(queries[part.numpy()], rows, k, num_candidates, device)
        pending, num_candidates = pending[~proven[pending]], min(4 * num_candidates, len(rows))
    return index, squares.sqrt().float()


def _best(queries: Any, rows: Any, k: int, num_candidates: int, device: Device) -> tuple[Tensor, Tensor, Tensor]:
    """The k nearest of A queries, int64 [A, k], their squared distances, float64 [A, k], and whether these are proven, bool [A]."""
    score, index, norms, longest = _candidates(queries, rows, num_candidates, device)
    index, width = index.sort(1).values, queries.shape[1]  # sorted so that a stable sort leaves ties in this order
    squares = _squares(queries, rows, index, device)
    order = squares.argsort(dim=1, stable=True)[:, :k]
    best = squares.gather(1, order)
    true_score = (norms.square() - best[:, -1]) / 2  # a.b - |b|^2 / 2 of the k-th nearest
    sizes = norms * longest
    error = _product_error(sizes, width)
    error += 2 * ROUNDING * (1 + width * ROUNDING) * (sizes + longest**2 / 2)  # |b|^2 / 2 is rounded, and so is the difference
    return index.gather(1, order), best, (score.double() + error < true_score) | (num_candidates == len(rows))


def _product_error(sizes: Tensor, width: int) -> Tensor:
    """Bound of the error of a float32 product of vectors of `width` numbers, in any order of summation. sizes: |a||b|, float64.

    |fl(a.b) - a.b| <= gamma |a||b| with gamma = w u / (1 - w u) (Higham 2002, eq. 3.5, with Cauchy and Schwarz).
    """
    return width * ROUNDING / (1 - width * ROUNDING) * sizes


def _candidates(queries: Any, rows: Any, count: int, device: Device) -> tuple[Tensor, Tensor, Tensor, float]:
    """Rows with the largest a.b - |b|^2 / 2 in float32, int64 [A, count]; the least of these [A]; all |a| [A]; the largest |b|."""
    score = torch.full((len(queries), count), -torch.inf, device=device)
    index = torch.zeros(len(queries), count, dtype=torch.int64, device=device)
    asked, longest = torch.from_numpy(np.array(queries)).to(device), 0.0
    for chunk in _slices(len(rows), PRODUCT[1]):
        values = torch.from_numpy(np.array(rows[chunk])).to(device)
        norms = torch.linalg.vector_norm(values, dim=1, dtype=torch.float64)
        longest = max(longest, float(norms.max()))
        new, column = (asked @ values.T).sub_((norms.square() / 2).float()).topk(min(count, len(values)), dim=1)
        score, chosen = torch.cat([score, new], 1).topk(count, dim=1)
        index = torch.cat([index, column + chunk.start], 1).gather(1, chosen)
    return score[:, -1].cpu(), index.cpu(), torch.linalg.vector_norm(asked, dim=1, dtype=torch.float64).cpu(), longest


def _squares(queries: Any, rows: Any, index: Tensor, device: Device) -> Tensor:
    """Squared distances by direct differences, float64 [A, count]."""
    result, step = torch.zeros(index.shape, dtype=torch.float64), max(1, PAIR_VALUES // queries.shape[1])
    for query, candidates, squares in zip(torch.from_numpy(np.array(queries)).to(device).double(), index, result, strict=True):
        for part in _slices(len(candidates), step):
            others = torch.from_numpy(np.array(rows[candidates[part].numpy()])).to(device).double()
            squares[part] = (query - others).square_().sum(1).cpu()
    return result
