"""A run as one page that needs no server: report.html in its folder. Training writes it by itself; this writes it again, or before the end.

python analysis/report.py runs/demo
python analysis/report.py runs/*
"""

import argparse
from pathlib import Path

from afterglow.report import write_report
from afterglow.sentences import quiet, sentences


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="RUN", help="run folder with probes.parquet")
    quiet()
    for folder in parser.parse_args().folders:
        with sentences():
            print(write_report(folder))


if __name__ == "__main__":
    main()
