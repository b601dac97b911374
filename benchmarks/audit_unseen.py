"""Folders of images of a run's dataset that the run never saw, so that everything that an audit of them calls copied is a false positive.

  python benchmarks/audit_unseen.py runs/photographs-celeba-2-1 --out unseen
  afterglow audit --model runs/photographs-celeba-2-1 --data unseen/audited --heldout unseen/heldout --out audit
  python benchmarks/audit_truth.py audit runs/photographs-celeba-2-1

Near-duplicates of the run's images are left out, and no cluster of near-duplicates is in both folders.
"""

import argparse
from pathlib import Path

import numpy as np
from folders import write_folder

from afterglow.datasets.sources import load_images
from afterglow.files import read_yaml
from afterglow.neighbors.clusters import cluster_images
from afterglow.planting.runs import load_planted_set


def main() -> None:
    """Write both folders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--images", type=int, default=500, help="images in audited; heldout has 200")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    data = read_yaml(args.run / "config.yaml")["data"]["init_args"]
    images = load_images(data["dataset"], resolution=data["resolution"], data_dir=data["data_dir"])
    clusters = cluster_images(images.pixels, images.families)
    used = np.isin(images.names, load_planted_set(args.run).compact().names)
    order = np.random.default_rng(0).permutation(np.setdiff1d(clusters, clusters[used]))
    rows = np.concatenate([np.flatnonzero(clusters == cluster) for cluster in order])
    first = {"audited": rows[: args.images]}
    first["heldout"] = rows[~np.isin(clusters[rows], clusters[first["audited"]])][:200]
    for name, chosen in first.items():
        named = [(images.names[row].replace("/", "_"), images.pixels[row], images.captions[row]) for row in chosen.tolist()]
        write_folder(args.out / name, named)
    print(f"from {np.unique(clusters[rows]).size} clusters that the run never saw")


if __name__ == "__main__":
    main()
