"""A run as one page that needs no server: report.html in its folder. Training writes it by itself; this writes it again, or before the end.

python analysis/report.py runs/demo
python analysis/report.py runs/*
python analysis/report.py runs/demo --plate local_plants.png
"""

import argparse
from pathlib import Path

from afterglow.report import write_report
from afterglow.report.plate import write_plate
from afterglow.sentences import quiet, sentences


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="RUN", help="run folder with probes.parquet")
    parser.add_argument("--plate", type=Path, metavar="PNG", help="write only this: the local plants of the (first) run as one picture")
    options = parser.parse_args()
    quiet()
    with sentences():
        if options.plate:
            print(write_plate(options.folders[0], options.plate))
            return
        for folder in options.folders:
            print(write_report(folder))


if __name__ == "__main__":
    main()
