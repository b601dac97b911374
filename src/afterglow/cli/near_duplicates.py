"""Find near-duplicates in a dataset: pairs of images nearer to each other than a limit, and the clusters that these pairs connect.

  afterglow near-duplicates --dataset cifar10 --data-dir DIR --caption automobile --distance correlation --limit 0.06
  afterglow near-duplicates --dataset cifar10 --data-dir DIR --caption automobile --distance correlation --families cars
  afterglow near-duplicates --dataset imagefolder --data-dir DIR --resolution 64 --out near_duplicates

The distance is the root mean square difference of [0,1] pixels over the whole image at the given resolution (rms), or 1 - r of the
gray levels (correlation: finds the same car in another color). Clusters at an rms limit of 0.03 are never split between plants, controls
and held-out images. Writes OUT/near_duplicates.parquet (one row for each pair) and OUT/near_duplicates.png (the largest clusters).
--families also writes the searched images as an imagefolder in which each cluster is a natural family: train on it with --data.dataset
imagefolder and --data.planting.num_natural.
"""

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from afterglow.cli.options import add_dataset_arguments
from afterglow.cli.parser import announce, positive
from afterglow.errors import AfterglowError, require_fraction, shown

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

_LIMITS = {"rms": 0.03, "correlation": 0.06}
UNITS = {"rms": "RMS of [0,1] pixels", "correlation": "1 - correlation of gray levels"}
NUM_CLUSTERS, NUM_MEMBERS = 12, 8  # drawn in the figure


def add_arguments(parser: ArgumentParser) -> None:
    """Define the options."""
    data = parser.add_argument_group("data")
    add_dataset_arguments(data, "dataset to search", "openmoji")
    data.add_argument("--resolution", type=positive, default=32, metavar="PIXELS", help="side of the images")
    data.add_argument("--caption", help="search only images with this caption, such as a class of CIFAR-10 (default: all images)")
    parser.add_argument("--distance", choices=list(_LIMITS), default="rms", help="distance between two images")
    parser.add_argument("--limit", type=float, help="largest distance of near-duplicates (default: 0.03 for rms, 0.06 for correlation)")
    parser.add_argument("--out", type=Path, default=Path("near_duplicates"), metavar="DIR", help="folder for the table and the figure")
    families = "new folder for the images, with their clusters as natural families (default: none)"
    parser.add_argument("--families", type=Path, metavar="DIR", help=families)


def run(args: Namespace) -> None:
    """Search, print the counts, and write the table and the figure."""
    limit = _LIMITS[args.distance] if args.limit is None else args.limit
    require_fraction(**{"--limit": limit})
    if args.families is not None and args.families.exists():
        raise AfterglowError(f"'{args.families}' exists: --families writes a new folder.")
    announce(f"Reading {args.dataset} ...")
    import numpy as np
    import pandas as pd

    from afterglow.datasets.sources import load_images
    from afterglow.neighbors.clusters import connected, correlated_pairs, near_duplicate_pairs

    images = load_images(args.dataset, resolution=args.resolution, data_dir=args.data_dir)
    rows = _rows_with_caption(images.captions, args.caption)
    pixels = images.pixels[rows]
    first, second, distances = (near_duplicate_pairs if args.distance == "rms" else correlated_pairs)(pixels, limit)
    clusters = connected(len(pixels), first, second)
    sizes = np.bincount(clusters)
    args.out.mkdir(parents=True, exist_ok=True)
    names, captions = np.array(images.names)[rows], np.array(images.captions)[rows]
    table = pd.DataFrame({"first": names[first], "second": names[second], "distance": distances, "cluster": clusters[first]})
    table.assign(caption=captions[first]).sort_values("distance").to_parquet(args.out / "near_duplicates.parquet", index=False)
    largest = [cluster for cluster in np.argsort(-sizes, kind="stable")[:NUM_CLUSTERS] if sizes[cluster] > 1]
    _figure(pixels, [np.flatnonzero(clusters == cluster)[:NUM_MEMBERS] for cluster in largest]).save(args.out / "near_duplicates.png")
    of_caption = f" of {args.caption}" if args.caption else ""
    several = sizes[sizes > 1]
    print(
        f"{len(pixels)} images{of_caption} at {args.resolution} pixels: {len(first)} pairs nearer than {limit} ({UNITS[args.distance]}), "
        f"in {len(several)} clusters with {several.sum()} images; the largest cluster has {sizes.max()}"
    )
    print(f"{args.out}: near_duplicates.parquet, near_duplicates.png")
    if args.families is not None:
        _write_families(args.families, pixels, captions.tolist(), np.where(sizes[clusters] > 1, clusters, -1).tolist())
        print(f"{args.families}: {len(pixels)} images, {len(several)} families")


def _rows_with_caption(captions: tuple[str, ...], caption: str | None) -> "np.ndarray":
    """Rows of one caption, or all rows."""
    import numpy as np

    rows = np.array([row for row, known in enumerate(captions) if caption in (None, known)], dtype=np.int64)
    if not len(rows):
        raise AfterglowError(
            f"No image has the caption '{shown(caption)}'; captions are {shown(', '.join(sorted(set(captions))[:12]), 150)} ..."
        )
    return rows


def _write_families(folder: Path, pixels: "np.ndarray", captions: list[str], families: list[int]) -> None:
    """An imagefolder with the columns text and family; -1: the image belongs to no family."""
    from PIL import Image

    from afterglow.cache import atomic_path

    with atomic_path(folder) as path:
        path.mkdir(parents=True)
        with (path / "metadata.jsonl").open("w", encoding="utf-8") as file:
            for row, (image, caption, family) in enumerate(zip(pixels, captions, families, strict=True)):
                Image.fromarray(image.transpose(1, 2, 0)).save(path / f"{row:05d}.png")
                file.write(json.dumps({"file_name": f"{row:05d}.png", "text": caption, "family": family}) + "\n")


def _figure(pixels: "np.ndarray", clusters: list["np.ndarray"]) -> "Image.Image":
    """One line of images for each cluster, on white."""
    import numpy as np
    from PIL import Image

    side, scale = pixels.shape[-1], max(1, 64 // pixels.shape[-1])
    canvas = np.full((max(1, len(clusters)) * side, NUM_MEMBERS * side, 3), 255, dtype=np.uint8)
    for line, rows in enumerate(clusters):
        for column, row in enumerate(rows):
            canvas[line * side : (line + 1) * side, column * side : (column + 1) * side] = pixels[row].transpose(1, 2, 0)
    return Image.fromarray(canvas).resize((canvas.shape[1] * scale, canvas.shape[0] * scale), Image.Resampling.NEAREST)
