"""Write the leaderboard of docs/bench.md, or add a model to its evaluation.

  python scripts/bench.py                              write the tables from the rows in docs/bench/
  python scripts/bench.py --add runs/demo --name demo-0  sample the run's model and commit its rows there (minutes)

docs/bench/NAME/ holds scores.parquet (every detector, the distances of both rules of copying and whether each generation is memorized),
maps.parquet (every map's AUC and IoU of each plant), clusters.csv (the number of near-duplicates of each control in the training set),
whole.parquet (numbers of the whole model) and bench.json (training seed, settings). The tables of attention mass and of knock-outs read the
rows of E3 in docs/findings/endings/. The tables are made by the functions behind `afterglow detect`, `localize` and `knockout`.
"""

import argparse
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pandas as pd
import torch

from afterglow import cli
from afterglow.analysis.detection import detection_table, memorized_table
from afterglow.analysis.knockout import count_copies
from afterglow.analysis.localization import MASK_PRIOR, collect_maps, localization_table, map_rows
from afterglow.analysis.summary import INVERTED, read_measurements, with_families
from afterglow.attention_names import TOKEN_GROUPS
from afterglow.evaluation.whole_model import copying_rows, denoising_gap_rows
from afterglow.files import read_yaml
from afterglow.functional.distances import COPY_LIMITS
from afterglow.functional.statistics import Estimate, exact_at_bounds, t_interval
from afterglow.kinds import NOT_MEMORIZED, PLANTED
from afterglow.measures.registry import TRIVIAL_MAPS, is_detector
from afterglow.measures.tables import read_parts, write_measurements
from afterglow.planting.runs import load_planted_set
from afterglow.planting.targets import cluster_sizes
from afterglow.reports.tables import count_text, interval_text, text_table

BENCH = Path(__file__).resolve().parents[1] / "docs" / "bench"
PAGE = BENCH.with_suffix(".md")
ENDINGS = BENCH.parent / "findings" / "endings"  # the runs of E3: endings-ARM-SEED
NUM_IMAGES = 2
SETTINGS = ("--num-images", str(NUM_IMAGES), "--controls", "32", "--num-inference-steps", "12", "--curvature-vectors", "4")
ONE_LAYER = re.compile(r"\.(down_blocks|mid_block|up_blocks)\.")  # maps and scores of single layers are not committed
COPY_MEASURES = ("memorized", *COPY_LIMITS)  # committed beside the detectors, so that another limit can be applied
MASSES = tuple(f"attention_mass.{group}.all" for group in TOKEN_GROUPS)
COPIES = {("global", "calibrated_l2"): "global, calibrated", ("global", "nn_ratio"): "global, d1/d2"}
COPIES |= {("local", "calibrated_l2"): "local, calibrated", ("local", "nn_ratio"): "local, d1/d2"}
NUM_PROMPTS = 8  # of each kind, for Z_U
MIN_SEEDS = 3  # with fewer, the models are the units of an interval
PAIRS = (("global", "phantom"), ("local", "phantom"), ("planted", "control"), ("planted", "decoy"), ("planted", "tint"))
MAP_COLUMNS = {("local", "auc"): "local, memorized", ("local", "iou"): "IoU", ("local", "permuted_auc"): "other plants' masks"}
MAP_COLUMNS |= {(NOT_MEMORIZED, "auc"): "local, not memorized", ("phantom", "auc"): "phantom", ("tint", "auc"): "tint"}
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
        whole = whole_rows(run, folder, first)
    rows, maps = rows[rows["seed"].isin(first)], maps[maps["seed"].isin(first)]
    (BENCH / name).mkdir(parents=True, exist_ok=True)
    rows = rows[rows["measure"].isin(committed_scores(rows["measure"].unique()))][["plant_id", "kind", "seed", "measure", "value"]]
    rows.to_parquet(BENCH / name / "scores.parquet", index=False, compression="zstd")
    own = maps[maps["map"].map(_kept)].groupby(["plant_id", "kind", "shape", "map"], as_index=False, sort=False)
    means = own[["auc", "permuted_auc", "iou"]].mean().astype({"auc": "float32", "permuted_auc": "float32", "iou": "float32"})
    means.to_parquet(BENCH / name / "maps.parquet", index=False, compression="zstd")
    whole.to_parquet(BENCH / name / "whole.parquet", index=False)
    write_clusters(run, name, rows)
    collected = generations is None or run not in generations.parents
    about = {"seed": read_yaml(run / "config.yaml")["seed_everything"], "generations": "collected" if collected else "last evaluation"}
    (BENCH / name / "bench.json").write_text(json.dumps(about) + "\n", encoding="utf-8")


