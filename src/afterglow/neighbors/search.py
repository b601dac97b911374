"""Exact distances between images and a set of any size: matrix products over pieces of the set, on any device."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

PIECE = 2**24  # bytes of the set that are looked at together
QUERIES = 256  # images that are compared with a piece together
MARGIN = 24  # candidates beyond the k nearest that are kept for the second, exact look
PAIRS = 2**20  # values of pairs that are compared directly together: they stay in the cache
KEPT = 2**24  # candidates that are kept at a time, over all queries
PRODUCT = (512, 2048)  # queries and rows in one product: large enough to be fast, and what comes out stays in the cache
CENTER = 128  # of gray levels: the smaller the numbers, the more exact their products
UNIT = 2.0**-24  # relative error of one rounding of a float32
WHOLE = 2**24  # float32 holds all whole numbers up to here
CHUNK = 256  # so many squares of gray levels' differences sum to less than that


def pieces(pixels: Any) -> Iterator[slice]:
    """Slices of a set [N, ...] of uint8, each of at most PIECE bytes (at least one row)."""
    step = max(1, PIECE // max(1, int(np.prod(pixels.shape[1:]))))
    for start in range(0, len(pixels), step):
        yield slice(start, min(start + step, len(pixels)))


def distances(images: Tensor, masks: Tensor, pixels: Any, *, device: torch.device | str = "cpu") -> Iterator[tuple[slice, Tensor]]:
    """Root mean square distances of images to each piece of a set, inside the images' own masks, in [0, 1] pixels.

    images: uint8 [B, C, H, W]; masks: bool [B, 1, H, W]; pixels: uint8 [N, C, H, W], indexed like an array. Yields (slice of
    the set, float32 [B, n]), on the CPU. d^2 = sum m a^2 - 2 (m a) b + m b^2: gray levels are whole numbers, whose products and
    sums doubles hold exactly, so that a copy lies at 0.
    """
    wanted = images.to(device).flatten(1)
    distinct, which = masks.to(device).expand_as(images).flatten(1).unique(dim=0, return_inverse=True)
    sizes = distinct.sum(1).double()
    for piece in pieces(pixels):
        part = torch.from_numpy(np.array(pixels[piece])).to(device).flatten(1).double()
        squares = distinct.double() @ part.square().T
        found = []
        for rows, member in zip(wanted.split(QUERIES), which.split(QUERIES), strict=True):
            levels = rows.double()
            inside = levels * distinct[member]
            apart = (inside * levels).sum(1, keepdim=True) - 2 * inside @ part.T + squares[member]
            found.append((apart.clamp(min=0) / sizes[member][:, None]).sqrt().div(255).float().cpu())
        yield piece, torch.cat(found)


def nearest(queries: Any, rows: Any, k: int, *, mask: Tensor | None = None, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """The k nearest of a set for each query, exactly as all distances in doubles would say: nearest first, ties by lowest index.

    queries: uint8 [G, C, H, W], or float32 [G, D]; rows: alike, [N, ...], indexed like an array (a memory map, `Rows`) and read
    piece by piece; mask: bool [1, H, W], for all. Returns index int64 [G, K] and distance float32 [G, K] on the CPU, K = min(k, N):
    root mean square in [0, 1] pixels inside the mask, or Euclidean. Processes share a search by their queries: queries[first::stride].

    float32 products choose candidates, direct differences order them. What was no candidate is farther than the k-th of
    them by more than the products can err, or the query is asked again with more candidates.
    """
    queries, rows = (values.numpy(force=True) if isinstance(values, Tensor) else values for values in (queries, rows))
    k, count = min(k, len(rows)), len(queries)
    search = Search(queries, rows, None if mask is None else mask.expand(queries.shape[1:]).flatten().nonzero()[:, 0].numpy(), device)
    index, squares = torch.zeros(count, k, dtype=torch.int64), torch.zeros(count, k, dtype=torch.float64)
    open_rows, kept = torch.arange(count), min(k + MARGIN, len(rows))
    with full_precision():
        while len(open_rows):
            again = []
            for some in open_rows.split(max(1, KEPT // kept)):
                index[some], squares[some], proven = search.best(some.numpy(), k, kept)
                again.append(some[~proven])
            open_rows, kept = torch.cat(again), min(4 * kept, len(rows))
    scale = 255 * search.width**0.5 if search.gray else 1.0
    return index, (squares.sqrt() / scale).float()


@contextmanager
def full_precision() -> Iterator[None]:
    """float32 products are float32 products, whatever the training has allowed (TF32, bfloat16)."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def product_error(sizes: Tensor, width: int, *, whole: bool) -> Tensor:
    """How far a float32 product of vectors of `width` numbers may lie from the true one, in any order of summation.

    |fl(a.b) - a.b| <= gamma |a||b| with gamma = w u / (1 - w u) (Higham 2002, eq. 3.5, with Cauchy and Schwarz). Sums of whole numbers
    are exact up to 2^24, and no partial sum is larger than |a||b|. sizes: |a||b|, float64.
    """
    gamma = width * UNIT / (1 - width * UNIT)
    error = gamma * sizes
    return error.masked_fill(sizes <= WHOLE, 0.0) if whole else error


