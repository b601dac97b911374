"""`afterglow export` as a script."""

import sys

from afterglow.cli import main

if __name__ == "__main__":
    main(["export", *sys.argv[1:]])
