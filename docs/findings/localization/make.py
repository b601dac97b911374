"""Write docs/findings/localization.md from the rows committed beside this file.

  python docs/findings/localization/make.py

`python scripts/reproduce.py localization` trains the runs and copies their rows here.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from afterglow.analysis.detection import detection_table, memorized_table, prompt_scores
from afterglow.analysis.localization import localization_table
from afterglow.analysis.summary import ALL_SEEDS, read_measurements
from afterglow.functional.roc import resampled_metrics
from afterglow.functional.statistics import Estimate, bootstrap_runs, resample
from afterglow.kinds import KINDS, NEGATIVES
from afterglow.measures.registry import TRIVIAL_MAPS, is_detector
from afterglow.reports.tables import count_text, interval_text, text_table

HERE = Path(__file__).parent
TRIVIAL = tuple(m.name for m in TRIVIAL_MAPS)
SMALL_AREA = 0.3  # fraction of the image: quadrants, small rectangles and blobs are below it
PAPER_MAP = "end_token.last.first_eos.be"  # the layers of the Bright Ending paper
DIFFERENCE_MAP = "score_difference.summed"
MAX_DETECTORS, MAX_SMALL_MAPS = 25, 15  # rows of the two longest tables

INTRODUCTION = """# Which map finds a planted region, and which score detects it

`python docs/findings/localization/make.py` writes this page from the rows in `docs/findings/localization/`. `python scripts/reproduce.py localization` trains the runs again.

Setup: OpenMoji at 16 pixels; a U-Net with text conditioning and 1.3 million parameters, trained from scratch. All values are from the last evaluation, on averaged weights, with 4 seeds per caption and guidance scale 1. Values are means over runs. Brackets hold 95 % intervals; the bootstrap resamples seeds, then runs, then plants."""

MAP_NOTES = """AUC: how well a map's pixels separate the inside of the planted region from the outside. IoU: overlap at a threshold chosen on other plants of the same run. An AUC above .5 on phantoms is caused by position or image content. An AUC above .5 on tints is caused by what the caption predicts. Trivial maps do not use the model and are marked."""

DETECTOR_NOTES = """AUC of the mean score over 4 generations of a caption, for planted captions against each kind without a copy. A score that is also high on decoys responds to exposure. A score that is also high on tints responds to conditioning."""


def read_last_evaluations(folder: Path) -> pd.DataFrame:
    """Rows of the last evaluation of every committed run, with a column `run`."""
    tables = []
    for path in sorted(folder.glob("*/measurements.parquet")):
        rows = read_measurements(path)
        tables.append(rows[rows["step"] == rows["step"].max()].assign(run=path.parent.name))
    return pd.concat(tables, ignore_index=True)


def page(folder: Path = HERE) -> str:
    """Markdown of the finding; every number is computed from the committed rows."""
    rows = read_last_evaluations(folder)
    samples = rows[rows["seed"] != ALL_SEEDS]
    maps = map_rows(samples)
    areas = rows[rows["measure"] == "area"].set_index(["run", "plant_id"])["value"]
    seeds = training_seeds(maps)
    localization, by_size = (localization_table(part, seeds=seeds) for part in (maps, split_by_size(maps, areas)))
    detectors = [name for name in dict.fromkeys(samples["measure"]) if is_detector(name)]
    pairs = [(kind, negative) for kind in ("global", "local") for negative in NEGATIVES]
    detection = detection_table(samples, detectors, pairs, [4], seeds)
    parts = [
        INTRODUCTION,
        "## Conclusions",
        "\n".join(f"{number}. {line}" for number, line in enumerate(conclusions(localization, by_size, maps, detection, samples), 1)),
        "## Runs",
        runs_text(folder, rows),
        "## Memorized at the last evaluation",
        memorized_text(rows),
        "## All maps",
        MAP_NOTES,
        maps_text(localization),
        f"## Small regions (below {SMALL_AREA:.0%} of the image) and large regions",
        sizes_text(by_size),
        "## Detectors, separately for global and local plants",
        DETECTOR_NOTES,
        "### Global plants",
        detectors_text(detection, "global"),
        "### Local plants",
        detectors_text(detection, "local"),
        "### Memorized generations against all others",
        memorized_detectors_text(memorized_table(samples, detectors, seeds)),
    ]
    return "\n\n".join(parts) + "\n"


