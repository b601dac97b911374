"""The door: `accelerate launch train.py`. `--help` teaches."""

from pathlib import Path

from afterglow.cli.train import main

if __name__ == "__main__":
    main(Path(__file__).parent)
