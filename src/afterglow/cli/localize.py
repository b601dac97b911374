"""Evaluate how well each map locates the memorized region: AUC of the map, IoU of its mask, tables with intervals, figures.

  afterglow localize generations/demo --out localization
  afterglow localize generations/demo --maps 'score_difference.*' luminance --group-by kind shape

A mask is a map thresholded at the value that gives the best mean IoU on other plants of the same run. Local plants that are not
memorized stand apart (local_not_memorized). Controls: trivial maps and their inversions, the mean of the other plants' masks, and each
map against the masks of other plants. With folders of several runs the end-token map is chosen on the other runs; name the training
seeds of runs that share plants (--seeds).
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from afterglow import keys
from afterglow.cli.options import IMAGE_FILES, PRINTED, add_wandb_run_argument, log_to_wandb, training_seeds
from afterglow.cli.parser import announce, count
from afterglow.kinds import NOT_MEMORIZED


def add_arguments(parser: ArgumentParser) -> None:
    """Define the options."""
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="folder that `afterglow collect --run` wrote")
    parser.add_argument("--maps", nargs="+", default=["*"], metavar="NAME", help="names of maps; wildcards are allowed")
    parser.add_argument("--group-by", nargs="+", choices=["kind", "shape"], default=["kind"], help="columns that separate groups")
    parser.add_argument(
        "--seeds", type=count, nargs="+", metavar="N", help="training seed of each folder, in order (default: each its own)"
    )
    parser.add_argument("--allow-mixed", action="store_true", help="accept folders of different models or samplers")
    output = parser.add_argument_group("output")
    output.add_argument("--out", type=Path, default=Path("localization"), metavar="DIR", help="folder for tables and figures")
    add_wandb_run_argument(output)


def run(args: Namespace) -> None:
    """Print the table and write the files."""
    seeds = training_seeds(args.seeds, [folder.name for folder in args.folders])
    announce(f"Reading {', '.join(map(str, args.folders))} ...")
    from afterglow.analysis.localization import chosen_layers, collect_maps, localization_table, map_rows
    from afterglow.measures.tables import read_parts
    from afterglow.reports.detection import interval_figure
    from afterglow.reports.localization import gallery_figure, localization_text

    collected = collect_maps(read_parts(args.folders, mixed=args.allow_mixed), args.maps)
    rows = map_rows(collected)
    table = localization_table(rows, args.group_by, seeds)
    args.out.mkdir(parents=True, exist_ok=True)
    table.to_parquet(args.out / "localization.parquet", index=False)
    rows.to_parquet(args.out / "generations.parquet", index=False)
    chosen = chosen_layers(rows, seeds)
    (args.out / "localization.md").write_text(localization_text(table, args.group_by, chosen) + "\n", encoding="utf-8")
    figures = {name: [args.out / f"{name}.{ending}" for ending in IMAGE_FILES] for name in ("localization", "gallery")}
    auc = table[table["metric"] == "auc"].assign(label=table[args.group_by].agg(" ".join, axis=1))
    interval_figure(auc, "map", "label", "AUC against the region, 95 % interval", figures["localization"])
    local = auc
    if "kind" in args.group_by:  # memorized plants first
        local = auc[auc["kind"].isin(("local", NOT_MEMORIZED))].sort_values(["kind", "value"], ascending=[True, False])
    if len(local):
        drawn = [name for name in dict.fromkeys(local["map"]) if name in collected.maps]  # not the controls
        gallery_figure(collected, rows, drawn[:12], figures["gallery"])
    print(localization_text(table, args.group_by, chosen, PRINTED))
    print(f"\nThe {PRINTED} best maps and the trivial ones; all {table['map'].nunique()} are in localization.md.")
    print(f"{args.out}: localization.parquet, generations.parquet, localization.md, figures as .png and .svg")
    numbers = {keys.collected_localization(row.map, row.label): row.value for row in auc.itertuples()}
    log_to_wandb(args.wandb_run, numbers, {f"media/{name}": paths[0] for name, paths in figures.items()})