def map_rows(samples: pd.DataFrame) -> pd.DataFrame:
    """Columns run, plant_id, kind, seed, map, auc, iou; one row per generation and map."""
    keys = ["run", "plant_id", "kind", "seed", "map"]
    columns = []
    for metric in ("auc", "iou"):
        part = samples[samples["measure"].str.startswith(f"{metric}.")]
        columns.append(part.assign(map=part["measure"].str.partition(".")[2]).set_index(keys)["value"].rename(metric))
    return pd.concat(columns, axis=1).reset_index()


def split_by_size(maps: pd.DataFrame, areas: pd.Series) -> pd.DataFrame:
    """Rows of local plants, with kind replaced by small or large. areas: fraction of the image by (run, plant_id)."""
    sizes = pd.Series(np.where(areas < SMALL_AREA, "small", "large"), index=areas.index, name="size")
    local = maps[maps["kind"] == "local"].join(sizes, on=["run", "plant_id"])
    return local.assign(kind=local["size"])


def training_seeds(rows: pd.DataFrame) -> dict[Any, str]:
    """{run: training seed}; the names of the runs end with it."""
    return {run: str(run).rpartition("-")[2] for run in rows["run"].unique()}


def mean_by_runs(resampled: Mapping[Any, np.ndarray], rows: pd.DataFrame) -> Estimate:
    """Mean over runs of resampled values; the interval resamples seeds, then runs, then plants. rows: with the column run."""
    seeds = training_seeds(rows)
    return bootstrap_runs(list(resampled.values()), [seeds[run] for run in resampled])


def map_difference(maps: pd.DataFrame, first: str, second: str, kind: str = "local") -> Estimate:
    """Mean difference of the AUC of two maps on the same plants."""
    plants = maps[maps["kind"] == kind].groupby(["run", "plant_id", "map"])["auc"].mean().unstack("map")
    difference = (plants[first] - plants[second]).dropna()
    runs = {run: resample(part.to_numpy()) for run, part in difference.groupby("run")}
    return mean_by_runs(runs, maps)


def kind_difference(maps: pd.DataFrame, name: str, other: str) -> Estimate:
    """Mean AUC of a map on local plants minus its mean AUC on another kind."""
    plants = maps[maps["map"] == name].groupby(["run", "kind", "plant_id"])["auc"].mean()
    differences = {}
    for run in plants.index.unique("run"):
        local, control = (resample(plants[run, kind].to_numpy(), seed=seed) for seed, kind in enumerate(("local", other)))
        differences[run] = local - control
    return mean_by_runs(differences, maps)


def detector_difference(samples: pd.DataFrame, first: str, second: str, kind: str, negative: str) -> Estimate:
    """Difference of the AUC of two detectors on the same captions and the same resamples."""
    prompts = prompt_scores(samples[samples["measure"].isin((first, second))], 4)
    differences = {}
    for name_of_run, run in prompts.groupby("run"):
        areas = []
        for name in (first, second):
            values = run[run["measure"] == name].set_index("kind")["value"]
            areas.append(resampled_metrics(values.loc[[kind]].to_numpy(), values.loc[[negative]].to_numpy())["auc"])
        differences[name_of_run] = areas[0] - areas[1]
    return mean_by_runs(differences, samples)


def verdict(difference: Estimate) -> str:
    """In words what the interval of a difference decides."""
    return "higher" if difference.low > 0 else "lower" if difference.high < 0 else "no significant difference"


def difference_text(difference: Estimate) -> str:
    """For example '+0.24 [+0.02, +0.43], higher'."""
    return f"{interval_text(difference, '+.2f')}, {verdict(difference)}"


def best_maps(localization: pd.DataFrame, prefixes: Sequence[str]) -> pd.DataFrame:
    """AUC rows of local plants, best first, of the maps whose names begin with one of the prefixes."""
    auc = localization[(localization["metric"] == "auc") & (localization["kind"] == "local")]
    return auc[auc["map"].str.startswith(tuple(prefixes))].sort_values("value", ascending=False, kind="stable")