def write_clusters(run: Path, name: str, rows: pd.DataFrame) -> None:
    """docs/bench/NAME/clusters.csv: plant_id of the controls of the rows, and the size of their near-duplicate cluster."""
    sizes = pd.Series(cluster_sizes(load_planted_set(run)), name="size").rename_axis("plant_id")
    sizes[sizes.index.isin(rows[rows["kind"] == "control"]["plant_id"])].to_csv(BENCH / name / "clusters.csv")


def whole_rows(run: Path, folder: Path, seeds: Sequence[int]) -> pd.DataFrame:
    """Z_U of the first NUM_PROMPTS prompts of each kind and the denoising gaps of the last evaluation: columns measure, kind, value."""
    planted, parts = load_planted_set(run), []
    for _, part in read_parts([folder]):
        parts.append(part[[row for row, seed in enumerate(part.seed) if int(seed) in seeds]])
    images, about = torch.cat([part.images for part in parts]), pd.DataFrame({"kind": [kind for part in parts for kind in part.kind]})
    about["prompt"] = [number for part in parts for number in part.plant_id.tolist()]
    first = about[about.groupby("kind")["prompt"].rank(method="dense") <= NUM_PROMPTS]  # Z_U grows with the number of generations
    own = SimpleNamespace(images=images[first.index.tolist()], kind=first["kind"].tolist())
    copying = copying_rows(own, planted.gallery(), planted.pixels[planted.heldout])
    rows = pd.read_parquet(run / "measurements.parquet")
    gaps = denoising_gap_rows(rows[rows["step"] == rows["step"].max()].astype({"value": float}))
    return pd.concat([copying, gaps], ignore_index=True)[["measure", "kind", "value"]]


def committed_scores(names: Iterable[str]) -> list[str]:
    """The names whose rows scores.parquet holds: detectors and COPY_MEASURES, without single layers."""
    return [name for name in names if _kept(name) and (is_detector(name) or name in COPY_MEASURES)]


def _kept(name: str) -> bool:
    return not ONE_LAYER.search(f"{name}.")


def read_bench(folder: Path = BENCH) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, int]]:
    """Scores and maps of all committed models with a column run, and {run: training seed}."""
    names = sorted(path.parent.name for path in folder.glob("*/bench.json"))
    seeds = {name: json.loads((folder / name / "bench.json").read_text(encoding="utf-8"))["seed"] for name in names}
    tables = [[pd.read_parquet(folder / name / f"{table}.parquet").assign(run=name) for name in names] for table in ("scores", "maps")]
    scores, maps = (pd.concat(parts, ignore_index=True).astype({"value": float} if "value" in parts[0] else {}) for parts in tables)
    return scores, maps, seeds


def read_endings(folder: Path, file: str) -> pd.DataFrame:
    """Rows of a file of all committed runs of E3, with columns run (ARM-SEED), arm and training_seed."""
    tables = []
    for path in sorted(folder.glob(f"endings-*/{file}")):
        run = path.relative_to(folder).parts[0].removeprefix("endings-")
        arm, seed = run.rsplit("-", 1)
        tables.append(read_measurements(path).assign(run=run, arm=arm, training_seed=int(seed)))
    return pd.concat(tables, ignore_index=True)


def memorized_plants(scores: pd.DataFrame) -> pd.Series:
    """Whether each plant is memorized (at least half of its generations are), indexed by run and plant_id."""
    return scores[scores["measure"] == "memorized"].groupby(["run", "plant_id"])["value"].mean() >= 0.5


