"""`afterglow dashboard` as a script, for `accelerate launch`."""

import sys

from afterglow.cli import main

if __name__ == "__main__":
    main(["dashboard", *sys.argv[1:]])
