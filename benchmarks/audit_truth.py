"""What an audit finds of the plants of a run, which it does not know.

  afterglow audit --model runs/demo --data runs/demo --out audit
  python benchmarks/audit_truth.py audit runs/demo

All samples of a plant count as one: the plant is found if its samples are called copied. Brackets hold exact 95 % intervals (Clopper and
Pearson). IoU is the overlap of the copied cells with the planted mask. Precision: of all plants and images that are not plants and are
called copied whole, how many are global plants; in part, how many are local plants.

  python benchmarks/audit_truth.py audit runs/demo --images unseen/audited

asks of an audit of images that the run never saw (benchmarks/audit_unseen.py) how many of the copied parts the run did not see either: no
image of an epoch agrees with the audited image in the copied cells to .03, the distance below which the audit says that images share them.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from verdicts import VERDICTS, counts, fraction

from afterglow.analysis.audit import PART_COPY, copied_mask
from afterglow.cli.options import load_model
from afterglow.evaluation.audited_set import audited_set
from afterglow.neighbors.clusters import NEAR_DUPLICATE_DISTANCE
from afterglow.neighbors.search import all_distances
from afterglow.reports.images import read_pixels
from afterglow.reports.run import read_plants
from afterglow.reports.tables import text_table


def main() -> None:
    """Print one row per kind and shape, and the precision of both verdicts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audit", type=Path, help="folder of the audit")
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--images", help="the audited folder, of which the run saw nothing")
    args = parser.parse_args()
    table, plants = pd.read_parquet(args.audit / "audit.parquet"), read_plants(args.run)
    table = table[table["checkpoint"] == table["checkpoint"].iloc[-1]]
    table = table.assign(plant=table["file_name"].str.extract(r"^\w+ plant (\d+), sample \d+$")[0].astype(float))
    first = table.dropna(subset="plant").drop_duplicates("plant").set_index("plant")
    about = {number: (plants[int(number)]["kind"], plants[int(number)]["shape"]) for number in first.index}
    rows = []
    for kind in sorted(set(about.values())):
        own = first[[about[number] == kind for number in first.index]]
        masks = [args.run / "plants" / plants[int(number)]["mask_file_name"] for number in own.index]
        found = [overlap(cells, mask) for cells, mask in zip(own["cells"], masks, strict=True) if len(cells)]
        rows.append([" ".join(kind), *counts(own["verdict"]), f"{np.mean(found):.2f}" if found else "-"])
    others = table[table["plant"].isna()]
    for name, own in others.groupby(others["file_name"].str.startswith("phantom-")):
        rows.append(["phantoms" if name else "images that are not plants", *counts(own["verdict"]), "-"])
    print(text_table(["kind", *VERDICTS, "IoU"], rows))
    for verdict, kind in VERDICTS.items():
        called = [about[number][0] == kind for number in first.index[first["verdict"] == verdict]]
        print(f"precision of '{verdict}': {fraction(sum(called), len(called) + int((others['verdict'] == verdict).sum()))}")
    if args.images:
        new = sum(new_parts(others[others["verdict"] == PART_COPY], args.run, args.images))
        print(f"copied in part, and not in any image of the training there: {fraction(new, len(others))}")


def new_parts(copied: pd.DataFrame, run: Path, folder: str) -> list[bool]:
    """For each copied part of an image of a folder, whether no image of an epoch of the run has it there."""
    model = load_model(str(run))
    trained, own = audited_set(model, str(run)), audited_set(model, folder)
    found, seen = [], np.asarray(trained.pixels[: trained.count])
    for name, cells in zip(copied["file_name"], copied["cells"], strict=True):
        image, mask = own.pixels[[own.names.index(name)]], copied_mask(cells, seen.shape[-1])[None]
        found.append(bool(all_distances(image, seen, torch.from_numpy(mask)).min() >= NEAR_DUPLICATE_DISTANCE))
    return found


def overlap(cells: np.ndarray, mask_file: Path) -> float:
    """Intersection over union of the copied cells with a planted mask."""
    mask = read_pixels(mask_file)[0] > 127
    copied = copied_mask(cells, len(mask))
    return float((mask & copied).sum() / (mask | copied).sum())


if __name__ == "__main__":
    main()
