"""`afterglow paired-runs` as a script, for `accelerate launch`."""

import sys

from afterglow.cli import main

if __name__ == "__main__":
    main(["paired-runs", *sys.argv[1:]])
