"""Exact nearest neighbors in a set of any size: matrix products over chunks of the set, on any device."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

CHUNK_BYTES = 2**24  # bytes of the set that are read together
MARGIN = 24  # candidates beyond the k nearest that are kept for the exact second pass
PAIR_VALUES = 2**20  # values of pairs that are compared directly together: they stay in the cache
MAX_CANDIDATES = 2**24  # candidates that are kept at a time, over all queries
PRODUCT = (512, 2048)  # queries and rows in one product: large enough to be fast, and the result stays in the cache
CENTER = 128  # subtracted from gray levels: the smaller the numbers, the more exact their products
ROUNDING = 2.0**-24  # relative error of one rounding of a float32
WHOLE = 2**24  # float32 holds all whole numbers up to here
SUMMANDS = 256  # this many squared differences of gray levels sum to less than WHOLE


def iter_chunks(pixels: Any) -> Iterator[slice]:
    """Yield slices of a uint8 set [N, ...], each of at most CHUNK_BYTES bytes and at least one row."""
    step = max(1, CHUNK_BYTES // max(1, int(np.prod(pixels.shape[1:]))))
    for start in range(0, len(pixels), step):
        yield slice(start, min(start + step, len(pixels)))


def nearest(queries: Any, rows: Any, k: int, *, mask: Tensor | None = None, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Find the k nearest rows of a set for each query, exactly as all distances in float64 would give them.

    float32 products choose candidates, direct differences order them. A row that was no candidate is farther than the k-th
    candidate by more than the products can err; otherwise the query is repeated with more candidates.
    Several processes can share a search by its queries: `queries[rank::world_size]`.

    Args:
        queries: uint8 [B, C, H, W], or float32 [B, D].
        rows: the set, alike [N, ...]; an array, a memory map or `LazyRows`, read chunk by chunk.
        k: number of neighbors.
        mask: bool [1, H, W], region in which images are compared; None compares everything.
        device: device of the products.

    Returns:
        Rows int64 [B, K] and distances float32 [B, K] on the CPU with K = min(k, N), nearest first, ties by lowest row. The
        distance is the root mean square in [0, 1] pixels inside the mask for uint8, else Euclidean.
    """
    queries, rows = (values.numpy(force=True) if isinstance(values, Tensor) else values for values in (queries, rows))
    k, count = min(k, len(rows)), len(queries)
    columns = None if mask is None else mask.expand(queries.shape[1:]).flatten().nonzero()[:, 0].numpy()
    search = _Search(queries, rows, columns, device)
    index, squares = torch.zeros(count, k, dtype=torch.int64), torch.zeros(count, k, dtype=torch.float64)
    pending, num_candidates = torch.arange(count), min(k + MARGIN, len(rows))
    with _full_precision():
        while len(pending):
            unproven = []
            for part in pending.split(max(1, MAX_CANDIDATES // num_candidates)):
                index[part], squares[part], proven = search.best(part.numpy(), k, num_candidates)
                unproven.append(part[~proven])
            pending, num_candidates = torch.cat(unproven), min(4 * num_candidates, len(rows))
    distances = (squares / search.width).sqrt() / 255 if search.gray else squares.sqrt()
    return index, distances.float()


@contextmanager
def _full_precision() -> Iterator[None]:
    """Compute float32 products in float32, even if the training allows TF32 or bfloat16."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _product_error(sizes: Tensor, width: int, *, whole: bool) -> Tensor:
    """Bound of the error of a float32 product of vectors of `width` numbers, in any order of summation. sizes: |a||b|, float64.

    |fl(a.b) - a.b| <= gamma |a||b| with gamma = w u / (1 - w u) (Higham 2002, eq. 3.5, with Cauchy and Schwarz). Sums of whole
    numbers are exact up to 2^24, and no partial sum is larger than |a||b|.
    """
    gamma = width * ROUNDING / (1 - width * ROUNDING)
    error = gamma * sizes
    return error.masked_fill(sizes <= WHOLE, 0.0) if whole else error


def _norms(rows: Tensor) -> Tensor:
    """Euclidean norms in float64, [m]; few rows at a time, because each is converted to float64."""
    return torch.cat([torch.linalg.vector_norm(part, dim=1, dtype=torch.float64) for part in rows.split(64)])


@dataclass(frozen=True)
class _Search:
    """Queries and rows as `nearest` takes them; columns: int64, the flattened values that count (None = all)."""

    queries: Any
    rows: Any
    columns: np.ndarray | None
    device: torch.device | str

    @property
    def gray(self) -> bool:
        return self.rows.dtype == np.uint8

    @property
    def width(self) -> int:
        return int(np.prod(self.rows.shape[1:])) if self.columns is None else len(self.columns)

    def best(self, queries: np.ndarray, k: int, num_candidates: int) -> tuple[Tensor, Tensor, Tensor]:
        """The k nearest of A queries, int64 [A, k], their squared distances, float64 [A, k], and whether these are proven, bool [A]."""
        score, index, norms, longest = self._candidates(queries, num_candidates)
        index = index.sort(1).values  # so that a stable sort leaves ties in this order
        squares = self._squares(queries, index)
        order = squares.argsort(dim=1, stable=True)[:, :k]
        best = squares.gather(1, order)
        true_score = (norms.square() - best[:, -1]) / 2  # a.b - |b|^2 / 2 of the k-th nearest
        sizes = norms * longest
        error = _product_error(sizes, self.width, whole=self.gray)
        error += 2 * ROUNDING * (1 + self.width * ROUNDING) * (sizes + longest**2 / 2)  # |b|^2 / 2 is rounded, and so is the difference
        proven = (score.double() + error < true_score) | (num_candidates == len(self.rows))
        return index.gather(1, order), best, proven

    def _candidates(self, queries: np.ndarray, count: int) -> tuple[Tensor, Tensor, Tensor, float]:
        """Rows with the largest a.b - |b|^2 / 2 in float32, int64 [A, count]; the least of these [A]; all |a| [A]; the largest |b|."""
        score = torch.full((len(queries), count), -torch.inf, device=self.device)
        index = torch.zeros(len(queries), count, dtype=torch.int64, device=self.device)
        norms, longest = torch.zeros(len(queries), dtype=torch.float64, device=self.device), 0.0
        together, step = PRODUCT[0], min(PRODUCT[1], max(1, CHUNK_BYTES // self.width), len(self.rows))
        # buffers are reused: fresh memory costs as much as the work in it
        few, many, block = (torch.empty(size, device=self.device) for size in (together * self.width, step * self.width, together * step))
        for start in range(0, len(self.rows), step):
            chunk = self._read(self.rows, slice(start, start + step), many)
            row_norms = _norms(chunk)
            half_squares, longest = (row_norms.square() / 2).float(), max(longest, float(row_norms.max()))
            for place in (slice(first, first + together) for first in range(0, len(queries), together)):
                part = self._read(self.queries, queries[place], few)
                norms[place] = _norms(part)
                products = torch.mm(part, chunk.T, out=block[: len(part) * len(chunk)].view(len(part), -1)).sub_(half_squares)
                new, column = products.topk(min(count, len(chunk)), dim=1)
                score[place], chosen = torch.cat([score[place], new], 1).topk(count, dim=1)
                index[place] = torch.cat([index[place], column + start], 1).gather(1, chosen)
        return score[:, -1].cpu(), index.cpu(), norms.cpu(), longest

    def _squares(self, queries: np.ndarray, index: Tensor) -> Tensor:
        """Squared distances by direct differences, float64 [A, count]: exact for gray levels."""
        first, second = np.repeat(queries, index.shape[1]), index.flatten().numpy()
        step = max(1, PAIR_VALUES // self.width)
        buffers = [torch.empty(step * self.width, device=self.device) for _ in range(2)]
        parts = []
        for start in range(0, len(first), step):
            pair = slice(start, start + step)
            a, b = self._read(self.queries, first[pair], buffers[0]), self._read(self.rows, second[pair], buffers[1])
            if self.gray:  # each sum of SUMMANDS squares is a whole number below WHOLE
                sums = [part.sum(1) for part in a.sub_(b).square_().split(SUMMANDS, dim=1)]
                parts.append(torch.stack(sums, 1).double().sum(1).cpu())
            else:
                parts.append((a.double() - b.double()).square_().sum(1).cpu())
        return torch.cat(parts).view(index.shape)

    def _read(self, source: Any, rows: slice | np.ndarray, buffer: Tensor) -> Tensor:
        """Rows as float32 [m, D] in a buffer on the device; gray levels are centered around 0."""
        part = torch.from_numpy(np.array(source[rows])).to(self.device).flatten(1)
        part = part if self.columns is None else part[:, self.columns]
        values = buffer[: part.numel()].view(part.shape).copy_(part)
        return values.sub_(CENTER) if self.gray else values
