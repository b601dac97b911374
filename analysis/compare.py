"""`afterglow compare` as a script, for `accelerate launch`."""

import sys

from afterglow.cli import main

if __name__ == "__main__":
    main(["compare", *sys.argv[1:]])
