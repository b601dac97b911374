"""Compute measures of collected generations: one row for each generation and score, and the AUC of each map where a region is known.

  afterglow measure generations/demo --out measures.parquet
  afterglow measure generations/prompts generations/controls --measures 'ld.*' guidance_norm.all --out measures.parquet
  afterglow measure --remeasure runs/demo
  afterglow measure --list

A measure whose input was not collected has no rows; a warning names it.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from afterglow.cli.parser import announce
from afterglow.errors import AfterglowError


def add_arguments(parser: ArgumentParser) -> None:
    """Define the options."""
    parser.add_argument("folders", type=Path, nargs="*", metavar="FOLDER", help="folder that `afterglow collect` wrote")
    parser.add_argument("--out", type=Path, default=Path("measures.parquet"), metavar="FILE", help="parquet file to write")
    parser.add_argument("--measures", nargs="+", default=["*"], metavar="NAME", help="names of measures; wildcards are allowed")
    parser.add_argument("--allow-mixed", action="store_true", help="accept folders of different models or samplers")
    other = parser.add_argument_group("instead of measuring folders")
    other.add_argument(
        "--remeasure",
        type=Path,
        metavar="RUN",
        help="compute the measures that a run's last evaluation lacks and add them to its measurements.parquet (default: none)",
    )
    other.add_argument("--list", action="store_true", help="list all measures with their inputs, units and sources")


def run(args: Namespace) -> None:
    """Measure, or list the measures."""
    if not (args.folders or args.remeasure or args.list):
        raise AfterglowError("Name at least one folder of generations, or use --remeasure RUN or --list.")
    from afterglow.measures.registry import check_measures

    if args.list:
        _print_measures()
        return
    check_measures(args.measures)
    announce(f"Measuring {args.remeasure or ' '.join(map(str, args.folders))} ...")
    if args.remeasure:
        from afterglow.evaluation.measurement_table import remeasure

        print(f"{args.remeasure}: new measures: {', '.join(remeasure(args.remeasure, args.measures)) or 'none'}")
        return
    from afterglow.measures.tables import write_measurements

    print(f"{args.out}: {write_measurements(args.folders, args.out, args.measures, mixed=args.allow_mixed)} numbers")


def _print_measures() -> None:
    from afterglow.measures.registry import ANY_MEASURES
    from afterglow.reports.tables import text_table

    rows = [[m.name, ", ".join(m.requires) or "-", m.unit, m.source, "detector" if m.detector else ""] for m in ANY_MEASURES]
    print(text_table(["measure", "requires", "unit", "source", ""], rows))
    print("\nThe layers are those of a small example; a model's own layers replace them ('be': the two of Bright Ending, 'all': all).")
