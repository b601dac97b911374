"""Remove duplicates from a planted set before training. What was planted is known, so that this mitigation can be evaluated.

  afterglow deduplicate planted --method pixels --out planted-pixels
  afterglow deduplicate planted --method local --limit 0.25 --out planted-local

FOLDER is a folder that `afterglow plant` wrote. The method sees the images of one epoch in their order and nothing else: every control,
every copy of a global plant, every appearance of a local plant with its own background. The first of several duplicates is kept.
Methods, and what --limit means for them:

  exact     equal pixels; no limit
  pixels    clusters connected by whole-image distances (RMS of [0,1] pixels) below the limit, 0.03
  sscd      cosine of SSCD embeddings to a kept image at or above the limit, 0.5 (greedy)
  local     a region of at least the limit, 0.25 of the image, agrees to 2/255 with a kept image (greedy). Only pixels count that differ
            by more than 0.1 from the median of the set. Flat drawings of one palette need a higher limit

DIR is a planted set again (python train.py --data.dataset planted --data.data_dir DIR). It holds the kept controls, and each plant with as
many copies per epoch as appearances were kept (0: never shown). A local plant with fresh backgrounds keeps that number of appearances,
each with a new background in every epoch; decoys and tints likewise. Phantoms, background, decoy and held-out images do not change.
DIR/duplicates.parquet has one row for each dropped appearance.
"""

import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from afterglow.cli.options import add_sscd_arguments
from afterglow.cli.parser import announce, count, finite
from afterglow.errors import AfterglowError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from afterglow.planting.duplicates import Duplicates
    from afterglow.planting.plants import PlantedSet

SIMILARITY_COLUMN = {"exact": "distance", "pixels": "distance", "sscd": "cosine", "local": "share"}


def add_arguments(parser: ArgumentParser) -> None:
    """Define the options."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="planted set")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write; it must be empty or new")
    parser.add_argument("--method", choices=list(SIMILARITY_COLUMN), required=True, help="what makes two images duplicates")
    parser.add_argument("--limit", type=finite, help="between 0 and 1 (default: 0.03 for pixels, 0.5 for sscd, 0.25 for local)")
    add_sscd_arguments(parser)
    parser.add_argument("--seed", type=count, default=0, help="seed of the epoch's order and backgrounds, as in a training")


def run(args: Namespace) -> None:
    """Remove duplicates and print what was removed."""
    if args.method == "exact" and args.limit is not None:
        raise AfterglowError("--limit cannot be combined with --method exact: equal pixels have no limit.")
    if (args.method == "sscd") != (args.sscd is not None):
        raise AfterglowError("--sscd FILE and --method sscd must be given together.")
    announce(f"Reading {args.folder} ...")
    from afterglow.planting.deduplicated import first_epoch
    from afterglow.planting.io import check_empty, read_planted, write_planted

    check_empty(args.out)
    epoch = first_epoch(read_planted(args.folder), args.seed)
    start = time.perf_counter()
    result = _find_duplicates(epoch.pixels, args)
    seconds = time.perf_counter() - start
    remaining = epoch.drop_duplicates(result.keep)
    write_planted(remaining, args.out)
    dropped = epoch.dropped(result).rename(columns={"similarity": SIMILARITY_COLUMN[args.method]}).assign(method=args.method)
    dropped.to_parquet(args.out / "duplicates.parquet", index=False)
    table = epoch.table()
    num_controls = int(((table["kind"] == "control") & ~result.keep).sum())
    print(_counts_by_kind(table, result.keep))
    print(f"{len(dropped)} of {len(table)} appearances dropped, in {result.num_clusters} clusters of duplicates; {seconds:.1f} s")
    print(f"{num_controls} of the {len(dropped)} dropped appearances were controls, not plants")
    print(f"Copies of each plant that remain per epoch: {_copies(remaining)}")
    print(f"{args.out}: {len(remaining.controls)} training images and the plants, duplicates.parquet")


def _find_duplicates(pixels: "np.ndarray", args: Namespace) -> "Duplicates":
    from afterglow.planting import duplicates

    if args.method == "exact":
        return duplicates.exact(pixels)
    limit = {} if args.limit is None else {"limit": args.limit}
    if args.method != "sscd":
        return (duplicates.near if args.method == "pixels" else duplicates.shared_region)(pixels, **limit)
    import numpy as np

    from afterglow.evaluation.similarity import similarity_space
    from afterglow.neighbors.gallery import Gallery

    equal = duplicates.exact(pixels)  # so that copies are embedded once
    distinct = Gallery(pixels[equal.keep], np.arange(int(equal.keep.sum())))
    space = similarity_space(distinct, sscd_file=args.sscd, sscd_transform=args.sscd_transform)
    return equal.refine(duplicates.embedded(space.rows, **limit), same=1.0)


def _counts_by_kind(table: "pd.DataFrame", kept: "np.ndarray") -> str:
    """Appearances of each kind in an epoch, before and after."""
    from afterglow.kinds import TRAINED

    counts = table.assign(kept=kept).groupby("kind")["kept"].agg(["size", "sum"])
    present = [kind for kind in ("control", *TRAINED) if kind in counts.index]
    return counts.loc[present].rename_axis(None).to_string(header=["before", "after"])


def _copies(planted: "PlantedSet") -> str:
    """Copies of each plant in order, such as "global 1 1 0; local 12 9"."""
    from afterglow.kinds import TRAINED

    copies = {kind: [str(plant.copies) for plant in planted.of_kind(kind)] for kind in TRAINED}
    return "; ".join(f"{kind} {' '.join(numbers)}" for kind, numbers in copies.items() if numbers) or "nothing was planted"
