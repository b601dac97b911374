"""Exact nearest training images of many generations: speed beside the bare matrix product, memory, equality with brute force.

    python benchmarks/neighbors.py
    python benchmarks/neighbors.py --generations 256 --set 2000 --part 128 --pairs 3
    python benchmarks/neighbors.py --device cuda --part 10000

10,000 generations against 50,000 images of CIFAR-10's size, made up: smooth fields with noise, and among the generations copies, noisy
copies and new fields. The whole search runs once, for its seconds and its memory. Its ratios to the bare float32 product and to the
public way (torch.cdist against the set in chunks, one generation after another) are medians over interleaved pairs on `--part`
generations against the whole set, where what a search does once for all generations weighs more than in the whole. Beside it
`Gallery.nearest` with a mask of its own for each generation, against direct differences.

Bounds: 70 % of the speed of the product, less than 4 GiB, and the same neighbors as brute force.
"""

import argparse
import time

import numpy as np
import torch
from timing import peak_memory, time_ratio
from torch.nn.functional import interpolate

from afterglow.memory import keep_freed_memory
from afterglow.neighbors.gallery import Gallery
from afterglow.neighbors.search import iter_chunks, nearest

PUBLIC = 8  # generations that the public way is timed on
CHECKED = 64  # generations whose neighbors brute force finds too
CHUNK = 10_000  # images in one torch.cdist


def fields(count: int, side: int, seed: int) -> np.ndarray:
    """uint8 [count, 3, side, side]: as smooth as photographs are, with noise."""
    generator = torch.Generator().manual_seed(seed)
    found = np.empty((count, 3, side, side), dtype=np.uint8)
    for start in range(0, count, 5000):
        size = min(5000, count - start)
        smooth = interpolate(torch.randn(size, 3, 6, 6, generator=generator), size=(side, side), mode="bicubic")
        noise = torch.randn(size, 3, side, side, generator=generator)
        found[start : start + size] = (120 + 64 * smooth + 12 * noise).clamp(0, 255).to(torch.uint8).numpy()
    return found


def generations(count: int, pixels: np.ndarray) -> np.ndarray:
    """A third copies, a third copies with noise, a third new; mixed."""
    generator = np.random.default_rng(1)
    images = fields(count, pixels.shape[-1], seed=2)
    copied = pixels[generator.integers(0, len(pixels), count)]
    noisy = (copied + generator.normal(0, 8, copied.shape).astype(np.float32)).clip(0, 255).astype(np.uint8)
    kind = np.arange(count) % 3
    images[kind == 0], images[kind == 1] = copied[kind == 0], noisy[kind == 1]
    return images


def brute_force(images: np.ndarray, pixels: np.ndarray, k: int) -> np.ndarray:
    """Indices of the k nearest by all differences in whole numbers, ties by lowest index, [B, k]."""
    found = np.empty((len(images), len(pixels)), dtype=np.int64)
    for row, image in enumerate(images):
        for piece in iter_chunks(pixels):
            apart = np.abs(pixels[piece].astype(np.int16) - image).reshape(-1, image.size).astype(np.uint16)
            found[row, piece] = np.einsum("nd,nd->n", apart, apart, dtype=np.int64)
    return np.argsort(found, axis=1, kind="stable")[:, :k]


def public(images: torch.Tensor, pixels: torch.Tensor, k: int) -> list[torch.Tensor]:
    """One generation after another, the set in chunks. images, pixels: float32 [B, D] and [N, D]."""
    return [
        torch.cat([torch.cdist(image[None], chunk)[0] for chunk in pixels.split(CHUNK)]).topk(k, largest=False).indices for image in images
    ]


def bare(images: torch.Tensor, pixels: torch.Tensor, out: torch.Tensor) -> None:
    """The float32 product of the same shape; `out` is memory that is there already."""
    torch.mm(images, pixels.T, out=out)
    if out.is_cuda:
        torch.cuda.synchronize()


def own_masks(side: int) -> str:
    """`Gallery.nearest` against direct differences, each image in a mask of its own."""
    pixels, images = fields(500, side, seed=3), torch.from_numpy(fields(32, side, seed=4))
    masks = torch.from_numpy(np.random.default_rng(5).random((32, 1, side, side)) < 0.5)
    found = Gallery(pixels, np.arange(len(pixels))).nearest(images, masks, num_clusters=len(pixels)).distances
    worst = 0.0
    for image, mask, near in zip(images, masks, found, strict=True):
        inside = mask.expand_as(image)
        apart = (torch.from_numpy(pixels)[:, inside].double() - image[inside].double()).square().mean(1).sqrt().sort().values / 255
        worst = max(worst, float((apart - near).abs().max()))
    return f"in masks of their own: distances differ by at most {worst:.1e} from direct differences"


def main() -> None:
    """Print seconds, memory, equality and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=32, help="of the images")
    parser.add_argument("--set", type=int, default=50_000, help="images in the set")
    parser.add_argument("--generations", type=int, default=10_000)
    parser.add_argument("--k", type=int, default=51, help="neighbors of each: a calibrated distance needs 51")
    parser.add_argument("--part", type=int, default=1024, help="generations in one timing")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--pairs", type=int, default=10, help="interleaved pairs of timings")
    options = parser.parse_args()
    keep_freed_memory()  # as the commands do
    pixels = fields(options.set, options.side, seed=0)
    images = generations(options.generations, pixels)
    found: list[torch.Tensor] = []

    def whole() -> None:
        found.append(nearest(images, pixels, options.k, device=options.device)[0])

    begin = time.perf_counter()
    used = peak_memory(whole, torch.device(options.device)) / 2**30
    seconds = time.perf_counter() - begin
    print(f"{options.generations} generations, {options.set} images of {options.side} pixels, {options.k} neighbors, {options.device}")
    print(f"the whole search: {seconds:.1f} s, peak {used:.2f} GiB (bound 4)")
    checked = np.linspace(0, options.generations - 1, min(CHECKED, options.generations)).astype(int)
    wrong = (found[0][checked].numpy() != brute_force(images[checked], pixels, options.k)).sum()
    print(f"brute force on {len(checked)} generations: {wrong} of {len(checked) * options.k} neighbors differ (bound 0)")

    some = images[: options.part]
    first, second = (torch.from_numpy(values).to(options.device).flatten(1).float() for values in (some, pixels))
    out = torch.empty(len(some), len(pixels), device=options.device)

    def search() -> None:
        nearest(some, pixels, options.k, device=options.device)

    share, low, high = time_ratio(lambda: bare(first, second, out), search, pairs=options.pairs)
    print(
        f"speed as a share of the bare product, {len(some)} generations: "
        f"{share:.2f} [{low:.2f}, {high:.2f}] ({options.pairs} pairs; bound 0.70)"
    )
    few = first[:PUBLIC]
    ratio, low, high = time_ratio(lambda: public(few, second, options.k), search, pairs=min(5, options.pairs))
    ratio, low, high = (value * len(some) / len(few) for value in (ratio, low, high))
    print(f"the public way takes {ratio:.1f}x the seconds [{low:.1f}, {high:.1f}], from {len(few)} generations of it")
    print(own_masks(options.side))


if __name__ == "__main__":
    main()
