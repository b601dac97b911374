"""`afterglow emergence` as a script, for `accelerate launch`."""

import sys

from afterglow.cli import main

if __name__ == "__main__":
    main(["emergence", *sys.argv[1:]])
