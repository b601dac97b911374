"""Write docs/findings/localization.md from the rows committed beside this file.

  python docs/findings/localization/make.py

`python scripts/reproduce.py localization` trains the runs and copies their rows here. `python docs/findings/localization/make.py priors` deals
the sets of the runs again and writes mask_prior.csv: the AUC of the mean of the other local plants' masks, for each plant.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml

from afterglow.analysis.detection import prompt_scores
from afterglow.analysis.emergence_table import emergence_intervals
from afterglow.analysis.summary import ALL_SEEDS, read_measurements
from afterglow.functional.localization import map_auc, mask_prior
from afterglow.functional.roc import detection_metrics
from afterglow.functional.statistics import Estimate, exact_at_bounds
from afterglow.kinds import KINDS, NEGATIVES
from afterglow.measures.registry import TRIVIAL_MAPS, is_detector
from afterglow.planting.runs import load_planted_set
from afterglow.reports.tables import count_text, text_table

HERE = Path(__file__).parent
TRIVIAL = tuple(m.name for m in TRIVIAL_MAPS)
SMALL_AREA = 0.3  # fraction of the image: quadrants, small rectangles and blobs are below it
PAPER_MAP = "end_token.last.first_eos.be"  # the layers of the Bright Ending paper
DIFFERENCE_MAP = "score_difference.summed"
INVERTED = ".inverted"
ALIGNED, OFFSETS = (DIFFERENCE_MAP, PAPER_MAP), (-3, -2, -1, 0, 1)
MAX_DETECTORS, MAX_SMALL_MAPS = 25, 15  # rows of the two longest tables

INTRODUCTION = """# Which map finds a planted region, and which score detects it

`python docs/findings/localization/make.py` writes this page from the rows in `docs/findings/localization/`. `python scripts/reproduce.py localization` trains the runs again.

Setup: OpenMoji at 16 pixels; a U-Net with text conditioning and 1.3 million parameters, trained from scratch, with a frozen bidirectional text encoder (MiniLM). All values are from the last evaluation, on averaged weights, with 4 seeds per caption and guidance scale 1; the last of 12 sampling steps is at t = 82 (Stable Diffusion: t = 1). "The layers of the paper" are one head of one layer here (Stable Diffusion: 8 heads in 2 layers).

