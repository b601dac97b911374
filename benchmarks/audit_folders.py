"""Split a set of images for the worked example of an audit: a base model's, 40 of a user, and images that nobody trains on.

  python benchmarks/audit_folders.py --dataset celeba --data-dir DIR --out faces

writes faces/base, faces/mine and faces/others with metadata.jsonl. Three of the images in `mine` are there three times, under other names.
No image has a near-duplicate in another folder. With --near-duplicates `mine` has all images of which the set has a near-duplicate and as
many that have none, `others` has 200.
"""

import argparse
from pathlib import Path

import numpy as np
from folders import write_folder

from afterglow.datasets.sources import load_images
from afterglow.neighbors.clusters import cluster_images

MINE, REPEATED, TIMES = 34, 3, 3  # 40 files
OTHERS, BASE = slice(MINE, MINE + 64), slice(MINE + 400, None)


def main() -> None:
    """Write the three folders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="celeba")
    parser.add_argument("--data-dir")
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--near-duplicates", action="store_true", help="choose images of which the set has near-duplicates")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    images = load_images(args.dataset, resolution=args.resolution, data_dir=args.data_dir)
    _, first, cluster, sizes = np.unique(
        cluster_images(images.pixels, images.families), return_index=True, return_inverse=True, return_counts=True
    )
    if args.near_duplicates:
        repeated = np.flatnonzero(sizes[cluster] > 1).tolist()
        order, count = np.random.default_rng(0).permutation(first[sizes == 1]).tolist(), len(repeated)
        rows = {"mine": repeated + order[:count], "others": order[count : count + 200], "base": order[count + 200 :]}
    else:
        order = np.random.default_rng(0).permutation(first).tolist()  # one image of each cluster
        rows = {"mine": order[:MINE], "others": order[OTHERS], "base": order[BASE]}
    files = {name: [(row, "") for row in own] for name, own in rows.items()}
    if not args.near_duplicates:
        files["mine"] += [(row, f"-copy{time}") for row in order[:REPEATED] for time in range(1, TIMES)]
    for name, own in files.items():
        write_folder(
            args.out / name, [(f"{Path(images.names[row]).stem}{end}", images.pixels[row], images.captions[row]) for row, end in own]
        )


if __name__ == "__main__":
    main()
