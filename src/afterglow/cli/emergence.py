"""Estimate when local and global memorization emerge in any number of runs, and how set size, copies, region and width change it.

  afterglow emergence runs/sizes-* --out emergence
  afterglow emergence runs/arms-* --out emergence

For runs of a model without captions: the step at which a tenth of the generations have d1/d2 below 1/3 (tau_mem), and the step at
which the held-out loss comes within 5 % of its minimum (tau_gen). For plants: Turnbull's curves of the evaluations between which each
plant emerged, over steps and over exposures. Slopes come from an interval-censored log-log fit. Runs with --data.planting.arm 0 and 1 are
compared template by template. An interrupted run is used up to its last evaluation. Writes OUT/emergence.html, figures and tables.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from afterglow.cli.parser import announce


def add_arguments(parser: ArgumentParser) -> None:
    """Define the options."""
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folder with measurements.parquet")
    parser.add_argument("--out", type=Path, default=Path("emergence"), metavar="DIR", help="folder for page, figures and tables")
    parser.add_argument("--wandb", action="store_true", help="log slopes and figures to a W&B run of its own in OUT")


def run(args: Namespace) -> None:
    """Print the tables and write the files."""
    announce(f"Reading {len(args.runs)} runs ...")
    from afterglow.reports.emergence import write_emergence
    from afterglow.reports.runs import read_runs

    text, numbers, images = write_emergence(read_runs(args.runs), args.out)
    print(f"{text}\n\n{args.out}: emergence.html, {len(images)} figures (png), plants, runs, shares and losses (parquet)")
    if args.wandb:
        from afterglow.loggers.finished import log_figures

        print(log_figures(args.out, numbers, images))
