"""The finding "localization" as a page: which map finds what was planted, and which score detects it; made from committed rows alone."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from afterglow.analysis.detection import detection_table, judge, memorized_table, over_runs, scores_of_prompts
from afterglow.analysis.localization import localization_table
from afterglow.analysis.summary import ALL_SEEDS, NEGATIVES, read_measurements
from afterglow.functional.statistics import resample as means
from afterglow.functional.statistics import wilson_interval
from afterglow.measures.registry import TRIVIAL_MAPS, is_detector
from afterglow.reports.bench import interval, text_table
from afterglow.reports.kinds import KINDS

TRIVIAL = tuple(m.name for m in TRIVIAL_MAPS)
SMALL = 0.3  # share of the image under which a region is called small: quadrants, small rectangles and blobs
KEPT, LARGEST = ("config.yaml", "measurements.parquet", "emergence.json"), 300_000
AUTHORS = "end_token.last.first_eos.be"
TITLE = "# Which map finds a planted region, and which score detects it"

INTRODUCTION = (
    "Made by `python analysis/findings.py` from the runs in `docs/findings/data/` (`make findings` makes those). OpenMoji at 16 pixels, "
    "a captioned U-Net of 1.3 M parameters trained from scratch; last probe, averaged weights, 4 seeds a caption, guidance 1. Values are "
    "means over runs; brackets hold 95 % intervals that resample runs first and plants within runs second."
)
ABOUT_MAPS = (
    "AUC of a map's pixels against the planted region; IoU at a threshold that was chosen on other plants of the same run. What exceeds "
    ".5 on phantoms is position or image, what exceeds it on tints is what the caption predicts. The trivial maps are marked."
)
ABOUT_DETECTORS = (
    "AUC of the mean over 4 generations of a caption, planted captions against each kind that was not planted. A score that fires on "
    "decoys detects exposure, one that fires on tints detects conditioning."
)


def runs_of(folder: Path) -> dict[str, pd.DataFrame]:
    """{run: rows of its last probe} of every run that was kept; ValueError where there is none."""
    found = {}
    for path in sorted(folder.glob("*/measurements.parquet")):
        rows = read_measurements(path)
        found[path.parent.name] = rows[rows["step"] == rows["step"].max()]
    if not found:
        raise ValueError(f"No run was kept in '{folder}': `make findings` makes them.")
    return found


def keep_run(run: Path, folder: Path) -> int:
    """Copy what the page needs of a finished run; returns its bytes. ValueError where the run has not ended, or it is too much."""
    if not (run / "emergence.json").is_file():
        raise ValueError(f"'{run}' is no finished run: emergence.json is missing.")
    size = sum((run / name).stat().st_size for name in KEPT)
    if size > LARGEST:
        raise ValueError(
            f"'{run}' holds {size / 1000:.0f} kB of numbers, and {LARGEST / 1000:.0f} kB may be kept: measure less at its probes."
        )
    (folder / run.name).mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        shutil.copy(run / name, folder / run.name / name)
    return size


def localization_page(folder: Path) -> str:
    """Markdown; every number is reckoned from the kept rows."""
    runs = runs_of(folder)
    rows = pd.concat([part.assign(run=name) for name, part in runs.items()], ignore_index=True)
    each = rows[rows["seed"] != ALL_SEEDS]
    located = map_rows(each)
    areas = rows[rows["measure"] == "area"].set_index(["run", "plant_id"])["value"]
    table = localization_table(located)
    detectors = [name for name in dict.fromkeys(each["measure"]) if is_detector(name)]
    pairs = [(kind, negative) for kind in ("global", "local") for negative in NEGATIVES]
    detected = detection_table(each, detectors, pairs, [4])
    parts = [
        TITLE,
        INTRODUCTION,
        "## What follows",
        conclusions(table, located, areas, detected, each),
        "## The runs",
        _runs(folder, rows),
        "## What was memorized",
        _memorized(rows),
        "## Every map",
        ABOUT_MAPS,
        _maps(table),
        f"## Small regions (under {SMALL:.0%} of the image) and large ones",
        _areas(located, areas),
        "## Every detector, for global and for local plants apart",
        ABOUT_DETECTORS,
        _detectors(detected, "global"),
        _detectors(detected, "local"),
        "Label set (ii), generations that are memorized against all others:",
        _second(memorized_table(each, detectors)),
    ]
    return "\n\n".join(parts) + "\n"


def map_rows(each: pd.DataFrame) -> pd.DataFrame:
    """run, plant_id, kind, seed, map, auc, iou of every generation that was judged."""
    keys = ["run", "plant_id", "kind", "seed", "map"]
    found = {}
    for what in ("auc", "iou"):
        some = each[each["measure"].str.startswith(f"{what}.")]
        found[what] = some.assign(map=some["measure"].str.partition(".")[2]).set_index(keys)["value"].rename(what)
    return pd.concat(found.values(), axis=1).reset_index()


def _value(table: pd.DataFrame, name: str, kind: str, metric: str = "auc") -> Any:
    rows = table[(table["map"] == name) & (table["kind"] == kind) & (table["metric"] == metric)]
    return next(rows.itertuples()) if len(rows) else None


def _order(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """AUC of maps on local plants, those whose names begin with one of `names`, best first (so chosen after the fact)."""
    auc = table[(table["metric"] == "auc") & (table["kind"] == "local")]
    return auc[auc["map"].str.startswith(tuple(names))].sort_values("value", ascending=False, kind="stable")


def paired(located: pd.DataFrame, one: str, other: str, kind: str = "local") -> tuple[float, float, float]:
    """Mean difference of two maps' AUC on the same plants, with its interval."""
    plants = located[located["kind"] == kind].groupby(["run", "plant_id", "map"])["auc"].mean().unstack("map")
    difference = (plants[one] - plants[other]).dropna()
    return over_runs([means(part.to_numpy()) for _, part in difference.groupby("run")])


