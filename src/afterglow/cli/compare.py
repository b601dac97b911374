"""Compare runs of one recipe in a table: memorized fractions, detection and localization at their last evaluations.

afterglow compare runs/demo
afterglow compare runs/seed0 runs/seed1 --every-map
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from afterglow.cli.parser import announce


def add_arguments(parser: ArgumentParser) -> None:
    """Define the options."""
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folder; all runs must share a recipe and differ in the seed")
    parser.add_argument(
        "--every-map", action="store_true", help="show all maps, not only the end-token map, score differences and trivial maps"
    )


def run(args: Namespace) -> None:
    """Print the table."""
    announce(f"Reading {len(args.runs)} run{'s' * (len(args.runs) > 1)} ...")
    from afterglow.reports.compare import compare

    print(compare(args.runs, every_map=args.every_map))
