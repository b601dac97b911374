"""When local and global memorization emerge in any number of runs, and what moves them: set size, copies, region, width.

  python analysis/emergence.py runs/sizes-* --out emergence
  python analysis/emergence.py runs/halves-* --out emergence

Of runs of a model without captions: the step at which a tenth of the generations have d1/d2 under 1/3 (tau_mem) beside the step at
which the held-out loss comes within 5 % of its minimum (tau_gen). Of plants: Turnbull's curves of the probes between which each emerged,
on steps and on exposures. Slopes are those of an interval-censored log-log fit. Runs with --data.planting.arm 0 and 1 are compared
template by template. A run that was interrupted is used up to its last probe. Writes OUT/emergence.html, figures and tables (parquet).
"""

import argparse
from pathlib import Path

from afterglow.errors import configure_logging, exit_on_user_error
from afterglow.loggers.run_logger import log_figures
from afterglow.reports.emergence import write_emergence
from afterglow.reports.runs import read_runs


def main() -> None:
    """Print the tables and write everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders with measurements.parquet")
    parser.add_argument("--out", type=Path, default=Path("emergence"), help="folder for the page, figures and tables")
    parser.add_argument("--wandb", action="store_true", help="a W&B run of its own, in OUT, with the slopes and figures")
    options = parser.parse_args()
    configure_logging()
    with exit_on_user_error():
        text, numbers, images = write_emergence(read_runs(options.runs), options.out)
        print(f"{text}\n\n{options.out}: emergence.html, {len(images)} figures (png), plants, runs, shares and losses (parquet)")
        if options.wandb:
            print(log_figures(options.out, numbers, images))


if __name__ == "__main__":
    main()
