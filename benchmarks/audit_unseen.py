"""Folders of images of a run's dataset that the run never saw, so that everything that an audit of them calls copied is a false positive.

  python benchmarks/audit_unseen.py runs/photographs-celeba-2-1 --out unseen
  afterglow audit --model runs/photographs-celeba-2-1 --data unseen/audited --heldout unseen/heldout --out audit
  python benchmarks/audit_truth.py audit runs/photographs-celeba-2-1 --images unseen/audited

Near-duplicates of the run's images are left out, and of each cluster of near-duplicates, such as the skin tones of one drawing, one image
is taken: an interval of a fraction counts what is independent. The run's phantoms, built like its plants and never trained on, are audited,
too.
"""

import argparse
from pathlib import Path

import numpy as np
from folders import write_folder

from afterglow.datasets.sources import load_images
from afterglow.files import read_yaml
from afterglow.neighbors.clusters import cluster_images
from afterglow.planting.runs import load_planted_set
from afterglow.reports.images import read_pixels
from afterglow.reports.run import read_plants


def main() -> None:
    """Write both folders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--images", type=int, default=500, help="images in audited beside the phantoms; heldout has 200")
    parser.add_argument("--among", type=int, default=10000, help="number of the dataset's other images from which they are chosen")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    data = read_yaml(args.run / "config.yaml")["data"]["init_args"]
    images = load_images(data["dataset"], resolution=data["resolution"], data_dir=data["data_dir"])
    used = np.isin(images.names, load_planted_set(args.run).compact().names)
    searched = np.sort(np.concatenate([np.flatnonzero(used), np.random.default_rng(1).permutation(np.flatnonzero(~used))[: args.among]]))
    clusters = cluster_images(images.pixels[searched], images.families[searched])
    order = np.random.default_rng(0).permutation(np.setdiff1d(clusters, clusters[used[searched]]))
    rows = np.array([np.flatnonzero(clusters == cluster)[0] for cluster in order])
    for name, chosen in {"audited": rows[: args.images], "heldout": rows[args.images :][:200]}.items():
        named = [(images.names[row].replace("/", "_"), images.pixels[row], images.captions[row]) for row in searched[chosen].tolist()]
        write_folder(args.out / name, named + (phantoms(args.run) if name == "audited" else []))
    print(f"from {len(rows)} clusters that the run never saw")


def phantoms(run: Path) -> list[tuple[str, np.ndarray, str]]:
    """Name, pixels and caption of a run's phantoms."""
    plants = {number: plant for number, plant in read_plants(run).items() if plant["kind"] == "phantom"}
    return [(f"phantom-{number}", read_pixels(run / "plants" / plant["file_name"]), plant["text"]) for number, plant in plants.items()]


if __name__ == "__main__":
    main()
