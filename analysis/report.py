"""A run as one page that needs no server: report.html in its folder. Training writes it by itself; this writes it again, or before the end.

python analysis/report.py runs/demo
python analysis/report.py runs/*
python analysis/report.py runs/demo --plate local_plants.png
"""

import argparse
from pathlib import Path

from afterglow.errors import configure_logging, exit_on_user_error
from afterglow.reports.contact_sheet import write_contact_sheet
from afterglow.reports.page import write_report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="RUN", help="run folder with measurements.parquet")
    parser.add_argument("--plate", type=Path, metavar="PNG", help="write only this: the local plants of the (first) run as one image")
    options = parser.parse_args()
    configure_logging()
    with exit_on_user_error():
        if options.plate:
            print(write_contact_sheet(options.folders[0], options.plate))
            return
        for folder in options.folders:
            print(write_report(folder))


if __name__ == "__main__":
    main()
