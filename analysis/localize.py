"""How well each map finds what was planted: a table with trivial maps and intervals, a parquet file, a figure and a gallery.

  python analysis/localize.py generations/demo --out localization
  python analysis/localize.py generations/a generations/b --by kind shape --maps 'score_difference.*' 'end_token.last.*' --out localization

AUC of a map's pixels against the region, for each kind; overlap (IoU) of local plants at a threshold that was chosen on other plants.
"""

import argparse
from pathlib import Path

from afterglow.analysis.localization import collect_maps, localization_table, map_rows
from afterglow.errors import configure_logging, exit_on_user_error
from afterglow.loggers.run_logger import log_analysis
from afterglow.measures.tables import read_parts
from afterglow.reports.detection import interval_figure
from afterglow.reports.localization import gallery_figure, localization_text


def main() -> None:
    """Print the table and write everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="what analysis/collect.py --planted wrote")
    parser.add_argument("--out", type=Path, default=Path("localization"), help="folder for localization.parquet and the figures")
    parser.add_argument("--maps", nargs="+", default=["*"], metavar="NAME", help="names, with wildcards")
    parser.add_argument("--by", nargs="+", choices=["kind", "shape"], default=["kind"], help="what to tell apart")
    parser.add_argument("--mixed", action="store_true", help="take folders of different models or samplers together")
    parser.add_argument("--run", type=Path, help="run folder whose W&B run gets the numbers and figures too")
    options = parser.parse_args()
    configure_logging()
    with exit_on_user_error():
        collected = collect_maps(read_parts(options.folders, mixed=options.mixed), options.maps)
        rows = map_rows(collected)
        table = localization_table(rows, options.by)
        options.out.mkdir(parents=True, exist_ok=True)
        table.to_parquet(options.out / "localization.parquet", index=False)
        rows.to_parquet(options.out / "generations.parquet", index=False)
        text = localization_text(table, options.by)
        (options.out / "localization.md").write_text(text + "\n", encoding="utf-8")
        images = {name: [options.out / f"{name}.{ending}" for ending in ("png", "svg")] for name in ("localization", "gallery")}
        shown = table[table["metric"] == "auc"].assign(label=table[options.by].agg(" ".join, axis=1))
        interval_figure(shown, "map", "label", "AUC against the region, 95 % interval", images["localization"])
        local = shown[shown["kind"] == "local"].sort_values("value", ascending=False) if "kind" in options.by else shown
        if len(local):
            gallery_figure(collected, rows, list(dict.fromkeys(local["map"]))[:12], images["gallery"])
        print(text)
        print(f"\n{options.out}: localization.parquet, generations.parquet, localization.md, localization and gallery as .png and .svg")
        if options.run:
            numbers = {f"localization/{row.map}/auc_{row.label.replace(' ', '_')}": row.value for row in shown.itertuples()}
            print(log_analysis(options.run, numbers, {f"media/{name}": paths[0] for name, paths in images.items() if paths[0].exists()}))


if __name__ == "__main__":
    main()
