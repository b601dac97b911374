"""`afterglow collect` as a script, for `accelerate launch`."""

import sys

from afterglow.cli import main

if __name__ == "__main__":
    main(["collect", *sys.argv[1:]])
