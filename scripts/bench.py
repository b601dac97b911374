"""Write the leaderboard of docs/bench.md, or add a model to its evaluation.

  python scripts/bench.py                              write the tables from the rows in docs/bench/
  python scripts/bench.py --add runs/demo --name demo-0  sample the run's model and commit its rows there (minutes)

docs/bench/NAME/ holds scores.parquet (every detector and whether each generation is memorized), maps.parquet (every map's AUC and IoU of
each plant) and bench.json (training seed, settings). The tables are made by the functions behind `afterglow detect` and `localize`.
"""

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from afterglow import cli
from afterglow.analysis.detection import detection_table, memorized_table
from afterglow.analysis.localization import INVERTED, MASK_PRIOR, collect_maps, localization_table, map_rows
from afterglow.files import read_yaml
from afterglow.functional.statistics import Estimate
from afterglow.kinds import PLANTED
from afterglow.measures.registry import TRIVIAL_MAPS, is_detector
from afterglow.measures.tables import read_parts, write_measurements
from afterglow.reports.tables import interval_text, text_table

BENCH = Path(__file__).resolve().parents[1] / "docs" / "bench"
PAGE = BENCH.with_suffix(".md")
NUM_IMAGES = 2
SETTINGS = ("--num-images", str(NUM_IMAGES), "--controls", "32", "--num-inference-steps", "12", "--curvature-vectors", "4")
ONE_LAYER = re.compile(r"\.(down_blocks|mid_block|up_blocks)\.")  # maps and scores of single layers are not committed
MIN_SEEDS = 3  # with fewer, the models are the units of an interval
NOT_YET = "local, not memorized"
PAIRS = (("global", "phantom"), ("local", "phantom"), ("planted", "control"), ("planted", "decoy"), ("planted", "tint"))
MAP_COLUMNS = {("local", "auc"): "local, memorized", ("local", "iou"): "IoU", ("local", "permuted_auc"): "other plants' masks"}
MAP_COLUMNS |= {(kind, "auc"): kind for kind in (NOT_YET, "phantom", "tint")}
TRIVIAL = {measure.name for measure in TRIVIAL_MAPS}


def add_model(run: Path, name: str, generations: Path | None = None) -> None:
    """Sample the model of a run folder and write its rows to docs/bench/NAME; generations: a collection made with SETTINGS before."""
    with TemporaryDirectory() as scratch:
        folder = generations or Path(scratch) / name
        if generations is None:
            cli.main(["collect", "--model", str(run), "--run", str(run), *SETTINGS, "--out", str(folder)])
        scores = Path(scratch) / "scores.parquet"
        write_measurements([folder], scores)
        rows = pd.read_parquet(scores)
        maps = map_rows(collect_maps(read_parts([folder])))
    first = sorted(rows["seed"].unique())[:NUM_IMAGES]  # the last evaluation of a training has more
    rows, maps = rows[rows["seed"].isin(first)], maps[maps["seed"].isin(first)]
    (BENCH / name).mkdir(parents=True, exist_ok=True)
    kept = [measure for measure in rows["measure"].unique() if _kept(measure) and (is_detector(measure) or measure == "memorized")]
    rows = rows[rows["measure"].isin(kept)][["plant_id", "kind", "seed", "measure", "value"]]
    rows.to_parquet(BENCH / name / "scores.parquet", index=False, compression="zstd")
    own = maps[maps["map"].map(_kept)].groupby(["plant_id", "kind", "shape", "map"], as_index=False, sort=False)
    means = own[["auc", "permuted_auc", "iou"]].mean().astype({"auc": "float32", "permuted_auc": "float32", "iou": "float32"})
    means.to_parquet(BENCH / name / "maps.parquet", index=False, compression="zstd")
    collected = generations is None or run not in generations.parents
    about = {"seed": read_yaml(run / "config.yaml")["seed_everything"], "generations": "collected" if collected else "last evaluation"}
    (BENCH / name / "bench.json").write_text(json.dumps(about) + "\n", encoding="utf-8")


def _kept(name: str) -> bool:
    return not ONE_LAYER.search(f"{name}.")


def read_bench(folder: Path = BENCH) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, int]]:
    """Scores and maps of all committed models with a column run, and {run: training seed}."""
    names = sorted(path.parent.name for path in folder.glob("*/bench.json"))
    seeds = {name: json.loads((folder / name / "bench.json").read_text(encoding="utf-8"))["seed"] for name in names}
    tables = [[pd.read_parquet(folder / name / f"{table}.parquet").assign(run=name) for name in names] for table in ("scores", "maps")]
    scores, maps = (pd.concat(parts, ignore_index=True).astype({"value": float} if "value" in parts[0] else {}) for parts in tables)
    return scores, maps, seeds


def memorized_plants(scores: pd.DataFrame) -> pd.Series:
    """Whether each plant is memorized (at least half of its generations are), indexed by run and plant_id."""
    return scores[scores["measure"] == "memorized"].groupby(["run", "plant_id"])["value"].mean() >= 0.5


