"""`python -m afterglow` is the command `afterglow`."""

from afterglow.cli import main

if __name__ == "__main__":
    main()
