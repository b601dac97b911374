"""`afterglow audit` as a script, for `accelerate launch`."""

import sys

from afterglow.cli import main

if __name__ == "__main__":
    main(["audit", *sys.argv[1:]])
