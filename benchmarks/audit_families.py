"""What an audit finds of natural near-duplicates: the verdicts of images that have one in their folder, and of the others.

  afterglow near-duplicates --dataset imagefolder --data-dir cars/mine --distance correlation --out pairs
  python benchmarks/audit_families.py audit pairs

Brackets hold exact 95 % intervals (Clopper and Pearson). The last column: how many of the images copied in part have in common with at
least one other image of the folder what is copied, so that they cannot be told apart there.
"""

import argparse
from pathlib import Path

import pandas as pd
from verdicts import counts, fraction

from afterglow.analysis.audit import PART_COPY
from afterglow.reports.tables import text_table


def main() -> None:
    """Print one row for images with a near-duplicate and one for those without."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audit", type=Path, help="folder of the audit")
    parser.add_argument("pairs", type=Path, help="folder that `afterglow near-duplicates` wrote")
    args = parser.parse_args()
    table, pairs = pd.read_parquet(args.audit / "audit.parquet"), pd.read_parquet(args.pairs / "near_duplicates.parquet")
    table = table[table["checkpoint"] == table["checkpoint"].iloc[-1]]
    near, rows = table["file_name"].isin({*pairs["first"], *pairs["second"]}), []
    for name, own in (("with a near-duplicate", table[near]), ("without", table[~near])):
        shared = own.loc[own["verdict"] == PART_COPY, "others_alike"] > 0
        rows.append([name, *counts(own["verdict"]), fraction(int(shared.sum()), len(shared))])
    print(text_table(["images", "copied whole", "copied in part", "in part, in common with another"], rows))


if __name__ == "__main__":
    main()