def conclusions(
    localization: pd.DataFrame, by_size: pd.DataFrame, maps: pd.DataFrame, detection: pd.DataFrame, samples: pd.DataFrame
) -> Iterator[str]:
    """One sentence or two per conclusion. Verdicts depend on the intervals."""
    end_token = best_maps(localization, ["end_token."])
    best, worst, trivial = end_token.iloc[0]["map"], end_token.iloc[-1], best_maps(localization, TRIVIAL).iloc[0]["map"]
    known = (*TRIVIAL, "end_token.", "score_difference.")
    other = best_maps(localization, [name for name in localization["map"].unique() if not name.startswith(known)]).iloc[0]["map"]
    auc = {
        (row.map, row.kind): interval_text(row) for table in (localization, by_size) for row in table.itertuples() if row.metric == "auc"
    }

    def kinds(name: str, *others: str) -> str:
        return "; ".join(
            f"{kind} {auc[name, kind]} (local minus {kind}: {difference_text(kind_difference(maps, name, kind))})" for kind in others
        )

    yield (
        f"The end-token map in the layers of the Bright Ending paper (`{PAPER_MAP}`) has an AUC of {auc[PAPER_MAP, 'local']} on local "
        f"plants. Difference from the best trivial map, `{trivial}`: {difference_text(map_difference(maps, PAPER_MAP, trivial))}."
    )
    yield (
        f"The best end-token map, selected after seeing the results, is `{best}` with {auc[best, 'local']}. Difference from `{trivial}`: "
        f"{difference_text(map_difference(maps, best, trivial))}. Difference from `{DIFFERENCE_MAP}`: "
        f"{difference_text(map_difference(maps, best, DIFFERENCE_MAP))}."
    )
    yield (
        f"End-token attention can also be lower inside a memorized region than outside: "
        f"`{worst['map']}` has an AUC of {interval_text(worst)}."
    )
    yield (
        f"`{DIFFERENCE_MAP}` has an AUC of {auc[DIFFERENCE_MAP, 'local']} on local plants and {auc[DIFFERENCE_MAP, 'tint']} on tints, "
        f"of which nothing is copied. Local minus tint: {difference_text(kind_difference(maps, DIFFERENCE_MAP, 'tint'))}. "
        "This map responds to what the caption predicts, also if nothing is copied."
    )
    yield f"AUC of the best end-token map on kinds without a copy: {kinds(best, 'tint', 'decoy', 'phantom')}."
    yield f"AUC of `{DIFFERENCE_MAP}` without a copy and without training: {kinds(DIFFERENCE_MAP, 'phantom')}."
    yield (
        f"The best of the other maps is `{other}`: {auc[other, 'local']} on local plants, {auc[other, 'tint']} on tints, "
        f"{auc[other, 'phantom']} on phantoms. The curvature difference has {auc['curvature_difference', 'local']} as published "
        f"(`-sum diag J(eps_c - eps_u)`) and {auc['curvature_difference.of_score', 'local']} with the sign of the scores."
    )
    yield (
        "AUC by the size of the region: "
        + "; ".join(
            f"`{name}` {auc[name, 'small']} on small regions and {auc[name, 'large']} on large regions" for name in (best, DIFFERENCE_MAP)
        )
        + "."
    )
    norm = detection[(detection["metric"] == "auc") & (detection["detector"] == "guidance_norm.all") & (detection["positive"] == "local")]
    yield f"AUC of `guidance_norm.all` for local plants: {', '.join(f'against {r.negative} {interval_text(r)}' for r in norm.itertuples())}."
    for name, label in (("ld.be.all", "LD in the layers of the paper"), ("ld_neutral.be.all", "Area-neutral LD")):
        differences = ((n, detector_difference(samples, name, "guidance_norm.all", "local", n)) for n in NEGATIVES)
        yield f"{label} minus `guidance_norm.all`, AUC for local plants: {'; '.join(f'{n} {difference_text(d)}' for n, d in differences)}."


