"""List the runs of a folder: state, step, and the memorized fraction of global and local plants and of phantoms.

afterglow runs
afterglow runs /scratch/runs --sort local

A run is `running` while a process trains in its folder, `finished` after its last evaluation, and `stopped` otherwise: it continues with
`afterglow train --name NAME --ckpt_path last`.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

COLUMNS = ("name", "step", "global", "local", "phantom")


def add_arguments(parser: ArgumentParser) -> None:
    """Define the options."""
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs"), help="folder of run folders (default: runs)")
    parser.add_argument("--sort", choices=COLUMNS, default="name", help="column by which the runs are sorted")


def run(args: Namespace) -> None:
    """Print the table."""
    from afterglow.cli.run_lock import is_locked
    from afterglow.errors import AfterglowError
    from afterglow.reports.overview import run_states
    from afterglow.reports.tables import text_table

    if not args.folder.is_dir():
        raise AfterglowError(f"There is no folder '{args.folder}'.")
    states = run_states(args.folder)
    if not states:
        raise AfterglowError(f"'{args.folder}' holds no run: a run folder has config.yaml or measurements.parquet.")
    if args.sort != "name":
        states = sorted(states, key=lambda state: state.number(args.sort), reverse=True)
    rows = [
        [
            state.name[:40],
            "running" if is_locked(args.folder / state.name) else "finished" if state.finished else "stopped",
            f"{state.step} of {state.max_steps}" if state.max_steps else str(state.step),
            *(state.fraction_text(kind) for kind in COLUMNS[2:]),
        ]
        for state in states
    ]
    print(text_table(["run", "state", "last evaluation", *COLUMNS[2:]], rows))
