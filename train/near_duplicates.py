"""`afterglow near-duplicates` as a script."""

import sys

from afterglow.cli import main

if __name__ == "__main__":
    main(["near-duplicates", *sys.argv[1:]])
