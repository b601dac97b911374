"""Folders of generations => measures.parquet: every score of every generation, and the AUC of every map where the truth is known.

  python analysis/measure.py generations/demo --out measures.parquet
  python analysis/measure.py generations/a generations/b --measures 'guidance_norm.*' 'ld.be.*' --out measures.parquet
  python analysis/measure.py --again runs/demo --measures 'memattn_*'
  python analysis/measure.py --list

It streams: one part of one folder is in memory at a time.
"""

import argparse
from pathlib import Path

from afterglow.errors import configure_logging, exit_on_user_error
from afterglow.evaluation.remeasure import remeasure
from afterglow.measures.registry import ANY_MEASURES, named
from afterglow.measures.tables import write_rows
from afterglow.reports.tables import text_table


def main() -> None:
    """Measure, or list what can be measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="*", help="what analysis/collect.py wrote")
    parser.add_argument("--out", type=Path, default=Path("measures.parquet"), help="the file to write")
    parser.add_argument("--measures", nargs="+", default=["*"], metavar="NAME", help="names, with wildcards")
    parser.add_argument("--mixed", action="store_true", help="take folders of different models or samplers together")
    parser.add_argument(
        "--again", type=Path, metavar="RUN", help="measure a run's last probe again: what it lacks joins its measurements.parquet"
    )
    parser.add_argument("--list", action="store_true", help="name every measure with its needs, unit and source")
    options = parser.parse_args()
    if options.list:
        rows = [[m.name, ", ".join(m.requires) or "-", m.unit, m.source, "detector" if m.detector else ""] for m in ANY_MEASURES]
        print(text_table(["measure", "needs", "unit", "source", ""], rows))
        print("\nLayers are those of a small example; a model's own stand in their place ('be': the authors' two, 'all': all).")
        return
    if not (options.folders or options.again):
        parser.error("name at least one folder of generations, or --again RUN, or --list")
    configure_logging()
    with exit_on_user_error():
        layered = [pattern for pattern in options.measures if "block" not in pattern]  # names of layers are the model's own
        named(ANY_MEASURES, layered)
        if options.again:
            print(f"{options.again}: new are {', '.join(remeasure(options.again, options.measures)) or 'none'}")
            return
        count = write_rows(options.folders, options.out, options.measures, mixed=options.mixed)
        print(f"{options.out}: {count} numbers")


if __name__ == "__main__":
    main()
