"""Compare runs on one page and in a table: emergence against what differs, memorized fractions, detection and localization.

  afterglow compare runs/seed0 runs/seed1 --every-map
  afterglow compare runs/paired_arms-*copies=* --out copies.html

Runs of one recipe, which differ only in the seed, are pooled in the table; other runs have one row per setting. Runs of a sweep that
share seeds and plants are compared pair by pair on the page.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from afterglow.cli.parser import announce


def add_arguments(parser: ArgumentParser) -> None:
    """Define the options."""
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folder; all runs must define memorized in the same way")
    parser.add_argument(
        "--out", type=Path, default=Path("comparison.html"), metavar="HTML", help="page to write (default: comparison.html)"
    )
    parser.add_argument(
        "--every-map", action="store_true", help="show all maps, not only the end-token map, score differences and trivial maps"
    )


def run(args: Namespace) -> None:
    """Print the table and write the page."""
    announce(f"Reading {len(args.runs)} run{'s' * (len(args.runs) > 1)} ...")
    from afterglow.reports.compare import compare
    from afterglow.reports.comparison import write_comparison
    from afterglow.reports.comparison_runs import read_comparison
    from afterglow.reports.comparison_tables import runs_text

    comparison = read_comparison(args.runs)
    print(runs_text(comparison) if comparison.settings else compare(args.runs, every_map=args.every_map))
    print(f"\n{write_comparison(comparison, args.out)}")
