"""Compare each training that used a mitigation with its baseline: the same recipe and seed without it.

  afterglow paired-runs --baseline runs/plain --mitigated runs/dropped runs/words --out paired_runs
  afterglow paired-runs --baseline runs/plain-0 runs/plain-1 --mitigated runs/dropped-0 runs/dropped-1

The name of a mitigation is the name of its run folder without a trailing seed; runs of several seeds are pooled. The table shows the
plants memorized at the last evaluation, the factor by which the mitigation delays emergence (a censored fit, paired by plant; "-" if
nothing emerged or the mitigation ended the training), and the ratio of the held-out denoising losses. Writes OUT/mitigations.md and
the curves (png, svg).
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from afterglow.cli.options import IMAGE_FILES
from afterglow.cli.parser import announce


def add_arguments(parser: ArgumentParser) -> None:
    """Define the options."""
    parser.add_argument("--baseline", type=Path, nargs="+", required=True, metavar="RUN", help="runs without a mitigation")
    parser.add_argument("--mitigated", type=Path, nargs="+", required=True, metavar="RUN", help="runs with one, of the same seeds")
    parser.add_argument("--out", type=Path, default=Path("paired_runs"), metavar="DIR", help="folder for the table and the curves")
    parser.add_argument("--wandb", action="store_true", help="log numbers and curves to a W&B run of its own in OUT")


def run(args: Namespace) -> None:
    """Print the table and write the files."""
    announce(f"Reading {len(args.baseline) + len(args.mitigated)} runs ...")
    from afterglow.reports.paired_runs import pair_by_seed, paired_runs_figure, paired_runs_text

    pairs = pair_by_seed(args.baseline, args.mitigated)
    args.out.mkdir(parents=True, exist_ok=True)
    text, figure = paired_runs_text(pairs), paired_runs_figure(pairs)
    (args.out / "mitigations.md").write_text(text + "\n", encoding="utf-8")
    for ending in IMAGE_FILES:
        figure.savefig(args.out / f"training.{ending}", dpi=150)
    print(f"{text}\n\n{args.out}: mitigations.md, training.png and .svg")
    if args.wandb:
        from afterglow.loggers.finished import log_figures

        print(log_figures(args.out, pairs.numbers(), {"media/training": args.out / "training.png"}))