There are four runs of **two training seeds**: the two runs of a seed share plants, so that these are two independent repetitions. Values are means over runs; parentheses hold the mean of each seed, and no interval is computed from two seeds. "Higher in all runs" means that the difference has this sign in each of the runs; it is no test. An AUC of 1 carries an exact bound over distinct pairs."""

MAP_NOTES = """AUC: how well a map's pixels separate the inside of the planted region from the outside. IoU: overlap at a threshold chosen on other plants of the same run. An AUC above .5 on phantoms is caused by position or image content. An AUC above .5 on tints is caused by what the caption predicts. Trivial maps do not use the model and are marked; "inverted" is the same map with the opposite sign, "mask prior" the mean of the other local plants' masks of the run. Local plants that are not memorized yet stand apart: all of them are plants of the two runs with two numbers of copies. The permutation control (each map against other plants' masks) needs the maps and was not measured in these runs; later runs keep it as `permuted_auc.MAP`."""

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
    maps = with_controls(map_rows(samples), folder)
    areas = rows[rows["measure"] == "area"].set_index(["run", "plant_id"])["value"]
    copied = rows[rows["measure"] == "plant_memorized"].set_index(["run", "plant_id"])["value"] > 0.5
    split = split_by_memory(maps, copied)
    detectors = [name for name in dict.fromkeys(samples["measure"]) if is_detector(name)]
    detection = detector_values(prompt_scores(samples[samples["measure"].isin(detectors)], 4))
    parts = [
        INTRODUCTION,
        "## Conclusions",
        "\n".join(f"{number}. {line}" for number, line in enumerate(conclusions(maps, split, detection), 1)),
        "## Runs",
        runs_text(folder, rows),
        "## Memorized at the last evaluation",
        memorized_text(rows),
        "## Layers chosen on one seed and judged on the other",
        chosen_layers_text(maps),
        "## Maps over training, aligned on each plant's own emergence",
        aligned_text(folder),
        "## All maps",
        MAP_NOTES,
        maps_text(maps, split),
        f"## Small regions (below {SMALL_AREA:.0%} of the image) and large regions",
        sizes_text(split_by_size(maps, areas)),
        "## Detectors, separately for global and local plants",
        DETECTOR_NOTES,
        "### Global plants",
        detectors_text(detection, "global"),
        "### Local plants",
        detectors_text(detection, "local"),
        "### Memorized generations against all others",
        memorized_detectors_text(samples, detectors),
    ]
    return "\n\n".join(parts) + "\n"


@dataclass(frozen=True)
class RunValues:
    """A number of each run; units: the number of plants (or pairs) without common members over the seeds."""

    runs: Mapping[str, float]
    units: int = 0

    @property
    def mean(self) -> float:
        return float(np.mean(list(self.runs.values())))

    def text(self, spec: str = ".2f") -> str:
        """'0.84 (0.83, 0.86)': the mean over runs and the mean of each seed; at an exact 0 or 1 the exact interval."""
        if not spec.startswith("+") and self.units and abs(self.mean - round(self.mean)) < 1e-9:
            return exact_at_bounds(Estimate(self.mean, self.mean, self.mean), self.units).text(spec)
        seeds: dict[str, list[float]] = {}
        for run, value in self.runs.items():
            seeds.setdefault(training_seed(run), []).append(value)
        return f"{self.mean:{spec}} ({', '.join(f'{np.mean(seeds[seed]):{spec}}' for seed in sorted(seeds))})"

    def difference_text(self) -> str:
        """Mean, seeds, and in words whether all runs agree in the sign."""
        values = list(self.runs.values())
        if max(map(abs, values)) < 1e-9:
            return "equal in all runs"
        sign = "higher in all" if min(values) > 0 else "lower in all" if max(values) < 0 else "not the same sign in all"
        return f"{self.text('+.2f')}, {sign} {len(values)} runs"


def training_seed(run: str) -> str:
    """The name of a run ends with its training seed."""
    return str(run).rpartition("-")[2]


def values_of(maps: pd.DataFrame, name: str, kind: str, metric: str = "auc") -> RunValues:
    """Mean over the plants of a kind in each run."""
    part = maps[(maps["map"] == name) & (maps["kind"] == kind)].dropna(subset=metric)
    plants = part.groupby(["run", "plant_id"])[metric].mean().groupby("run")
    sizes = plants.size().groupby(training_seed).max()
    return RunValues({str(run): float(value) for run, value in plants.mean().items()}, int(sizes.sum()))


def minus(first: RunValues, second: RunValues) -> RunValues:
    """Difference in the runs that have both."""
    return RunValues({run: value - second.runs[run] for run, value in first.runs.items() if run in second.runs})


def write_priors(folder: Path = HERE) -> None:
    """mask_prior.csv: run, plant_id, and the AUC of the mean of the other local plants' masks against the plant's own."""
    tables = []
    for path in sorted(folder.glob("*/config.yaml")):
        plants = load_planted_set(path.parent).of_kind("local")
        masks = torch.from_numpy(np.stack([plant.mask for plant in plants]))
        auc = map_auc(mask_prior(masks), masks).numpy()
        tables.append(pd.DataFrame({"run": path.parent.name, "plant_id": [plant.plant_id for plant in plants], "auc": auc}))
    pd.concat(tables).to_csv(folder / "mask_prior.csv", index=False)


def with_controls(maps: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """The rows of maps with the inverted trivial maps (AUC: 1 minus the AUC) and the mask prior."""
    trivial = maps[maps["map"].isin(TRIVIAL) & (maps["map"] != "all_ones")]
    inverted = trivial.assign(map=trivial["map"] + INVERTED, auc=1 - trivial["auc"], iou=np.nan)
    prior = pd.read_csv(folder / "mask_prior.csv").assign(kind="local", seed=0, map="mask_prior", iou=np.nan)
    return pd.concat([maps, inverted, prior], ignore_index=True)


def split_by_memory(maps: pd.DataFrame, copied: pd.Series) -> pd.DataFrame:
    """Rows of local plants, with kind replaced by memorized or not memorized. copied: by (run, plant_id)."""
    local = maps[maps["kind"] == "local"].join(copied.rename("copied"), on=["run", "plant_id"])
    return local.assign(kind=np.where(local["copied"].astype(bool), "memorized", "not memorized"))


def chosen_layers(maps: pd.DataFrame, prefix: str) -> tuple[list[tuple[str, str, float]], RunValues]:
    """(seed that judges, map chosen on the other seed, its AUC there), and the AUC in each judged run, on local plants."""
    own = maps[(maps["kind"] == "local") & maps["map"].str.startswith(prefix)]
    seeds, rows, judged = sorted(own["run"].map(training_seed).unique()), [], {}
    for seed in seeds:
        here = own["run"].map(training_seed) == seed
        choice = str(own[~here].groupby(["map", "run"])["auc"].mean().groupby("map").mean().idxmax())
        values = values_of(own[here], choice, "local")
        rows.append((seed, choice, values.mean))
        judged.update(values.runs)
    return rows, RunValues(judged)


def chosen_layers_text(maps: pd.DataFrame) -> str:
    """The best end-token map of one seed on the plants of the other, beside the best trivial map."""
    rows, _ = chosen_layers(maps, "end_token.")
    trivial = best_trivial(maps)
    lines = [
        [
            seed,
            f"`{name}`",
            f"{auc:.2f}",
            f"{np.mean([v for run, v in values_of(maps, trivial, 'local').runs.items() if training_seed(run) == seed]):.2f}",
        ]
        for seed, name, auc in rows
    ]
    return text_table(["judged on seed", "end-token map chosen on the other seed", "its AUC", f"`{trivial}`"], lines)


def best_trivial(maps: pd.DataFrame) -> str:
    """The trivial map with the highest mean AUC on local plants; the mask prior knows the other masks and stands apart."""
    names = [name for name in maps["map"].unique() if is_trivial(name) and name != "mask_prior"]
    return max(names, key=lambda name: values_of(maps, name, "local").mean)


def is_trivial(name: str) -> bool:
    """Whether a map does not use the model."""
    return name.removesuffix(INVERTED) in (*TRIVIAL, "mask_prior")


def aligned_text(folder: Path) -> str:
    """Mean AUC of two maps on local plants before, at and after the evaluation by which each plant emerged."""
    values: dict[tuple[str, int], dict[str, list[float]]] = {}
    plants = 0
    for path in sorted(folder.glob("*/measurements.parquet")):
        rows, run = read_measurements(path), path.parent.name
        intervals, steps = emergence_intervals(rows), sorted(rows["step"].unique())
        local = set(rows[rows["kind"] == "local"]["plant_id"])
        emerged = {number: steps.index(i.upper) for number, i in intervals.items() if number in local and not i.censored}
        plants += len(emerged)
        for name in ALIGNED:
            means = rows[(rows["measure"] == f"auc.{name}") & rows["plant_id"].isin(emerged)].groupby(["plant_id", "step"])["value"].mean()
            for (number, step), value in means.items():
                offset = steps.index(step) - emerged[number]
                if offset in OFFSETS:
                    values.setdefault((name, offset), {}).setdefault(run, []).append(value)
    lines = []
    for name in ALIGNED:
        cells = [values.get((name, offset), {}) for offset in OFFSETS]
        lines.append(
            [f"`{name}`", *(RunValues({run: float(np.mean(v)) for run, v in cell.items()}).text() if cell else "-" for cell in cells)]
        )
    text = f"Evaluations before (negative) and after the one by which the plant had emerged; {plants} local plants that emerged, each in its run."
    return f"{text}\n\n{text_table(['map', *(f'{offset:+d}' if offset else 'at emergence' for offset in OFFSETS)], lines)}"


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


def detector_values(prompts: pd.DataFrame) -> dict[tuple[str, str, str], RunValues]:
    """AUC of each detector for a planted kind against a kind without a copy, by (detector, positive, negative)."""
    found: dict[tuple[str, str, str], dict[str, float]] = {}
    units: dict[tuple[str, str, str], dict[str, int]] = {}
    for (run, detector), part in prompts.groupby(["run", "measure"], sort=False):
        scores = part.groupby("kind")["value"].apply(np.asarray)
        for positive in ("global", "local"):
            for negative in NEGATIVES:
                if positive in scores and negative in scores:
                    key = str(detector), positive, negative
                    found.setdefault(key, {})[str(run)] = detection_metrics(scores[positive], scores[negative])["auc"]
                    seeds = units.setdefault(key, {})
                    smaller = min(len(scores[positive]), len(scores[negative]))
                    seeds[training_seed(str(run))] = max(seeds.get(training_seed(str(run)), 0), smaller)
    return {key: RunValues(runs, sum(units[key].values())) for key, runs in found.items()}


def conclusions(maps: pd.DataFrame, split: pd.DataFrame, detection: Mapping[tuple[str, str, str], RunValues]) -> Iterator[str]:
    """One or two sentences per conclusion."""
    trivial = best_trivial(maps)
    of_trivial = values_of(maps, trivial, "local")

    def auc(name: str, kind: str) -> str:
        return values_of(maps, name, kind).text()

    def against(name: str, kind: str) -> str:
        return f"{kind} {auc(name, kind)} (local minus {kind}: {minus(values_of(maps, name, 'local'), values_of(maps, name, kind)).difference_text()})"

    def memory(name: str) -> str:
        return f"`{name}` {values_of(split, name, 'memorized').text()} and {values_of(split, name, 'not memorized').text()}"

    paper = values_of(maps, PAPER_MAP, "local")
    yield (
        f"The end-token map in the layers of the Bright Ending paper (`{PAPER_MAP}`) has an AUC of {paper.text()} on local plants. Difference "
        f"from the best trivial map, `{trivial}` ({of_trivial.text()}): {minus(paper, of_trivial).difference_text()}."
    )
    _, judged = chosen_layers(maps, "end_token.")
    yield (
        f"An end-token map chosen on one seed has an AUC of {judged.text()} on the other. Difference from `{trivial}`: "
        f"{minus(judged, of_trivial).difference_text()}. No end-token map of this encoder is established as better than a trivial one."
    )
    dark = min(
        (name for name in maps["map"].unique() if name.startswith("end_token.")), key=lambda name: values_of(maps, name, "local").mean
    )
    inverted = max((name for name in maps["map"].unique() if name.endswith(INVERTED)), key=lambda name: values_of(maps, name, "local").mean)
    yield (
        f"The darkest of all end-token maps, selected after seeing the results, is `{dark}`: local {auc(dark, 'local')}, phantom "
        f"{auc(dark, 'phantom')}, decoy {auc(dark, 'decoy')}, tint {auc(dark, 'tint')}. It is dark where nothing is copied, too, and the best "
        f"inverted trivial map, `{inverted}`, has {auc(inverted, 'local')}: this is no sign of memorization."
    )
    yield (
        f"`{DIFFERENCE_MAP}`: local {auc(DIFFERENCE_MAP, 'local')}; {against(DIFFERENCE_MAP, 'tint')}; {against(DIFFERENCE_MAP, 'phantom')}. "
        "This map responds to what the caption predicts, also if nothing is copied. Tints are not matched to plants in the strength of the "
        "prediction, so that the order of the two says nothing."
    )
    yield (
        f"`patch_nearness` tells a copied region from a predicted one: local {auc('patch_nearness', 'local')}; "
        f"{against('patch_nearness', 'tint')}; {against('patch_nearness', 'phantom')}. It reads the training set, the template inside its own "
        f"mask included. `cross_seed_std` has {auc('cross_seed_std', 'local')} on local plants and {auc('cross_seed_std', 'tint')} on tints."
    )
    names = (DIFFERENCE_MAP, "cross_seed_std", "patch_nearness", PAPER_MAP)
    yield f"AUC on local plants that are memorized and on those that are not yet: {'; '.join(map(memory, names))}."
    yield (
        f"The curvature difference has {auc('curvature_difference', 'local')} as published (`-sum diag J(eps_c - eps_u)`) and "
        f"{auc('curvature_difference.of_score', 'local')} with the sign of the scores."
    )
    norm = [f"{negative} {detection['guidance_norm.all', 'local', negative].text()}" for negative in NEGATIVES]
    yield (
        f"AUC of `guidance_norm.all` for local plants against {', '.join(norm)}. It does not separate plants from tints: it detects that the "
        "caption predicts the image, not that the image is copied."
    )
    for name, label in (("ld.be.all", "LD in the layers of the paper"), ("ld_neutral.be.all", "Area-neutral LD")):
        pairs = ((n, minus(detection[name, "local", n], detection["guidance_norm.all", "local", n])) for n in NEGATIVES)
        yield (
            f"{label} minus `guidance_norm.all`, AUC for local plants: {'; '.join(f'{n} {d.difference_text()}' for n, d in pairs)}. Two "
            "detectors against four kinds are eight comparisons; the map that weights LD is dark in tints."
        )


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


def maps_text(maps: pd.DataFrame, split: pd.DataFrame) -> str:
    """One row per map, best AUC on memorized local plants first."""
    columns = [
        (split, "memorized", "auc"),
        (split, "not memorized", "auc"),
        *((maps, kind, "auc") for kind in ("phantom", "tint", "decoy")),
    ]
    names = sorted(maps[maps["kind"] == "local"]["map"].unique(), key=lambda name: (-values_of(split, name, "memorized").mean, name))
    counts = [part[part["kind"] == kind].drop_duplicates(["run", "plant_id"]).shape[0] for part, kind, _ in columns]
    rows = []
    for name in names:
        cells = [values_of(part, name, kind, metric) for part, kind, metric in (*columns, (maps, "local", "iou"))]
        rows.append([f"`{name}`" + " (trivial)" * is_trivial(name), *(cell.text() if cell.runs else "-" for cell in cells)])
    head = [f"AUC {kind} ({count})" for (_, kind, _), count in zip(columns, counts, strict=True)]
    return text_table(["map", *head, "IoU local"], rows)


def sizes_text(by_size: pd.DataFrame) -> str:
    """AUC on small and on large regions, best AUC on small regions first."""
    names = sorted(by_size["map"].unique(), key=lambda name: (-values_of(by_size, name, "small").mean, name))[:MAX_SMALL_MAPS]
    counts = by_size.drop_duplicates(["run", "plant_id"])["kind"].value_counts()
    rows = [[f"`{name}`", *(values_of(by_size, name, size).text() for size in ("small", "large"))] for name in names]
    return text_table(["map", *(f"AUC {size} ({counts[size]})" for size in ("small", "large"))], rows)


def detectors_text(detection: Mapping[tuple[str, str, str], RunValues], positive: str) -> str:
    """AUC against each kind without a copy; one row per detector, best mean AUC first."""
    names = dict.fromkeys(name for name, kind, _ in detection if kind == positive)
    order = sorted(names, key=lambda name: (-np.mean([detection[name, positive, n].mean for n in NEGATIVES]), name))
    rows = [[f"`{name}`", *(detection[name, positive, negative].text() for negative in NEGATIVES)] for name in order]
    return text_table([f"{positive} plants against", *NEGATIVES], rows)


def memorized_detectors_text(samples: pd.DataFrame, detectors: Sequence[str]) -> str:
    """Memorized generations against all others, with plants that are not memorized yet among them: AUC of the best detectors."""
    keys, found = ["run", "plant_id", "seed"], {}
    copied = samples[samples["measure"] == "memorized"].set_index(keys)["value"] > 0.5
    for name in detectors:
        scores = samples[samples["measure"] == name].set_index(keys)["value"]
        table = pd.DataFrame({"value": scores, "copied": copied.reindex(scores.index)}).dropna().reset_index()
        means = table.groupby(["run", "plant_id", "copied"])["value"].mean().reset_index()
        runs = {}
        for run, part in means.groupby("run"):
            positives, negatives = (part[part["copied"] == label]["value"].to_numpy() for label in (True, False))
            runs[str(run)] = detection_metrics(positives, negatives)["auc"]
        found[name] = RunValues(runs)
    order = sorted(found, key=lambda name: (-found[name].mean, name))[:MAX_DETECTORS]
    return text_table(["detector", "AUC"], [[f"`{name}`", found[name].text()] for name in order])


if __name__ == "__main__":
    if sys.argv[1:] == ["priors"]:
        write_priors()
    target = HERE.with_suffix(".md")
    target.write_text(page(), encoding="utf-8")
    print(target)
