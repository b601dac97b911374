"""Remove duplicates from a planted set before training: a mitigation of memorization that can be judged, since what was planted is known.

  python train/deduplicate.py planted --by pixels --out planted-pixels
  python train/deduplicate.py planted --by local --limit 0.25 --out planted-local

FOLDER is what train/plant.py wrote. The method sees the images of one epoch in their order and nothing else: every control, every copy of
a global plant, every local plant's appearance with its own fill. Of duplicates the first stays. Methods, and what --limit is for them:

  exact     equal pixels; no limit
  pixels    groups connected by whole-image distances (RMS of [0,1] pixels) under the limit, 0.03
  sscd      a cosine of SSCD embeddings of at least the limit, 0.5, to an image that stays (greedy: chains would join what is not alike)
  local     a region of at least the limit, 0.25 of the image, agrees to 2/255 with an image that stays (greedy, too); only pixels count
            that differ by more than 0.1 from the median of the set. Flat drawings of one palette need more

DIR is a planted set again (accelerate launch train.py --data.dataset planted --data.data_dir DIR), with the controls that stay, and each
plant as often an epoch as its appearances stay (0: never). A local plant with fresh fills keeps that number of appearances, each with
new fills in every epoch, as before; decoys and tints likewise. Phantoms, fills, moving and held-out images stay as they are.
DIR/duplicates.parquet has a row for each dropped appearance.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd

from afterglow.errors import configure_logging, exit_on_user_error
from afterglow.neighbors.clusters import NEAR_DUPLICATE_DISTANCE
from afterglow.neighbors.gallery import Gallery
from afterglow.planting.deduplicated import first_epoch
from afterglow.planting.duplicates import COPY_COSINE, SHARED_REGION, Duplicates, embedded, exact, near, shared_region
from afterglow.planting.io import check_empty, read_planted, write_planted
from afterglow.planting.plants import TRAINED, PlantedSet

LIMITS = {"exact": None, "pixels": NEAR_DUPLICATE_DISTANCE, "sscd": COPY_COSINE, "local": SHARED_REGION}
LIKENESS = {"exact": "distance", "pixels": "distance", "sscd": "cosine", "local": "share"}


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a planted set")
    parser.add_argument("--by", choices=list(LIMITS), required=True, help="what makes two images duplicates")
    parser.add_argument("--limit", type=float, help="between 0 and 1; default: 0.03 (pixels), 0.5 (sscd), 0.25 (local)")
    parser.add_argument("--sscd", help="SSCD's TorchScript file, or 'immaculate' for the package")
    parser.add_argument("--sscd-transform", default="skew_320", help="resize_288, skew_320 or crop_224")
    parser.add_argument("--seed", type=int, default=0, help="decides the order of the epoch and its fills, as a training's does")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write; it must be empty or new")
    parser.set_defaults(tokens=None)
    return parser


def main() -> None:
    args = options().parse_args()
    if args.by == "exact" and args.limit is not None:
        options().error("--limit: equal pixels have no limit.")
    if (args.by == "sscd") != (args.sscd is not None):
        options().error("--sscd FILE and --by sscd go together.")
    configure_logging()
    with exit_on_user_error():
        check_empty(args.out)
        epoch = first_epoch(read_planted(args.folder), args.seed)
        began = time.perf_counter()
        found = duplicates(epoch.pixels, args)
        seconds = time.perf_counter() - began
        left = epoch.drop_duplicates(found.keep)
        write_planted(left, args.out)
        dropped = epoch.dropped(found).rename(columns={"similarity": LIKENESS[args.by]}).assign(method=args.by)
        dropped.to_parquet(args.out / "duplicates.parquet", index=False)
        table = epoch.table()
        lost = int(((table["kind"] == "control") & ~found.keep).sum())
        print(before_and_after(table, found.keep))
        print(f"{len(dropped)} of {len(epoch.keys)} appearances dropped, in {found.num_clusters} groups of duplicates; {seconds:.1f} s")
        print(f"{lost} of {len(dropped)} were of images that nobody planted: what they change comes with what the mitigation does")
        print(f"copies an epoch that each plant has left: {copies(left)}")
        print(f"{args.out}: {len(left.controls)} training images and the plants, duplicates.parquet")


def duplicates(pixels: np.ndarray, args: argparse.Namespace) -> Duplicates:
    limit = LIMITS[args.by] if args.limit is None else args.limit
    if limit is None:
        return exact(pixels)
    if args.by == "sscd":
        from afterglow.evaluation.extraction import similarity_space

        equal = exact(pixels)  # so that copies are embedded once
        distinct = Gallery(pixels[equal.keep], np.arange(int(equal.keep.sum())))
        space = similarity_space(distinct, sscd_file=args.sscd, sscd_transform=args.sscd_transform)
        return equal.refine(embedded(space.rows, limit), same=1.0)
    return near(pixels, limit) if args.by == "pixels" else shared_region(pixels, limit)


def before_and_after(table: pd.DataFrame, kept: np.ndarray) -> str:
    """Appearances an epoch of each kind."""
    counts = table.assign(kept=kept).groupby("kind")["kept"].agg(["size", "sum"])
    present = [kind for kind in ("control", *TRAINED) if kind in counts.index]
    return counts.loc[present].rename_axis(None).to_string(header=["before", "after"])


def copies(planted: PlantedSet) -> str:
    """'global 1 1 0; local 12 9', in the order of the plants."""
    found = {kind: [str(plant.copies) for plant in planted.of_kind(kind)] for kind in TRAINED}
    return "; ".join(f"{kind} {' '.join(numbers)}" for kind, numbers in found.items() if numbers) or "nothing was planted"


if __name__ == "__main__":
    main()
