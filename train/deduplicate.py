"""`afterglow deduplicate` as a script."""

import sys

from afterglow.cli import main

if __name__ == "__main__":
    main(["deduplicate", *sys.argv[1:]])
