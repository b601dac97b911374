"""`afterglow measure` as a script, for `accelerate launch`."""

import sys

from afterglow.cli import main

if __name__ == "__main__":
    main(["measure", *sys.argv[1:]])
