"""`afterglow text-encoder` as a script."""

import sys

from afterglow.cli import main

if __name__ == "__main__":
    main(["text-encoder", *sys.argv[1:]])
