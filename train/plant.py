"""`afterglow plant` as a script."""

import sys

from afterglow.cli import main

if __name__ == "__main__":
    main(["plant", *sys.argv[1:]])
