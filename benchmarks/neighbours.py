"""Nearest pictures by products of whole numbers in doubles against direct differences: the same distances, in how much of the time.

    python benchmarks/neighbours.py
    python benchmarks/neighbours.py --side 32 --set 50000 --device cuda

Each generation is compared in a mask of its own (as local plants are), so that direct differences go mask by mask.
"""

import argparse

import numpy as np
import torch

from afterglow.data.search import distances, pieces
from afterglow.measures.timing import peak_memory, time_ratio


def direct(images: torch.Tensor, masks: torch.Tensor, pixels: np.ndarray, device: str) -> torch.Tensor:
    """Differences without products, one mask after another, [B, N]."""
    found = torch.empty(len(images), len(pixels))
    for row, (image, mask) in enumerate(zip(images.to(device).float() / 255, masks.to(device), strict=True)):
        inside = mask.expand_as(image)
        for piece in pieces(pixels):
            part = torch.from_numpy(pixels[piece]).to(device).float()[:, inside] / 255
            near = torch.cdist(image[inside][None], part, compute_mode="donot_use_mm_for_euclid_dist")[0]
            found[row, piece] = (near / inside.sum() ** 0.5).cpu()
    return found


def main() -> None:
    """Print the largest difference, the ratio of seconds and the memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=16, help="of the pictures")
    parser.add_argument("--set", type=int, default=4000, help="pictures in the set")
    parser.add_argument("--generations", type=int, default=128)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--pairs", type=int, default=10, help="interleaved pairs of timings")
    options = parser.parse_args()
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (options.set, 3, options.side, options.side), dtype=np.uint8)
    images = torch.from_numpy(generator.integers(0, 256, (options.generations, 3, options.side, options.side), dtype=np.uint8))
    masks = torch.from_numpy(generator.random((options.generations, 1, options.side, options.side)) < 0.5)

    def products() -> torch.Tensor:
        return torch.cat([near for _, near in distances(images, masks, pixels, device=options.device)], dim=1)

    apart = (products() - direct(images, masks, pixels, options.device)).abs().max().item()
    median, low, high = time_ratio(products, lambda: direct(images, masks, pixels, options.device), pairs=options.pairs)
    used = peak_memory(products, torch.device(options.device)) / 2**30
    print(f"{options.generations} generations, {options.set} pictures of {options.side} pixels: distances differ by at most {apart:.1e}")
    print(f"products take {median:.3f}x the seconds of differences [{low:.3f}, {high:.3f}] ({options.pairs} pairs); peak {used:.2f} GiB")


if __name__ == "__main__":
    main()