def counted_kinds(scores: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """The rows of the measure memorized, with controls of natural families apart."""
    sizes = {run: pd.read_csv(folder / run / "clusters.csv", index_col="plant_id")["size"].to_dict() for run in scores["run"].unique()}
    rows = scores[scores["measure"] == "memorized"]
    return pd.concat([with_families(part, sizes[str(run)]) for run, part in rows.groupby("run")], ignore_index=True)


def without_distances(scores: pd.DataFrame, runs: Iterable[str]) -> list[str]:
    """The runs whose rows lack a distance of COPY_LIMITS."""
    return [run for run in runs if not set(COPY_LIMITS) <= set(scores[scores["run"] == run]["measure"])]


def detector_text(scores: pd.DataFrame, names: Sequence[str], seeds: Mapping[str, int], head: str = "detector") -> str:
    """One row per score: AUC of memorized plants against each kind of negatives, and F1 of memorized generations, held out."""
    copied = memorized_plants(scores).reindex(pd.MultiIndex.from_frame(scores[["run", "plant_id"]])).to_numpy(dtype=float) > 0
    own = scores[~scores["kind"].isin(PLANTED) | copied]  # a plant that is not memorized is no positive
    both = pd.concat([own, own[own["kind"].isin(PLANTED)].assign(kind="planted")], ignore_index=True)
    cells = {}
    for own_names, units in _with_units(scores, "measure", names, seeds):
        table = detection_table(both, own_names, PAIRS, [NUM_IMAGES], units)
        cells |= {(r.detector, f"{r.positive} / {r.negative}"): r for r in table[table["metric"] == "auc"].itertuples()}
        evaluated = memorized_table(scores, own_names, units)
        cells |= {(r.detector, "F1, held out"): r for r in evaluated[evaluated["metric"] == "f1_held_out"].itertuples()}
    columns = [*(f"{positive} / {negative}" for positive, negative in PAIRS), "F1, held out"]
    return _text(head, names, columns, cells, order=("local / phantom", "global / phantom"))


def mass_text(folder: Path) -> str:
    """As `detector_text`: one row per arm of E3 and token group, whose attention mass at the last evaluation is the score."""
    rows = read_endings(folder, "measurements.parquet")
    rows = rows[rows["step"] == rows.groupby("run")["step"].transform("max")]
    rows = rows[rows["measure"].isin([*MASSES, "memorized"]) & rows["seed"].isin(range(NUM_IMAGES))]
    own = rows["measure"].isin(MASSES)
    rows = rows.assign(measure=rows["measure"].where(~own, rows["arm"] + ": " + rows["measure"]))
    names = rows["measure"][own].unique().tolist()
    return detector_text(rows, names, dict(zip(rows["run"], rows["training_seed"], strict=True)), head="arm of E3, score")


def knockout_text(folder: Path) -> str:
    """One row per arm of E3 and replaced token group: copies of each training seed by both rules; then the phantoms."""
    parts = read_endings(folder, "knockout/knockout.parquet").groupby(["arm", "training_seed"])
    copies = pd.concat([count_copies(rows).assign(arm=arm, seed=seed) for (arm, seed), rows in parts], ignore_index=True)
    replaced, lines = copies[~copies["knockout"].str.startswith("only_")], []
    for (arm, name), of in replaced.groupby(["arm", "knockout"], sort=False):
        cells = [copies_text(of[(of["kind"] == kind) & (of["rule"] == rule)]) for kind, rule in COPIES]
        lines.append([f"`{arm}`", f"`{name}`", *cells])
    found = copies[copies["kind"] == "phantom"].groupby(["seed", "plant_id"])["copies"].sum() > 0
    phantoms = f"Phantoms with a copy in any arm, variant or rule: {count_text(int(found.sum()), len(found))}."
    return f"{text_table(['arm of E3', 'replaced', *COPIES.values()], lines)}\n\n{phantoms}"


def copies_text(plants: pd.DataFrame) -> str:
    """'32, 30, 31 of 32: 0.97 [0.89, 1.00]': copies of each training seed; from MIN_SEEDS seeds on the proportion and its t interval.

    plants: rows of `count_copies` with a column seed. A seed's proportion is the mean over its plants. Where it is 0 or 1 for all seeds,
    the interval is the exact one of the plants, which are other images for each seed.
    """
    counts = plants.groupby("seed")[["copies", "generations"]].sum()
    sizes = ", ".join(map(str, counts["generations"].unique()))
    text = f"{', '.join(map(str, counts['copies']))} of {sizes}"
    if len(counts) < MIN_SEEDS:
        return text
    proportions = (plants["copies"] / plants["generations"]).groupby(plants["seed"]).mean()
    return f"{text}: {_within(exact_at_bounds(t_interval(proportions), len(plants)))}"


def map_text(maps: pd.DataFrame, scores: pd.DataFrame, seeds: Mapping[str, int]) -> str:
    """One row per map: AUC and held-out IoU on memorized local plants, and its AUC where nothing is copied."""
    copied = memorized_plants(scores).reindex(pd.MultiIndex.from_frame(maps[["run", "plant_id"]])).to_numpy(dtype=float) > 0
    kinds = maps["kind"].where((maps["kind"] != "local") | copied, NOT_MEMORIZED)
    names, cells = list(dict.fromkeys(maps["map"])), {}
    for own_names, units in _with_units(maps, "map", names, seeds):
        table = localization_table(maps[maps["map"].isin(own_names)].assign(kind=kinds), seeds=units)
        cells |= {(r.map, MAP_COLUMNS[r.kind, r.metric]): r for r in table.itertuples() if (r.kind, r.metric) in MAP_COLUMNS}
    return _text("map", names, list(MAP_COLUMNS.values()), cells, order=("local, memorized",))


def _with_units(
    rows: pd.DataFrame, column: str, names: Sequence[str], seeds: Mapping[str, int]
) -> Iterator[tuple[list[str], Mapping[str, int]]]:
    """The names that models of MIN_SEEDS seeds have, whose intervals are over seeds; then the others, whose units are the models."""
    runs = rows[[column, "run"]].drop_duplicates()
    counts = runs["run"].map(seeds).groupby(runs[column]).nunique()
    for enough, units in ((True, seeds), (False, {})):
        if own := [name for name in names if (counts[name] >= MIN_SEEDS) == enough]:
            yield own, units


def whole_text(folder: Path, seeds: Mapping[str, int]) -> str:
    """One row per number of the whole model: mean over training seeds, of the mean over the seed's models, with a t interval."""
    files = {name: folder / name / "whole.parquet" for name in seeds}
    rows = pd.concat([pd.read_parquet(file).assign(run=name) for name, file in files.items() if file.exists()], ignore_index=True)
    lines = []
    for (measure, kind), part in rows.groupby(["measure", "kind"], sort=False):
        values = part["value"].groupby(part["run"].map(seeds)).mean()
        about = f"`{measure}`" + f", {kind}" * (measure == "z_u")
        lines.append([about, interval_text(t_interval(values), ".2f" if measure == "z_u" else "+.4f"), str(part["run"].nunique())])
    return text_table(["number", "mean over seeds", "models"], lines)


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


def write_page(page: Path = PAGE, folder: Path = BENCH, endings: Path = ENDINGS) -> str:
    """Replace the tables between the markers of the page; the tables as text."""
    scores, maps, seeds = read_bench(folder)
    runs = ", ".join(f"`{name}` (seed {seed})" for name, seed in seeds.items())
    plants = counted_kinds(scores, folder).drop_duplicates(["run", "plant_id"]).set_index(["run", "plant_id"])["kind"]
    table = memorized_plants(scores).groupby(plants).agg(["sum", "size"])
    about = f"Models: {runs}. Memorized: {', '.join(f'{count} of {size} {kind}' for kind, count, size in table.itertuples())}."
    detectors = [name for name in scores["measure"].unique() if is_detector(name)]
    without = ", ".join(f"`{name}`" for name in without_distances(scores, seeds)) or "none"
    limits = f"Models whose rows hold only whether a generation is memorized, so that no other limit can be applied: {without}."
    text = "\n\n".join(
        [
            about,
            limits,
            "### Detectors",
            detector_text(scores, detectors, seeds),
            "### Attention mass",
            mass_text(endings),
            "### Maps",
            map_text(maps, scores, seeds),
            "### Whole model",
            whole_text(folder, seeds),
            "### Knock-out",
            knockout_text(endings),
        ]
    )
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