def runs_text(folder: Path, rows: pd.DataFrame) -> str:
    """Settings of each run, and how many of its local plants are memorized."""
    lines = []
    for name, part in rows.groupby("run"):
        config = yaml.safe_load((folder / str(name) / "config.yaml").read_text(encoding="utf-8"))
        planting = config["data"]["init_args"]["planting"]
        local = part[(part["measure"] == "plant_memorized") & (part["kind"] == "local")]["value"]
        settings = [config["seed_everything"], config["trainer"]["max_steps"], planting["copies"], ", ".join(planting["shapes"])]
        lines.append([f"`{name}`", *map(str, settings), f"{int(local.sum())} of {len(local)}", f"{part['seconds'].max() / 60:.0f}"])
    return text_table(["run", "seed", "steps", "copies", "shapes", "local plants memorized", "minutes until the last evaluation"], lines)


def memorized_text(rows: pd.DataFrame) -> str:
    """Memorized plants of each kind with Wilson intervals."""
    memorized = rows[rows["measure"] == "plant_memorized"].groupby("kind")["value"]
    counts = {kind: (int(values.sum()), len(values)) for kind, values in memorized}
    return text_table(
        ["kind", "memorized (95 % interval, Wilson)"], [[kind, count_text(*counts[kind])] for kind in KINDS if kind in counts]
    )


def _cells(table: pd.DataFrame) -> dict[tuple[Any, ...], str]:
    return {(row.map, row.kind, row.metric): interval_text(row) for row in table.itertuples()}


def maps_text(localization: pd.DataFrame) -> str:
    """One row per map, best AUC on local plants first."""
    cells, kinds = _cells(localization), ("local", "phantom", "tint", "decoy")
    plants = localization[localization["metric"] == "auc"].groupby("kind")["plants"].first()
    columns = [*((kind, "auc") for kind in kinds), ("local", "iou")]
    rows = [
        [f"`{name}`" + " (trivial)" * (name in TRIVIAL), *(cells.get((name, *column), "-") for column in columns)]
        for name in best_maps(localization, [""])["map"]
    ]
    return text_table(["map", *(f"AUC {kind} ({plants[kind]})" for kind in kinds), "IoU local"], rows)


def sizes_text(by_size: pd.DataFrame) -> str:
    """AUC and IoU on small and on large regions, best AUC on small regions first."""
    cells, columns = _cells(by_size), [(size, metric) for metric in ("auc", "iou") for size in ("small", "large")]
    auc = by_size[by_size["metric"] == "auc"]
    plants = auc.groupby("kind")["plants"].first()
    order = auc[auc["kind"] == "small"].sort_values("value", ascending=False, kind="stable")["map"][:MAX_SMALL_MAPS]
    rows = [[f"`{name}`", *(cells[name, *column] for column in columns)] for name in order]
    return text_table(["map", *(f"{metric.upper()} {size} ({plants[size]})" for size, metric in columns)], rows)


def detectors_text(detection: pd.DataFrame, positive: str) -> str:
    """AUC against each kind without a copy; one row per detector, best mean AUC first."""
    auc = detection[(detection["metric"] == "auc") & (detection["positive"] == positive)]
    cells = {(row.detector, row.negative): row for row in auc.itertuples()}
    negatives = [name for name in NEGATIVES if name in set(auc["negative"])]
    order = auc.groupby("detector", sort=False)["value"].mean().sort_values(ascending=False, kind="stable").index
    rows = [[f"`{name}`", *(interval_text(cells[name, negative]) for negative in negatives)] for name in order]
    head = [f"{positive} ({auc.iloc[0]['positives']}) against", *(f"{name} ({cells[order[0], name].negatives})" for name in negatives)]
    return text_table(head, rows)


def memorized_detectors_text(table: pd.DataFrame) -> str:
    """Memorized generations against all others: every metric of the best detectors."""
    cells = {(row.detector, row.metric): interval_text(row) for row in table.itertuples()}
    order = table[table["metric"] == "auc"].sort_values("value", ascending=False, kind="stable")["detector"][:MAX_DETECTORS]
    metrics = ("auc", "f1", "f1_held_out", "tpr_at_1fpr_under", "tpr_at_1fpr_nearest")
    return text_table(["detector", *metrics], [[f"`{name}`", *(cells.get((name, metric), "-") for metric in metrics)] for name in order])


if __name__ == "__main__":
    target = HERE.with_suffix(".md")
    target.write_text(page(), encoding="utf-8")
    print(target)
