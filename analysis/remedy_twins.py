"""Remedies at training time: each run with a remedy beside its twin of the same seed without one.

  python analysis/remedy_twins.py --without runs/plain --treated runs/dropped runs/words --out remedy_twins
  python analysis/remedy_twins.py --without runs/plain-0 runs/plain-1 --treated runs/dropped-0 runs/dropped-1

A remedy is called as its run's folder, less a seed behind it; runs of several seeds are pooled. Of every remedy: plants that are memorized
at the last probe, the factor by which it delays emergence (a censored fit, paired by plant; - where nothing emerged, or where the remedy
ended the training), and the held-out denoising loss over the twin's. Writes OUT/remedies.md and the curves (png, svg).
"""

import argparse
from pathlib import Path

from afterglow.report.remedy_twins import beside, read_twins, twins_figure, twins_text
from afterglow.sentences import quiet, sentences
from afterglow.tracking import log_figures


def main() -> None:
    """Print the table and write everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--without", type=Path, nargs="+", required=True, metavar="RUN", help="runs without a remedy")
    parser.add_argument("--treated", type=Path, nargs="+", required=True, metavar="RUN", help="runs with one, of the same seeds")
    parser.add_argument("--out", type=Path, default=Path("remedy_twins"), help="folder for the table and the curves")
    parser.add_argument("--wandb", action="store_true", help="a W&B run of its own, in OUT, with the numbers and curves")
    options = parser.parse_args()
    quiet()
    with sentences():
        twins = read_twins(beside(options.without, options.treated))
        options.out.mkdir(parents=True, exist_ok=True)
        text, figure = twins_text(twins), twins_figure(twins)
        (options.out / "remedies.md").write_text(text + "\n", encoding="utf-8")
        for ending in ("png", "svg"):
            figure.savefig(options.out / f"training.{ending}", dpi=150)
        print(f"{text}\n\n{options.out}: remedies.md, training.png and .svg")
        if options.wandb:
            print(log_figures(options.out, twins.numbers(), {"media/training": options.out / "training.png"}))


if __name__ == "__main__":
    main()