def kind_difference(located: pd.DataFrame, name: str, other: str) -> tuple[float, float, float]:
    """Mean AUC of a map on local plants less that on another kind, with its interval."""
    plants = located[located["map"] == name].groupby(["run", "kind", "plant_id"])["auc"].mean()
    each = []
    for run in plants.index.unique("run"):
        ours, theirs = (means(plants[run, kind].to_numpy(), seed=seed) for seed, kind in enumerate(("local", other)))
        each.append(ours - theirs)
    return over_runs(each)


def detector_difference(each: pd.DataFrame, one: str, other: str, kind: str, negative: str) -> tuple[float, float, float]:
    """Difference of two detectors' AUC on the same prompts, with its interval: both are judged on the same resamples."""
    prompts = scores_of_prompts(each[each["measure"].isin((one, other))], 4)
    differences = []
    for _, part in prompts.groupby("run"):
        kinds, values = part["kind"], part["value"]
        areas = []
        for name in (one, other):
            mine = part["measure"] == name
            areas.append(judge(values[mine & (kinds == kind)].to_numpy(), values[mine & (kinds == negative)].to_numpy())["auc"])
        differences.append(areas[0] - areas[1])
    return over_runs(differences)


class _Sentences:
    """Numbers as the conclusions say them; words are decided by intervals."""

    def __init__(self, table: pd.DataFrame, located: pd.DataFrame, areas: pd.Series, detected: pd.DataFrame, each: pd.DataFrame) -> None:
        self.table, self.located, self.each = table, located, each
        self.auc = {(row.detector, row.positive, row.negative): row for row in detected[detected["metric"] == "auc"].itertuples()}
        small = _split(located, areas)
        self.by_size = {(row.map, row.kind): interval(row) for row in small[small["metric"] == "auc"].itertuples()}

    def on(self, name: str, kind: str) -> str:
        found = _value(self.table, name, kind)
        return "absent" if found is None else interval(found)

    def beats(self, one: str, other: str) -> str:
        value, low, high = paired(self.located, one, other)
        verdict = "more than" if low > 0 else "less than" if high < 0 else "not distinguishable from"
        return f"{verdict} `{other}` (difference {value:+.2f} [{low:+.2f}, {high:+.2f}])"

    def apart(self, name: str, other: str) -> str:
        value, low, high = kind_difference(self.located, name, other)
        verdict = "higher on local plants" if low > 0 else "lower on local plants" if high < 0 else "not distinguishable"
        return f"{verdict} ({value:+.2f} [{low:+.2f}, {high:+.2f}])"

    def small(self, name: str) -> str:
        return f"`{name}` {self.by_size[name, 'small']} on small ones, {self.by_size[name, 'large']} on large ones"

    def detector(self, name: str, kind: str) -> str:
        return ", ".join(f"{other} {interval(self.auc[name, kind, other])}" for other in NEGATIVES if (name, kind, other) in self.auc)

    def better(self, one: str, other: str, kind: str) -> str:
        found = []
        for negative in NEGATIVES:
            value, low, high = detector_difference(self.each, one, other, kind, negative)
            verdict = "better" if low > 0 else "worse" if high < 0 else "no difference seen"
            found.append(f"{negative} {verdict} ({value:+.2f} [{low:+.2f}, {high:+.2f}])")
        return ", ".join(found)