def lengths_of(rows: Tensor) -> Tensor:
    """Euclidean norms in doubles, [m]; a few rows at a time, since it makes doubles of them all."""
    return torch.cat([torch.linalg.vector_norm(some, dim=1, dtype=torch.float64) for some in rows.split(64)])


@dataclass(frozen=True)
class Search:
    """queries and rows as `nearest` takes them; columns: int64, of the flattened values that count (None = all)."""

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

    def best(self, asked: np.ndarray, k: int, kept: int) -> tuple[Tensor, Tensor, Tensor]:
        """Some queries' k nearest, int64 [A, k], their squared distances, float64 [A, k], and whether that is proven, bool [A]."""
        score, index, lengths, longest = self._candidates(asked, kept)
        index = index.sort(1).values  # so that a stable sort leaves ties in this order
        squares = self._squares(asked, index)
        order = squares.argsort(dim=1, stable=True)[:, :k]
        found = squares.gather(1, order)
        true_score = (lengths.square() - found[:, -1]) / 2  # a.b - |b|^2 / 2 of the k-th nearest
        sizes = lengths * longest
        error = product_error(sizes, self.width, whole=self.gray)
        error += 2 * UNIT * (1 + self.width * UNIT) * (sizes + longest**2 / 2)  # |b|^2 / 2 is rounded, and so is the difference
        proven = (score.double() + error < true_score) | (kept == len(self.rows))
        return index.gather(1, order), found, proven

    def _candidates(self, asked: np.ndarray, kept: int) -> tuple[Tensor, Tensor, Tensor, float]:
        """Rows with the largest a.b - |b|^2 / 2 in float32, int64 [A, kept]; the least of these [A]; all |a| [A]; the largest |b|."""
        score = torch.full((len(asked), kept), -torch.inf, device=self.device)
        index = torch.zeros(len(asked), kept, dtype=torch.int64, device=self.device)
        lengths, longest = torch.zeros(len(asked), dtype=torch.float64, device=self.device), 0.0
        together, step = PRODUCT[0], min(PRODUCT[1], max(1, PIECE // self.width), len(self.rows))
        # written again and again: fresh memory costs as much as what is done in it
        few, many, block = (torch.empty(size, device=self.device) for size in (together * self.width, step * self.width, together * step))
        for start in range(0, len(self.rows), step):
            part = self._read(self.rows, slice(start, start + step), many)
            norms = lengths_of(part)
            half, longest = (norms.square() / 2).float(), max(longest, float(norms.max()))
            for place in (slice(first, first + together) for first in range(0, len(asked), together)):
                some = self._read(self.queries, asked[place], few)
                lengths[place] = lengths_of(some)
                products = torch.mm(some, part.T, out=block[: len(some) * len(part)].view(len(some), -1)).sub_(half)
                new, column = products.topk(min(kept, len(part)), dim=1)
                score[place], chosen = torch.cat([score[place], new], 1).topk(kept, dim=1)
                index[place] = torch.cat([index[place], column + start], 1).gather(1, chosen)
        return score[:, -1].cpu(), index.cpu(), lengths.cpu(), longest

    def _squares(self, asked: np.ndarray, index: Tensor) -> Tensor:
        """Squared distances by direct differences, float64 [A, kept]: exact for gray levels."""
        first, second = np.repeat(asked, index.shape[1]), index.flatten().numpy()
        step = max(1, PAIRS // self.width)
        ours, theirs = (torch.empty(step * self.width, device=self.device) for _ in range(2))
        found = []
        for start in range(0, len(first), step):
            pair = slice(start, start + step)
            apart = self._read(self.queries, first[pair], ours), self._read(self.rows, second[pair], theirs)
            if self.gray:  # each sum of CHUNK squares is a whole number under 2^24
                squares = apart[0].sub_(apart[1]).square_().split(CHUNK, dim=1)
                found.append(torch.stack([part.sum(1) for part in squares], 1).double().sum(1).cpu())
            else:
                found.append((apart[0].double() - apart[1].double()).square_().sum(1).cpu())
        return torch.cat(found).view(index.shape)

    def _read(self, source: Any, rows: slice | np.ndarray, space: Tensor) -> Tensor:
        """Some rows as float32 [m, D] in a space on the device; gray levels around 0."""
        part = torch.from_numpy(np.array(source[rows])).to(self.device).flatten(1)
        part = part if self.columns is None else part[:, self.columns]
        values = space[: part.numel()].view(part.shape).copy_(part)
        return values.sub_(CENTER) if self.gray else values
