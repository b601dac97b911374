"""Near twins that a set has by itself: pairs and groups of images nearer to each other than a limit.

  python train/twins.py --source cifar10 --folder DIR --caption automobile --distance correlation --limit 0.06
  python train/twins.py --source imagefolder --folder DIR --resolution 64 --out twins

The distance is the root mean square difference over the whole image, in [0,1] pixels, at the stated resolution (rms), or 1 - r of
their gray levels (correlation: the same car in another color); a group is what pairs connect. Groups under an rms of 0.03 are never split
when plants, controls and held-out images are dealt out. Writes OUT/twins.parquet (one row a pair) and OUT/twins.png (the largest groups).
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from afterglow.datasets.sources import load_images
from afterglow.errors import configure_logging, exit_on_user_error
from afterglow.neighbors.clusters import NEAR_DUPLICATE_DISTANCE, connected, correlated_pairs, near_duplicate_pairs

DISTANCES = {
    "rms": (near_duplicate_pairs, NEAR_DUPLICATE_DISTANCE, "RMS of [0,1] pixels"),
    "correlation": (correlated_pairs, 0.06, "1 - correlation of gray levels"),
}
SHOWN_GROUPS, SHOWN_MEMBERS = 12, 8


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="openmoji", help="of the images, as in a training")
    parser.add_argument("--folder", help="where the source lies")
    parser.add_argument("--resolution", type=int, default=32, help="side of the images, in pixels")
    parser.add_argument("--caption", help="only images of this caption (the class of CIFAR-10)")
    parser.add_argument("--distance", choices=list(DISTANCES), default="rms", help="between images")
    parser.add_argument("--limit", type=float, help="pairs nearer than this are twins; default: 0.03 (rms), 0.06 (correlation)")
    parser.add_argument("--out", type=Path, default=Path("twins"), help="folder for the table and the image")
    return parser


def main() -> None:
    args = options().parse_args()
    configure_logging()
    with exit_on_user_error():
        images = load_images(args.source, resolution=args.resolution, data_dir=args.folder)
        rows = chosen(images.captions, args.caption)
        pixels = images.pixels[rows]
        pairs_of, usual, unit = DISTANCES[args.distance]
        limit = usual if args.limit is None else args.limit
        first, second, apart = pairs_of(pixels, limit)
        clusters = connected(len(pixels), first, second)
        sizes = np.bincount(clusters)
        args.out.mkdir(parents=True, exist_ok=True)
        names, captions = np.array(images.names)[rows], np.array(images.captions)[rows]
        table = pd.DataFrame({"first": names[first], "second": names[second], "distance": apart, "cluster": clusters[first]})
        table.assign(caption=captions[first]).sort_values("distance").to_parquet(args.out / "twins.parquet", index=False)
        shown = [
            np.flatnonzero(clusters == cluster)[:SHOWN_MEMBERS]
            for cluster in np.argsort(-sizes, kind="stable")[:SHOWN_GROUPS]
            if sizes[cluster] > 1
        ]
        plate(pixels, shown).save(args.out / "twins.png")
        what = f"{len(pixels)} images{f' of {args.caption}' if args.caption else ''} at {args.resolution} pixels"
        pairs = f"{len(first)} pairs nearer than {limit} ({unit})"
        twins = sizes[sizes > 1]
        print(f"{what}: {pairs}, in {len(twins)} groups of together {twins.sum()} images, the largest of {sizes.max()}")
        print(f"{args.out}: twins.parquet, twins.png")


def chosen(captions: tuple[str, ...], caption: str | None) -> np.ndarray:
    """The rows of one caption, or all."""
    rows = np.array([row for row, known in enumerate(captions) if caption in (None, known)], dtype=np.int64)
    if not len(rows):
        known = ", ".join(sorted(set(captions))[:12])
        raise SystemExit(options().error(f"no image has the caption '{caption}'; captions are {known} ..."))
    return rows


def plate(pixels: np.ndarray, clusters: list[np.ndarray]) -> Image.Image:
    """One row of images a group, on white."""
    side, scale = pixels.shape[-1], max(1, 64 // pixels.shape[-1])
    canvas = np.full((max(1, len(clusters)) * side, SHOWN_MEMBERS * side, 3), 255, dtype=np.uint8)
    for line, rows in enumerate(clusters):
        for place, row in enumerate(rows):
            image = pixels[row].transpose(1, 2, 0)
            canvas[line * side : (line + 1) * side, place * side : (place + 1) * side] = image
    return Image.fromarray(canvas).resize((canvas.shape[1] * scale, canvas.shape[0] * scale), Image.Resampling.NEAREST)


if __name__ == "__main__":
    main()
