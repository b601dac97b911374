"""How well each score tells memorized from not: tables with intervals, a parquet file and a figure.

  python analysis/detect.py measures.parquet --out detection
  python analysis/detect.py memorized.parquet others.parquet --images 1 4 --out detection

Label set (i): each kind that was planted (or labeled: global, local) against each kind that was not (phantom, control, decoy,
tint), apart.
Label set (ii): generations that are memorized against all others. Scores are means over the first n generations of a caption.
"""

import argparse
from pathlib import Path

import pandas as pd

from afterglow.analysis.detection import METRICS, both_tables
from afterglow.analysis.summary import NEGATIVES, POSITIVES, read_measurements
from afterglow.errors import configure_logging, exit_on_user_error
from afterglow.loggers.run_logger import log_analysis
from afterglow.reports.detection import detection_text, interval_figure


def main() -> None:
    """Print the tables and write everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", help="what analysis/measure.py wrote")
    parser.add_argument("--out", type=Path, default=Path("detection"), help="folder for detection.parquet and the figures")
    parser.add_argument("--images", type=int, nargs="+", default=[1, 4, 16], help="generations of a caption that are averaged")
    parser.add_argument("--positive", nargs="+", default=list(POSITIVES), help="kinds that should score high, each apart")
    parser.add_argument("--negative", nargs="+", default=list(NEGATIVES), help="kinds that should score low, each apart")
    parser.add_argument("--detectors", nargs="+", help="measures, by name; default: all that are detectors")
    parser.add_argument("--run", type=Path, help="run folder whose W&B run gets the numbers and figures too")
    options = parser.parse_args()
    configure_logging()
    with exit_on_user_error():
        rows = pd.concat([read_measurements(file) for file in options.files], ignore_index=True)
        pairs = [(positive, negative) for positive in options.positive for negative in options.negative]
        table = both_tables(rows, options.detectors, pairs, options.images)
        options.out.mkdir(parents=True, exist_ok=True)
        table.to_parquet(options.out / "detection.parquet", index=False)
        (options.out / "detection.md").write_text(detection_text(table, METRICS) + "\n", encoding="utf-8")
        images = [options.out / f"detection.{ending}" for ending in ("png", "svg")]
        shown = table[(table["metric"] == "auc") & (table["images"] == table["images"].max())]
        interval_figure(shown, "detector", "negative", "AUC, 95 % interval", images, panel="positive")
        print(detection_text(table, ("auc", "f1", "f1_held_out", "tpr_at_1fpr_under", "tpr_at_1fpr_nearest")))
        print(f"\n{options.out}: detection.parquet, detection.md, detection.png, detection.svg")
        if options.run:
            keys = shown["detector"] + "." + shown["positive"] + "_vs_" + shown["negative"]
            numbers = {f"detection/{key}/auc": value for key, value in zip(keys, shown["value"], strict=True)}
            print(log_analysis(options.run, numbers, {"media/detection": images[0]}))


if __name__ == "__main__":
    main()
