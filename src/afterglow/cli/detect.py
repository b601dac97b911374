"""Evaluate how well each score detects memorized samples: tables with intervals, a parquet file and a figure.

  afterglow detect measures.parquet --out detection
  afterglow detect memorized.parquet others.parquet --images 1 4 --out detection

Label set (i): each positive kind against each negative kind, separately.
Label set (ii): memorized generations against all others.
The score of a caption is the mean over its first n generations. Runs of one training seed share their plants: name the seeds (--seeds).
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from afterglow.cli.options import IMAGE_FILES, PRINTED, add_wandb_run_argument, log_to_wandb, training_seeds
from afterglow.cli.parser import announce, count, positive
from afterglow.errors import AfterglowError


def add_arguments(parser: ArgumentParser) -> None:
    """Define the options."""
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="parquet file that `afterglow measure` wrote")
    parser.add_argument("--images", type=positive, nargs="+", default=[1, 4, 16], metavar="N", help="numbers of generations to average")
    parser.add_argument("--detectors", nargs="+", metavar="NAME", help="measures to evaluate (default: all detectors)")
    parser.add_argument(
        "--seeds", type=count, nargs="+", metavar="N", help="training seed of each run of the files, in order (default: each its own)"
    )
    labels = parser.add_argument_group("labels")
    labels.add_argument("--positive", nargs="+", default=["global", "local", "natural"], metavar="KIND", help="positive kinds")
    labels.add_argument("--negative", nargs="+", default=["phantom", "control", "decoy", "tint"], metavar="KIND", help="negative kinds")
    output = parser.add_argument_group("output")
    output.add_argument("--out", type=Path, default=Path("detection"), metavar="DIR", help="folder for tables and figures")
    add_wandb_run_argument(output)


def run(args: Namespace) -> None:
    """Print the tables and write the files."""
    announce(f"Reading {', '.join(map(str, args.files))} ...")
    if missing := [file for file in args.files if not file.is_file()]:
        raise AfterglowError(f"'{missing[0]}' is not a file: `afterglow measure` writes the parquet file that this command reads.")
    import pandas as pd

    from afterglow.analysis.detection import METRICS, evaluate_detectors
    from afterglow.analysis.summary import read_measurements
    from afterglow.reports.detection import detection_text, interval_figure

    rows = pd.concat([read_measurements(file) for file in args.files], ignore_index=True)
    pairs = [(positive, negative) for positive in args.positive for negative in args.negative]
    table = evaluate_detectors(rows, args.detectors, pairs, args.images, training_seeds(args.seeds, list(dict.fromkeys(rows["run"]))))
    args.out.mkdir(parents=True, exist_ok=True)
    table.to_parquet(args.out / "detection.parquet", index=False)
    (args.out / "detection.md").write_text(detection_text(table, METRICS) + "\n", encoding="utf-8")
    figures = [args.out / f"detection.{ending}" for ending in IMAGE_FILES]
    auc = table[(table["metric"] == "auc") & (table["images"] == table["images"].max())]
    interval_figure(auc, "detector", "negative", "AUC, 95 % interval", figures, panel="positive")
    print(detection_text(table, ("auc", "f1", "f1_held_out", "tpr_at_1fpr_under", "tpr_at_1fpr_nearest"), PRINTED))
    print(f"\nThe {PRINTED} best of {table['detector'].nunique()} detectors in each table; all are in detection.md.")
    print(f"{args.out}: detection.parquet, detection.md, detection.png, detection.svg")
    keys = "detection/" + auc["detector"] + "/" + auc["positive"] + "_vs_" + auc["negative"] + "/auc"
    log_to_wandb(args.wandb_run, dict(zip(keys, auc["value"], strict=True)), {"media/detection": figures[0]})
