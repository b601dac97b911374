"""`afterglow train` as a script: `python train.py`, or `accelerate launch train.py` for several processes."""

import sys

from afterglow.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
