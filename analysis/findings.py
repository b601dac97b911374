"""The pages under docs/findings/, made from the runs that were kept there.

  python analysis/findings.py                                  write all pages again
  python analysis/findings.py emergence                        write one of them, and its figures
  python analysis/findings.py localization --keep runs/shapes-0   keep what a page needs of a finished run, under 300 kB
  make findings, make emergence, make mitigation               make every run that is missing, keep it, and write the page

The runs of a finding are configs/findings/*.yaml, each with several --seed_everything.
"""

import argparse
from pathlib import Path

from afterglow.errors import configure_logging, exit_on_user_error
from afterglow.reports.emergence_page import emergence_page, keep_emergence
from afterglow.reports.localization_page import keep_run, localization_page
from afterglow.reports.mitigation_page import keep_mitigation, mitigation_page

FINDINGS = Path(__file__).parents[1] / "docs" / "findings"
FOLDERS = {"localization": FINDINGS / "data", "emergence": FINDINGS / "emergence", "mitigation": FINDINGS / "mitigation"}
PAGES = {"localization": lambda folder: (localization_page(folder), {}), "emergence": emergence_page, "mitigation": mitigation_page}
KEEP = {"localization": keep_run, "emergence": keep_emergence, "mitigation": keep_mitigation}


def write(finding: str) -> Path:
    """One page, and the figures that it shows."""
    page, folder = FINDINGS / f"{finding}.md", FOLDERS[finding]
    text, figures = PAGES[finding](folder)
    page.write_text(text, encoding="utf-8")
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=110, facecolor="white")
    return page


def main() -> None:
    """Keep runs, or write pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("finding", nargs="?", choices=list(FOLDERS), help="default: all")
    parser.add_argument(
        "--keep", type=Path, nargs="+", metavar="RUN", help="finished run folders (or comparisons of mitigate.py), of the named finding"
    )
    options = parser.parse_args()
    configure_logging()
    with exit_on_user_error():
        for run in options.keep or ():
            if options.finding is None:
                raise SystemExit(parser.error(f"say whose runs these are: {', '.join(FOLDERS)}"))
            print(f"{run}: {KEEP[options.finding](run, FOLDERS[options.finding]) / 1000:.0f} kB kept")
        for finding in () if options.keep else (options.finding,) if options.finding else FOLDERS:
            print(write(finding))


if __name__ == "__main__":
    main()
