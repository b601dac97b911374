"""Write report.html of a run folder, a page that needs no server. A training writes it itself; this command updates it at any time.

afterglow report runs/demo
afterglow report runs/demo runs/seed1
afterglow report runs/demo --contact-sheet plants.png
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from afterglow.cli.parser import announce


def add_arguments(parser: ArgumentParser) -> None:
    """Define the options."""
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folder with measurements.parquet")
    parser.add_argument(
        "--contact-sheet",
        type=Path,
        metavar="PNG",
        help="write only this file: global and local plants of the first run in one image (default: write the report)",
    )


def run(args: Namespace) -> None:
    """Write the reports, or the contact sheet."""
    announce(f"Reading {', '.join(map(str, args.runs))} ...")
    if args.contact_sheet:
        from afterglow.reports.contact_sheet import write_contact_sheet

        print(write_contact_sheet(args.runs[0], args.contact_sheet))
        return
    from afterglow.reports.page import write_report

    for folder in args.runs:
        print(write_report(folder))