def detector_text(scores: pd.DataFrame, seeds: Mapping[str, int]) -> str:
    """One row per detector: AUC of memorized plants against each kind of negatives, and F1 of memorized generations, held out."""
    copied = memorized_plants(scores).reindex(pd.MultiIndex.from_frame(scores[["run", "plant_id"]])).to_numpy(dtype=float) > 0
    own = scores[~scores["kind"].isin(PLANTED) | copied]  # a plant that is not memorized is no positive
    both = pd.concat([own, own[own["kind"].isin(PLANTED)].assign(kind="planted")], ignore_index=True)
    names = [name for name in scores["measure"].unique() if is_detector(name)]
    table = detection_table(both, names, PAIRS, [NUM_IMAGES], seeds)
    cells = {(r.detector, f"{r.positive} / {r.negative}"): r for r in table[table["metric"] == "auc"].itertuples()}
    judged = memorized_table(scores, names, seeds)
    cells |= {(r.detector, "F1, held out"): r for r in judged[judged["metric"] == "f1_held_out"].itertuples()}
    columns = [*(f"{positive} / {negative}" for positive, negative in PAIRS), "F1, held out"]
    return _text("detector", names, columns, cells, order=("local / phantom", "global / phantom"))


def map_text(maps: pd.DataFrame, scores: pd.DataFrame, seeds: Mapping[str, int]) -> str:
    """One row per map: AUC and held-out IoU on memorized local plants, and its AUC where nothing is copied."""
    copied = memorized_plants(scores).reindex(pd.MultiIndex.from_frame(maps[["run", "plant_id"]])).to_numpy(dtype=float) > 0
    kinds = maps["kind"].where((maps["kind"] != "local") | copied, NOT_YET)
    table = localization_table(maps.assign(kind=kinds), seeds=seeds)
    cells = {(r.map, MAP_COLUMNS[r.kind, r.metric]): r for r in table.itertuples() if (r.kind, r.metric) in MAP_COLUMNS}
    names = list(dict.fromkeys(maps["map"]))
    return _text("map", names, list(MAP_COLUMNS.values()), cells, order=("local, memorized",))


def _text(head: str, names: Sequence[str], columns: Sequence[str], cells: Mapping, *, order: Sequence[str]) -> str:
    """A table sorted by the first column of `order` that a row has, the best first; trivial maps in italics."""
    worth = {name: next((cells[name, key].value for key in order if (name, key) in cells), -1.0) for name in names}
    shown = [column for column in columns if any((name, column) in cells for name in names)]
    models = {name: max((cells[name, column].runs for column in shown if (name, column) in cells), default=0) for name in names}
    trivial = TRIVIAL | {MASK_PRIOR} | {name + INVERTED for name in TRIVIAL}
    rows = [
        [
            f"*{name}*" if name in trivial else f"`{name}`",
            *(_within(cells[name, column]) if (name, column) in cells else "-" for column in shown),
            str(models[name]),
        ]
        for name in sorted(names, key=lambda name: -worth[name])
    ]
    return text_table([head, *shown, "models"], rows)


def _within(row: Any) -> str:
    """The estimate; its t interval is cut where the quantity, from 0 to 1, ends."""
    return interval_text(Estimate(row.value, max(row.low, 0.0), min(row.high, 1.0)))


def write_page(page: Path = PAGE, folder: Path = BENCH) -> str:
    """Replace the tables between the markers of the page; the tables as text."""
    scores, maps, seeds = read_bench(folder)
    units = seeds if len(set(seeds.values())) >= MIN_SEEDS else {}
    runs = ", ".join(f"`{name}` (seed {seed})" for name, seed in seeds.items())
    plants = scores.drop_duplicates(["run", "plant_id"]).set_index(["run", "plant_id"])["kind"]
    table = memorized_plants(scores).groupby(plants).agg(["sum", "size"])
    about = f"Models: {runs}. Memorized: {', '.join(f'{count} of {size} {kind}' for kind, count, size in table.itertuples())}."
    text = "\n\n".join([about, "### Detectors", detector_text(scores, units), "### Maps", map_text(maps, scores, units)])
    before, _, rest = page.read_text(encoding="utf-8").partition("<!-- begin -->")
    page.write_text(f"{before}<!-- begin -->\n\n{text}\n\n<!-- end -->{rest.partition('<!-- end -->')[2]}", encoding="utf-8")
    return text


def main() -> None:
    """Add a model if one is named, then write and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--add", type=Path, metavar="RUN", help="run folder whose model is added")
    parser.add_argument("--name", help="with --add: folder of its rows in docs/bench/")
    parser.add_argument("--generations", type=Path, metavar="DIR", help="with --add: generations that `afterglow collect` made before")
    args = parser.parse_args()
    if (args.add is None) != (args.name is None):
        parser.error("--add RUN and --name NAME belong together.")
    if args.add:
        add_model(args.add, args.name, args.generations)
    print(write_page())


if __name__ == "__main__":
    main()