def conclusions(table: pd.DataFrame, located: pd.DataFrame, areas: pd.Series, detected: pd.DataFrame, each: pd.DataFrame) -> str:
    """Ten lines."""
    say = _Sentences(table, located, areas, detected, each)
    ends = _order(table, ["end_token."])
    best, trivial, score = str(ends["map"].iloc[0]), str(_order(table, TRIVIAL)["map"].iloc[0]), "score_difference.summed"
    darkest = ends.iloc[-1]
    rest = [name for name in table["map"].unique() if name not in TRIVIAL and not name.startswith(("end_token.", "score_difference."))]
    third = str(_order(table, rest)["map"].iloc[0])
    published, of_score = "curvature_difference", "curvature_difference.of_score"
    lines = [
        f"Does the end token localize? In the authors' layers (`{AUTHORS}`) its AUC on local plants is {say.on(AUTHORS, 'local')}: "
        f"{say.beats(AUTHORS, trivial)}, the best trivial map.",
        f"In which layer and step? The best, chosen after the fact, is `{best}`: {say.on(best, 'local')}, {say.beats(best, trivial)}, "
        f"and {say.beats(best, score)}.",
        f"It can as well be dark: `{darkest['map']}` has {interval(darkest)}; there memorized regions get less attention than the rest.",
        f"The summed score difference has {say.on(score, 'local')} on local plants and {say.on(score, 'tint')} on tints, of which nothing "
        f"is copied: {say.apart(score, 'tint')}. It localizes what the caption predicts.",
        f"Does the end token fire on tints and decoys? `{best}`: tints {say.on(best, 'tint')}, {say.apart(best, 'tint')}; "
        f"decoys {say.on(best, 'decoy')}, {say.apart(best, 'decoy')}.",
        f"Do phantoms stay dark? `{best}` {say.on(best, 'phantom')}, {say.apart(best, 'phantom')}; `{score}` {say.on(score, 'phantom')}, "
        f"{say.apart(score, 'phantom')}.",
        f"Of the other maps `{third}` is best: {say.on(third, 'local')} on local plants, {say.on(third, 'tint')} on tints, "
        f"{say.on(third, 'phantom')} on phantoms. Curvature difference as published (`-sum diag J(eps_c - eps_u)`) has "
        f"{say.on(published, 'local')}, with the sign of the scores {say.on(of_score, 'local')}.",
        f"Does a small mask make it fail? {say.small(best)}; {say.small(score)}.",
        f"Magnitude of local plants, AUC against {say.detector('guidance_norm.all', 'local')}.",
        f"Does LD beat it? In the authors' layers, difference of the AUC against {say.better('ld.be.all', 'guidance_norm.all', 'local')}; "
        f"its area-neutral variant against {say.better('ld_neutral.be.all', 'guidance_norm.all', 'local')}.",
    ]
    return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, start=1))


def _split(located: pd.DataFrame, areas: pd.Series) -> pd.DataFrame:
    size = pd.Series(np.where(areas < SMALL, "small", "large"), index=areas.index, name="size")
    local = located[located["kind"] == "local"].join(size, on=["run", "plant_id"])
    return localization_table(local.assign(kind=local["size"]))


