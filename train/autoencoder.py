"""`afterglow autoencoder` as a script."""

import sys

from afterglow.cli import main

if __name__ == "__main__":
    main(["autoencoder", *sys.argv[1:]])
