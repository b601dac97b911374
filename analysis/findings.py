"""The pages under docs/findings/, made from the runs that were kept there.

  python analysis/findings.py                        write the pages again
  python analysis/findings.py --keep runs/shapes-0   keep what the pages need of a finished run, under 300 kB
  make findings                                      make every run that is missing, keep it, and write the pages

The runs of a finding are configs/findings/*.yaml, each with --seed_everything 0 and 1.
"""

import argparse
from pathlib import Path

from afterglow.report.localisation import keep_run, localisation_page
from afterglow.sentences import quiet, sentences

FINDINGS = Path(__file__).parents[1] / "docs" / "findings"


def main() -> None:
    """Keep runs, or write pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, nargs="+", metavar="RUN", help="finished run folders")
    options = parser.parse_args()
    quiet()
    with sentences():
        for run in options.keep or ():
            print(f"{run}: {keep_run(run, FINDINGS / 'data') / 1000:.0f} kB kept")
        if not options.keep:
            page = FINDINGS / "localisation.md"
            page.write_text(localisation_page(FINDINGS / "data"), encoding="utf-8")
            print(page)


if __name__ == "__main__":
    main()
