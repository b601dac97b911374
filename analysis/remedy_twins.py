"""Mitigations at training time: each run with a mitigation beside its twin of the same seed without one.

  python analysis/remedy_twins.py --without runs/plain --treated runs/dropped runs/words --out remedy_twins
  python analysis/remedy_twins.py --without runs/plain-0 runs/plain-1 --treated runs/dropped-0 runs/dropped-1

A mitigation is called as its run's folder, less a seed behind it; runs of several seeds are pooled. Of every mitigation: plants that are
memorize
memorized
at the last probe, the factor by which it delays emergence (a censored fit, paired by plant; - where nothing emerged, or where the
mitigation
ended the training), and the held-out denoising loss over the twin's. Writes OUT/mitigations.md and the curves (png, svg).
"""

import argparse
from pathlib import Path

from afterglow.errors import configure_logging, exit_on_user_error
from afterglow.loggers.run_logger import log_figures
from afterglow.reports.paired_runs import pair_by_seed, paired_runs_figure, paired_runs_text


def main() -> None:
    """Print the table and write everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--without", type=Path, nargs="+", required=True, metavar="RUN", help="runs without a mitigation")
    parser.add_argument("--treated", type=Path, nargs="+", required=True, metavar="RUN", help="runs with one, of the same seeds")
    parser.add_argument("--out", type=Path, default=Path("remedy_twins"), help="folder for the table and the curves")
    parser.add_argument("--wandb", action="store_true", help="a W&B run of its own, in OUT, with the numbers and curves")
    options = parser.parse_args()
    configure_logging()
    with exit_on_user_error():
        twins = pair_by_seed(options.without, options.treated)
        options.out.mkdir(parents=True, exist_ok=True)
        text, figure = paired_runs_text(twins), paired_runs_figure(twins)
        (options.out / "mitigations.md").write_text(text + "\n", encoding="utf-8")
        for ending in ("png", "svg"):
            figure.savefig(options.out / f"training.{ending}", dpi=150)
        print(f"{text}\n\n{options.out}: mitigations.md, training.png and .svg")
        if options.wandb:
            print(log_figures(options.out, twins.numbers(), {"media/training": options.out / "training.png"}))


if __name__ == "__main__":
    main()
