"""Near twins that a set has by itself: pairs and groups of pictures nearer to each other than a limit.

  python train/twins.py --source cifar10 --folder DIR --caption automobile --distance correlation --limit 0.06
  python train/twins.py --source imagefolder --folder DIR --resolution 64 --out twins

The distance is the root mean square difference over the whole picture, in [0,1] pixels, at the stated resolution (rms), or 1 - r of
their grey levels (correlation: the same car in another colour); a group is what pairs connect. Groups under an rms of 0.03 are never split
when plants, controls and held-out pictures are dealt out. Writes OUT/twins.parquet (one row a pair) and OUT/twins.png (the largest groups).
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from afterglow.data.neighbours import TWIN_DISTANCE, connected, correlated_pairs, twin_pairs
from afterglow.data.sources import load_pictures
from afterglow.sentences import quiet, sentences

DISTANCES = {
    "rms": (twin_pairs, TWIN_DISTANCE, "RMS of [0,1] pixels"),
    "correlation": (correlated_pairs, 0.06, "1 - correlation of grey levels"),
}
SHOWN_GROUPS, SHOWN_MEMBERS = 12, 8


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="openmoji", help="of the pictures, as in a training")
    parser.add_argument("--folder", help="where the source lies")
    parser.add_argument("--resolution", type=int, default=32, help="side of the pictures, in pixels")
    parser.add_argument("--caption", help="only pictures of this caption (the class of CIFAR-10)")
    parser.add_argument("--distance", choices=list(DISTANCES), default="rms", help="between pictures")
    parser.add_argument("--limit", type=float, help="pairs nearer than this are twins; default: 0.03 (rms), 0.06 (correlation)")
    parser.add_argument("--out", type=Path, default=Path("twins"), help="folder for the table and the picture")
    return parser


def main() -> None:
    args = options().parse_args()
    quiet()
    with sentences():
        pictures = load_pictures(args.source, resolution=args.resolution, folder=args.folder)
        rows = chosen(pictures.captions, args.caption)
        pixels = pictures.pixels[rows]
        pairs_of, usual, unit = DISTANCES[args.distance]
        limit = usual if args.limit is None else args.limit
        first, second, apart = pairs_of(pixels, limit)
        groups = connected(len(pixels), first, second)
        sizes = np.bincount(groups)
        args.out.mkdir(parents=True, exist_ok=True)
        names, captions = np.array(pictures.names)[rows], np.array(pictures.captions)[rows]
        table = pd.DataFrame({"first": names[first], "second": names[second], "distance": apart, "group": groups[first]})
        table.assign(caption=captions[first]).sort_values("distance").to_parquet(args.out / "twins.parquet", index=False)
        shown = [
            np.flatnonzero(groups == group)[:SHOWN_MEMBERS]
            for group in np.argsort(-sizes, kind="stable")[:SHOWN_GROUPS]
            if sizes[group] > 1
        ]
        plate(pixels, shown).save(args.out / "twins.png")
        what = f"{len(pixels)} pictures{f' of {args.caption}' if args.caption else ''} at {args.resolution} pixels"
        pairs = f"{len(first)} pairs nearer than {limit} ({unit})"
        twins = sizes[sizes > 1]
        print(f"{what}: {pairs}, in {len(twins)} groups of together {twins.sum()} pictures, the largest of {sizes.max()}")
        print(f"{args.out}: twins.parquet, twins.png")


def chosen(captions: tuple[str, ...], caption: str | None) -> np.ndarray:
    """The rows of one caption, or all."""
    rows = np.array([row for row, known in enumerate(captions) if caption in (None, known)], dtype=np.int64)
    if not len(rows):
        known = ", ".join(sorted(set(captions))[:12])
        raise SystemExit(options().error(f"no picture has the caption '{caption}'; captions are {known} ..."))
    return rows


def plate(pixels: np.ndarray, groups: list[np.ndarray]) -> Image.Image:
    """One row of pictures a group, on white."""
    side, scale = pixels.shape[-1], max(1, 64 // pixels.shape[-1])
    canvas = np.full((max(1, len(groups)) * side, SHOWN_MEMBERS * side, 3), 255, dtype=np.uint8)
    for line, rows in enumerate(groups):
        for place, row in enumerate(rows):
            picture = pixels[row].transpose(1, 2, 0)
            canvas[line * side : (line + 1) * side, place * side : (place + 1) * side] = picture
    return Image.fromarray(canvas).resize((canvas.shape[1] * scale, canvas.shape[0] * scale), Image.Resampling.NEAREST)


if __name__ == "__main__":
    main()