def _areas(located: pd.DataFrame, areas: pd.Series) -> str:
    table = _split(located, areas)
    cells = {(row.map, row.kind, row.metric): row for row in table.itertuples()}
    auc = table[(table["metric"] == "auc") & (table["kind"] == "small")].sort_values("value", ascending=False, kind="stable")
    keys = [(size, metric) for metric in ("auc", "iou") for size in ("small", "large")]
    rows = [[f"`{name}`", *(interval(cells[name, size, metric]) for size, metric in keys)] for name in auc["map"][:15]]
    counts = {size: cells[auc["map"].iloc[0], size, "auc"].plants for size in ("small", "large")}
    return text_table(["map", *(f"{metric.upper()} {size} ({counts[size]})" for size, metric in keys)], rows)


def _runs(folder: Path, rows: pd.DataFrame) -> str:
    lines = []
    for name, part in rows.groupby("run"):
        config = yaml.safe_load((folder / str(name) / "config.yaml").read_text(encoding="utf-8"))
        planting = config["data"]["init_args"]["planting"]
        local = part[(part["measure"] == "plant_memorized") & (part["kind"] == "local")]["value"]
        about = [config["seed_everything"], config["trainer"]["max_steps"], planting["copies"], ", ".join(planting["shapes"])]
        lines.append([f"`{name}`", *map(str, about), f"{int(local.sum())} of {len(local)}", f"{part['seconds'].max() / 60:.0f}"])
    return text_table(["run", "seed", "steps", "copies", "shapes", "local plants memorized", "minutes until the last probe"], lines)


def _memorized(rows: pd.DataFrame) -> str:
    lines = []
    for kind in KINDS:
        seen = rows[(rows["measure"] == "plant_memorized") & (rows["kind"] == kind)]["value"]
        if len(seen):
            low, high = wilson_interval(seen.sum(), len(seen))
            lines.append([kind, f"{int(seen.sum())} of {len(seen)}", f"{low:.0%} to {high:.0%}"])
    return text_table(["kind", "memorized", "95 % interval (Wilson)"], lines)


def _maps(table: pd.DataFrame) -> str:
    cells = {(row.map, row.kind, row.metric): row for row in table.itertuples()}
    order = table[(table["metric"] == "auc") & (table["kind"] == "local")].sort_values("value", ascending=False, kind="stable")["map"]
    kinds = ("local", "phantom", "tint", "decoy")

    def cell(name: str, kind: str, metric: str) -> str:
        found = cells.get((name, kind, metric))
        return "-" if found is None else interval(found)

    rows = [
        [f"`{name}`{' (trivial)' if name in TRIVIAL else ''}", *(cell(name, kind, "auc") for kind in kinds), cell(name, "local", "iou")]
        for name in order
    ]
    counts = {kind: cells[order.iloc[0], kind, "auc"].plants for kind in kinds}
    return text_table(["map", *(f"AUC {kind} ({counts[kind]})" for kind in kinds), "IoU local"], rows)


def _detectors(detected: pd.DataFrame, positive: str) -> str:
    auc = detected[(detected["metric"] == "auc") & (detected["positive"] == positive)]
    cells: Mapping[tuple[str, str], Any] = {(row.detector, row.negative): row for row in auc.itertuples()}
    negatives = [name for name in NEGATIVES if name in set(auc["negative"])]
    order = auc.groupby("detector", sort=False)["value"].mean().sort_values(ascending=False, kind="stable").index
    count = auc.iloc[0]["positives"]
    rows = [[f"`{name}`", *(interval(cells[name, negative]) for negative in negatives)] for name in order]
    return text_table([f"{positive} ({count}) against", *(f"{name} ({cells[order[0], name].negatives})" for name in negatives)], rows)


def _second(table: pd.DataFrame) -> str:
    cells = {(row.detector, row.metric): interval(row) for row in table.itertuples()}
    order = table[table["metric"] == "auc"].sort_values("value", ascending=False, kind="stable")["detector"][:25]
    metrics = ("auc", "f1", "f1_held_out", "tpr_at_1fpr_under", "tpr_at_1fpr_nearest")
    return text_table(["detector", *metrics], [[f"`{name}`", *(cells.get((name, metric), "-") for metric in metrics)] for name in order])
