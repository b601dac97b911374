"""Several runs as one table: memorized fractions, detection and localization at their last probes.

python analysis/compare.py runs/demo
python analysis/compare.py runs/seed0 runs/seed1 --every-map
"""

import argparse
from pathlib import Path

from afterglow.errors import exit_on_user_error
from afterglow.reports.compare import compare


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders: the same recipe, other seeds")
    parser.add_argument(
        "--every-map", action="store_true", help="all maps, not only the first end token, score differences and trivial ones"
    )
    options = parser.parse_args()
    with exit_on_user_error():
        print(compare(options.runs, every_map=options.every_map))


if __name__ == "__main__":
    main()
