"""How many real images that no model saw pass the tests of extraction, and how many true copies do.

  python benchmarks/copy_false_positives.py --data DIR --dataset cifar10 --resolution 16

DIR holds the folder of the dataset (openmoji needs none). Training sets of several sizes and the unseen images are drawn from the same
dataset, one image per near-duplicate cluster. Every second unseen image chooses the limit of the best tile, the others test it. A true
copy is an unseen image with one quarter of a training image in it, to which noise was added; it counts if this quarter passes.
"""

import argparse

import numpy as np
import torch

from afterglow.analysis.extraction import calibrated_limit, tile_calibrated_l2
from afterglow.datasets.sources import load_images
from afterglow.evaluation.extraction import tile_extras
from afterglow.evaluation.ground_truth import NUM_NEIGHBORS
from afterglow.functional.distances import CLOSE_RATIO, ONE_LEVEL, calibrated_l2, mean_finite, nn_ratio
from afterglow.neighbors.clusters import cluster_images
from afterglow.neighbors.gallery import Gallery, tile_masks
from afterglow.reports.tables import count_text, text_table

NUM_UNSEEN, GRID = 1000, 2
NOISES = (0.02, 0.036, 0.06)  # standard deviation of the noise of a copy, in [0, 1] pixels
TERMS = ("tile_distance", "tile_other", "tile_own_other", "tile_contrast")


def main() -> None:
    """Print one row per set size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="openmoji, cifar10, celeba or flowers102")
    parser.add_argument("--data", help="folder of the dataset")
    parser.add_argument("--resolution", type=int, default=16)
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 64, 500, 2000], help="numbers of training images")
    args = parser.parse_args()
    generator, most = np.random.default_rng(0), {} if args.dataset == "openmoji" else {"max_images": NUM_UNSEEN + 5 * max(args.sizes) // 2}
    images = load_images(args.dataset, resolution=args.resolution, data_dir=args.data, **most)
    first = np.unique(cluster_images(images.pixels, images.families), return_index=True)[1]
    pixels = images.pixels[generator.permutation(first)]
    unseen, rest, rows = pixels[:NUM_UNSEEN], pixels[NUM_UNSEEN:], []
    for size in [size for size in args.sizes if size <= len(rest)]:
        gallery = Gallery(rest[:size], np.arange(size))
        copies = [count_text(int(value), len(unseen), digits=1) for value in whole_copies(unseen, gallery)]
        tiles = tile_values(unseen, gallery).amin(1).numpy()
        limit = calibrated_limit(tiles)
        found = [f"{share:.2f}" for share in power(unseen, gallery, limit, generator)]
        compared = tiles[1::2]
        rows.append([str(size), *copies, f"{limit:.2f}", count_text(int((compared < limit).sum()), len(compared), digits=1), *found])
    whole = ["whole, under 1", "whole, d1/d2 under 1/3", "old tile rule"]
    head = ["n", *whole, "limit of a tile", "best tile, other half", *(f"copies found, noise {noise}" for noise in NOISES)]
    print(f"{args.dataset}, {args.resolution} pixels, {len(unseen)} unseen images (95 %, Wilson)\n\n{text_table(head, rows)}", flush=True)


def whole_copies(images: np.ndarray, gallery: Gallery) -> list[float]:
    """Numbers of images that pass the two tests of whole images, and Carlini's calibrated distance inside the best tile."""
    side, queries = images.shape[-1], torch.from_numpy(images)
    near = gallery.nearest(queries, torch.ones(1, side, side, dtype=torch.bool), num_clusters=NUM_NEIGHBORS + 1).distances
    old = torch.full((len(images),), torch.inf)
    for tile in tile_masks(side, GRID):
        distances = gallery.nearest(queries, tile, num_clusters=NUM_NEIGHBORS + 1).distances
        calibrated = calibrated_l2(distances[:, 0], distances[:, 1:])
        old = torch.minimum(old, calibrated.where(mean_finite(distances[:, 1:]) >= ONE_LEVEL, torch.inf))
    tests = calibrated_l2(near[:, 0], near[:, 1:]) < 1, nn_ratio(near[:, 0], near[:, 1]) < CLOSE_RATIO, old < 1
    return [float(passed.sum()) for passed in tests]


def tile_values(images: np.ndarray, gallery: Gallery) -> torch.Tensor:
    """Calibrated distance of each tile, [B, T]."""
    tiles = [tile_extras(torch.from_numpy(images), tile, gallery) for tile in tile_masks(images.shape[-1], GRID)]
    return torch.stack([tile_calibrated_l2(*(tile[name] for name in TERMS)) for tile in tiles], dim=1)


def power(unseen: np.ndarray, gallery: Gallery, limit: float, generator: np.random.Generator) -> list[float]:
    """Fraction of the copied tiles that pass, for each noise."""
    masks, found = tile_masks(unseen.shape[-1], GRID)[:, 0].numpy(), []
    for noise in NOISES:
        rows, tiles = generator.integers(len(gallery.pixels), size=len(unseen)), generator.integers(len(masks), size=len(unseen))
        noisy = gallery.pixels[rows] + generator.normal(0, 255 * noise, unseen.shape)
        images = np.where(masks[tiles][:, None], noisy.round().clip(0, 255).astype(np.uint8), unseen)
        values = tile_values(images, gallery)[torch.arange(len(unseen)), torch.from_numpy(tiles)]
        found.append(float((values < limit).float().mean()))
    return found


if __name__ == "__main__":
    main()
