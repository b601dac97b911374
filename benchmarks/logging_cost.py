"""What W&B and the page cost a training: seconds inside their calls, files and megabytes.

    python benchmarks/logging_cost.py                                # the demo
    python benchmarks/logging_cost.py --config RECIPE --OPTION VALUE # options of `afterglow train`; Ctrl-C shows the result so far

Seconds are those by the clock, less those in which the main thread waits for a core that another process has (/proc/thread-self/schedstat,
Linux only). Those of W&B are the seconds in RunLogger's methods; the processes beside the training, which write and upload, do not count.
Bounds: 2 % of the seconds of the training in W&B; 600 files under wandb/ after a demo; 500 MB and a page of 15 MB after 100 evaluations of
64 plants (tests/faults/test_size.py).
"""

import os
import sys
from pathlib import Path
from typing import Any

from timing import LOGGING, timed

from afterglow.cli import lightning_cli, main
from afterglow.loggers.run_logger import RunLogger


def size(folder: Path) -> str:
    """Files and megabytes of a folder."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return f"{len(files)} files, {sum(path.stat().st_size for path in files) / 1e6:.1f} MB"


def measure(words: list[str]) -> None:
    """Train, then print the shares."""
    logged, pages, trained = list[float](), list[float](), list[float]()
    for name in LOGGING:
        setattr(RunLogger, name, timed(getattr(RunLogger, name), logged))
    lightning_cli.write_report = timed(lightning_cli.write_report, pages)
    folders = list[Path]()
    fit = lightning_cli.AfterglowCLI.fit

    def fitted(cli: Any) -> None:
        folders.append(cli.folder)
        fit(cli)

    lightning_cli.AfterglowCLI.fit = timed(fitted, trained)
    try:
        main(["train", *words])
    finally:  # also of a training that was stopped
        show(folders[0], trained[0], logged, pages)


def show(folder: Path, trained: float, logged: list[float], pages: list[float]) -> None:
    """Print the shares of the seconds of a training, and what it left."""
    print(f"training: {trained:.0f} s, {len(pages)} evaluations")
    print(f"W&B: {sum(logged):.1f} s in {len(logged)} calls, {sum(logged) / trained:.2%} of the training; {size(folder / 'wandb')}")
    ends = f"{', '.join(f'{value:.2f}' for value in pages[:3])} ... {', '.join(f'{value:.2f}' for value in pages[-3:])} s"
    page = (folder / "report.html").stat().st_size / 1e6
    print(f"page: {sum(pages):.1f} s, {sum(pages) / trained:.2%} of the training; first and last: {ends}; {page:.1f} MB")


if __name__ == "__main__":
    os.environ.setdefault("WANDB_MODE", "offline")
    measure(sys.argv[1:] or ["--name", "logging_cost"])
