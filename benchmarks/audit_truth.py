"""What an audit finds of the plants of a run, which it does not know.

  afterglow audit --model runs/demo --data runs/demo --out audit
  python benchmarks/audit_truth.py audit runs/demo

All samples of a plant count as one: the plant is found if its samples are called copied. The overlap (IoU) is that of the box around the
copied tiles with the planted mask.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from afterglow.reports.images import read_pixels
from afterglow.reports.run import read_plants
from afterglow.reports.tables import count_text, text_table

VERDICTS = ("copied whole", "copied in part")


def main() -> None:
    """Print one row per kind and shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audit", type=Path, help="folder of the audit")
    parser.add_argument("run", type=Path, help="run folder")
    args = parser.parse_args()
    table, plants = pd.read_parquet(args.audit / "audit.parquet"), read_plants(args.run)
    table = table[table["checkpoint"] == table["checkpoint"].iloc[-1]]
    table["plant"] = table["file_name"].str.extract(r"^\w+ plant (\d+), sample \d+$")[0].astype(float)
    first = table.dropna(subset="plant").drop_duplicates("plant").set_index("plant")
    about = {number: (plants[int(number)]["kind"], plants[int(number)]["shape"]) for number in first.index}
    rows = []
    for kind in sorted(set(about.values())):
        own = first[[about[number] == kind for number in first.index]]
        overlaps = [overlap(row, args.run / "plants" / plants[int(number)]["mask_file_name"]) for number, row in own.iterrows()]
        found = [value for value in overlaps if not np.isnan(value)]
        rows.append([" ".join(kind), *counts(own["verdict"]), f"{np.mean(found):.2f}" if found else "-"])
    rows.append(["images that are no plant", *counts(table[table["plant"].isna()]["verdict"]), "-"])
    print(text_table(["kind", *VERDICTS, "IoU"], rows))


def counts(verdicts: pd.Series) -> list[str]:
    """'7 of 8 (53% to 98%)' for each verdict."""
    return [count_text(int((verdicts == name).sum()), len(verdicts), digits=1) for name in VERDICTS]


def overlap(row: pd.Series, mask_file: Path) -> float:
    """Intersection over union of the box of a row with a planted mask; NaN without a box."""
    if np.isnan(row["left"]):
        return float("nan")
    mask = read_pixels(mask_file)[0] > 127
    box, (height, width) = np.zeros_like(mask), mask.shape
    box[round(row["top"] * height) : round(row["bottom"] * height), round(row["left"] * width) : round(row["right"] * width)] = True
    return float((mask & box).sum() / (mask | box).sum())


if __name__ == "__main__":
    main()
