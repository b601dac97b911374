"""Write docs/findings/localization.md from the rows committed beside this file.

  python docs/findings/localization/make.py

`python scripts/reproduce.py localization` trains the runs and copies their rows here. `python docs/findings/localization/make.py priors` deals
the sets of the runs again and writes mask_prior.csv: the AUC of the mean of the other local plants' masks, for each plant. `clusters` in
place of `priors` writes clusters.csv: the number of near-duplicates of each control in the training set.
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
from afterglow.analysis.summary import ALL_SEEDS, read_measurements, with_families
from afterglow.functional.distances import CLOSE_RATIO
from afterglow.functional.localization import map_auc, mask_prior
from afterglow.functional.roc import detection_metrics
from afterglow.functional.statistics import Estimate, exact_at_bounds, exact_interval
from afterglow.kinds import KINDS, NEGATIVES
from afterglow.measures.registry import TRIVIAL_MAPS, is_detector
from afterglow.planting.runs import load_planted_set
from afterglow.planting.targets import cluster_sizes
from afterglow.reports.tables import count_text, text_table

HERE = Path(__file__).parent
NOT_MEMORIZED = "not memorized"
TRIVIAL = tuple(m.name for m in TRIVIAL_MAPS)
SMALL_AREA = 0.3  # fraction of the image: quadrants, small rectangles and blobs are below it
PAPER_MAP = "end_token.last.first_eos.be"  # the layers of the Bright Ending paper
DIFFERENCE_MAP = "score_difference.summed"
INVERTED = ".inverted"
ALIGNED, OFFSETS = (DIFFERENCE_MAP, PAPER_MAP), (-3, -2, -1, 0, 1)
NUM_CONTROLS = 64  # that the last evaluation samples
CALIPER = 0.1  # of a tint's guidance norm; set before the pairs were computed
MAX_DETECTORS, MAX_SMALL_MAPS = 25, 15  # rows of the two longest tables

INTRODUCTION = """# Which map finds a planted region, and which score detects it

`python docs/findings/localization/make.py` writes this page from the rows in `docs/findings/localization/`. `python scripts/reproduce.py localization` trains the runs again.

Setup: OpenMoji at 16 pixels; a U-Net with text conditioning and 1.3 million parameters, trained from scratch, with a frozen bidirectional text encoder (MiniLM). All values are from the last evaluation, on averaged weights, with 4 seeds per caption and guidance scale 1; the last of 12 sampling steps is at t = 82 (Stable Diffusion: t = 1). "The layers of the paper" are one head of one layer here (Stable Diffusion: 8 heads in 2 layers).

There are four runs of **two training seeds**: the two runs of a seed share plants, so that these are two independent repetitions. Values are means over runs; parentheses hold the mean of each seed, and no interval is computed from two seeds. "Higher in both seeds" means that the difference has this sign in each seed; it is no test. "Local" without a further word means the local plants that are memorized at the last evaluation; those that are not stand beside them and are never pooled with them. The last evaluation counts a plant as memorized with 2 of 4 generations, an inner one with 1 of 2: the alignment on emergence rests on the inner evaluations. All local plants of a run share one pool of 256 backgrounds. An AUC of 1 carries an exact bound over distinct pairs."""

MAP_NOTES = """AUC: how well a map's pixels separate the inside of the planted region from the outside. IoU: overlap at a threshold chosen on other plants of the same run; in these rows on the half whose plants have the other two shapes, or the other number of copies (later runs draw the halves at random). An AUC above .5 on phantoms is caused by position or image content. An AUC on tints above that of the trivial maps ({trivial}) shows what the caption predicts. Trivial maps do not use the model and are marked; "inverted" is the same map with the opposite sign, "mask prior" the mean of the other local plants' masks of the run. Local plants that are not memorized yet stand apart: all of them are plants of the two runs with two numbers of copies. The permutation control (each map against other plants' masks) needs the maps and was not measured in these runs; later runs keep it as `permuted_auc.MAP`."""

FAMILY_NOTE = """control: controls that are alone in their near-duplicate cluster. control_family: controls whose cluster has k images in the training set; the family is shown k times per epoch, and a copy of it is no false positive. As negatives of a detector below, controls are of one kind."""

DETECTOR_NOTES = """AUC of the mean score over 4 generations of a caption, for captions of memorized plants against each kind without a copy. A score that is also high on decoys responds to exposure. A score that is also high on tints responds to conditioning."""


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
    areas = rows[rows["measure"] == "area"].set_index(["run", "plant_id"])["value"]
    maps, detection, prompts = read_maps(folder)
    detectors = [name for name in dict.fromkeys(samples["measure"]) if is_detector(name)]
    parts = [
        INTRODUCTION,
        "## Conclusions",
        "\n".join(f"{number}. {line}" for number, line in enumerate(conclusions(maps, detection, with_copies(prompts, folder)), 1)),
        "## Runs",
        runs_text(folder, rows),
        "## Memorized at the last evaluation",
        memorized_text(rows, folder),
        FAMILY_NOTE,
        "## Layers chosen on one seed and evaluated on the other",
        chosen_layers_text(maps),
        "## Maps over training, aligned on each plant's own emergence",
        aligned_text(folder),
        "## All maps",
        MAP_NOTES.format(trivial=tint_of_trivial(maps)),
        maps_text(maps),
        "## Tints matched in the strength of the prediction",
        matched_text(matched_pairs(maps, prompts)),
        f"## Memorized small regions (below {SMALL_AREA:.0%} of the image) and large regions",
        sizes_text(split_by_size(maps, areas)),
        "## Detectors, separately for global and local plants",
        DETECTOR_NOTES,
        "### Global plants",
        detectors_text(detection, "global"),
        "### Local plants",
        detectors_text(detection, "local"),
        "### Local plants that are not memorized",
        detectors_text(detection, NOT_MEMORIZED),
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
        return f"{self.mean:{spec}} ({', '.join(f'{value:{spec}}' for value in self.seeds)})"

    @property
    def seeds(self) -> list[float]:
        """The mean of each seed."""
        table = pd.Series(dict(self.runs))
        return [float(value) for value in table.groupby(training_seed).mean()]

    def difference_text(self) -> str:
        """Mean, seeds, and in words whether the seeds agree in the sign."""
        if max(map(abs, self.runs.values())) < 1e-9:
            return "equal in all runs"
        values = self.seeds
        sign = "higher in both" if min(values) > 0 else "lower in both" if max(values) < 0 else "not the same sign in both"
        return f"{self.text('+.2f')}, {sign} seeds"


def read_maps(folder: Path) -> tuple[pd.DataFrame, dict[tuple[str, str, str], RunValues], pd.DataFrame]:
    """Of the last evaluations: the rows of maps, the values of detectors, and the scores of prompts; local plants not memorized are a kind."""
    rows = read_last_evaluations(folder)
    samples = rows[rows["seed"] != ALL_SEEDS]
    copied = rows[rows["measure"] == "plant_memorized"].set_index(["run", "plant_id"])["value"] > 0.5
    maps = mark_not_memorized(with_controls(map_rows(samples), folder), copied)
    detectors = [name for name in dict.fromkeys(samples["measure"]) if is_detector(name)]
    prompts = mark_not_memorized(prompt_scores(samples[samples["measure"].isin(detectors)], 4), copied)
    return maps, detector_values(prompts), prompts


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


def mark_not_memorized(table: pd.DataFrame, copied: pd.Series) -> pd.DataFrame:
    """Rows in which the kind of local plants that are not memorized is `not memorized`. copied: by (run, plant_id)."""
    memorized = pd.MultiIndex.from_frame(table[["run", "plant_id"]]).map(copied.to_dict()).to_numpy() == True  # noqa: E712
    return table.assign(kind=np.where((table["kind"] == "local") & ~memorized, NOT_MEMORIZED, table["kind"]))


def tint_of_trivial(maps: pd.DataFrame) -> str:
    """'`luminance.inverted` 0.69 (0.70, 0.68)': the trivial map with the highest AUC on tints."""
    names = [name for name in maps["map"].unique() if is_trivial(name) and values_of(maps, name, "tint").runs]
    best = max(names, key=lambda name: values_of(maps, name, "tint").mean)
    return f"`{best}` has the highest, {values_of(maps, best, 'tint').text()}"


def matched_pairs(maps: pd.DataFrame, prompts: pd.DataFrame) -> pd.DataFrame:
    """Pairs of a tint and a memorized local plant of one run with similar guidance norms: run, tint, plant, difference of the AUC."""
    norms = prompts[prompts["measure"] == "guidance_norm.all"]
    aucs = maps[maps["map"] == DIFFERENCE_MAP].groupby(["run", "plant_id"])["auc"].mean()
    tints, plants = (norms[norms["kind"] == kind][["run", "plant_id", "value"]] for kind in ("tint", "local"))
    pairs = tints.merge(plants, on="run", suffixes=("_tint", "_plant"))
    pairs = pairs[(pairs["value_plant"] - pairs["value_tint"]).abs() <= CALIPER * pairs["value_tint"]]
    means = [aucs.reindex(pd.MultiIndex.from_frame(pairs[["run", f"plant_id_{side}"]])).to_numpy() for side in ("plant", "tint")]
    return pairs.assign(difference=means[0] - means[1])


def pairs_difference(pairs: pd.DataFrame) -> RunValues:
    """Mean difference of the AUC, plant minus tint, in each run."""
    return RunValues({str(run): float(value) for run, value in pairs.groupby("run")["difference"].mean().items()})


def matched_text(pairs: pd.DataFrame) -> str:
    """Pairs and the difference of the AUC in each run."""
    lines = [
        [
            f"`{run}`",
            str(len(part)),
            *(str(part[f"plant_id_{side}"].nunique()) for side in ("tint", "plant")),
            f"{part['difference'].mean():+.2f}",
        ]
        for run, part in pairs.groupby("run")
    ]
    note = (
        f"Each tint is paired with every memorized local plant of its run whose `guidance_norm.all` (mean of 4 generations) differs from the "
        f"tint's by at most {CALIPER:.0%}. The last column is the AUC of `{DIFFERENCE_MAP}` of the plant minus that of the tint, mean over pairs. "
        "Pairs share tints and plants; they are no independent units."
    )
    return f"{note}\n\n{text_table(['run', 'pairs', 'tints', 'plants', 'plant minus tint'], lines)}"


def chosen_layers(maps: pd.DataFrame, prefix: str) -> tuple[list[tuple[str, str, float]], RunValues]:
    """(seed on which it is evaluated, map chosen on the other seed, its AUC there), and the AUC in each evaluated run, on local plants."""
    own = maps[(maps["kind"] == "local") & maps["map"].str.startswith(prefix)]
    seeds, rows, evaluated = sorted(own["run"].map(training_seed).unique()), [], {}
    for seed in seeds:
        here = own["run"].map(training_seed) == seed
        choice = str(own[~here].groupby(["map", "run"])["auc"].mean().groupby("map").mean().idxmax())
        values = values_of(own[here], choice, "local")
        rows.append((seed, choice, values.mean))
        evaluated.update(values.runs)
    return rows, RunValues(evaluated)


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
    return text_table(["evaluated on seed", "end-token map chosen on the other seed", "its AUC", f"`{trivial}`"], lines)


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
        for positive in ("global", "local", NOT_MEMORIZED):
            for negative in (*NEGATIVES, NOT_MEMORIZED):
                if positive != negative and positive in scores and negative in scores:
                    key = str(detector), positive, negative
                    found.setdefault(key, {})[str(run)] = detection_metrics(scores[positive], scores[negative])["auc"]
                    seeds = units.setdefault(key, {})
                    smaller = min(len(scores[positive]), len(scores[negative]))
                    seeds[training_seed(str(run))] = max(seeds.get(training_seed(str(run)), 0), smaller)
    return {key: RunValues(runs, sum(units[key].values())) for key, runs in found.items()}


def conclusions(maps: pd.DataFrame, detection: Mapping[tuple[str, str, str], RunValues], prompts: pd.DataFrame) -> Iterator[str]:
    """One or more sentences per conclusion; `local` are memorized local plants."""
    trivial = best_trivial(maps)
    of_trivial = values_of(maps, trivial, "local")

    def auc(name: str, kind: str) -> str:
        return values_of(maps, name, kind).text()

    def all_kinds(name: str) -> str:
        return (
            f"memorized local {auc(name, 'local')}; {'; '.join(f'{kind} {auc(name, kind)}' for kind in (NOT_MEMORIZED, 'tint', 'phantom'))}"
        )

    def against(name: str, kind: str) -> str:
        return f"local minus {kind} {minus(values_of(maps, name, 'local'), values_of(maps, name, kind)).difference_text()}"

    paper = values_of(maps, PAPER_MAP, "local")
    yield (
        f"The end-token map in the layers of the Bright Ending paper (`{PAPER_MAP}`) has an AUC of {paper.text()} on memorized local plants and of "
        f"{auc(PAPER_MAP, NOT_MEMORIZED)} on those that are not memorized. On memorized ones the best trivial map, `{trivial}`, has "
        f"{of_trivial.text()}; difference {minus(paper, of_trivial).difference_text()}."
    )
    _, evaluated = chosen_layers(maps, "end_token.")
    yield (
        f"An end-token map chosen on one seed has an AUC of {evaluated.text()} on the memorized local plants of the other. Difference from `{trivial}`: "
        f"{minus(evaluated, of_trivial).difference_text()}. No end-token map of this encoder is established as better than a trivial one."
    )
    dark = min(
        (name for name in maps["map"].unique() if name.startswith("end_token.")), key=lambda name: values_of(maps, name, "local").mean
    )
    inverted = max((name for name in maps["map"].unique() if name.endswith(INVERTED)), key=lambda name: values_of(maps, name, "local").mean)
    copied, others, phantoms = (values_of(maps, dark, kind).runs for kind in ("local", NOT_MEMORIZED, "phantom"))
    darker = sum(copied[run] < phantoms[run] for run in copied)
    pairs = ", ".join(f"{copied[run]:.2f} and {others[run]:.2f} (`{run}`)" for run in others)
    brighter = "brighter" if all(copied[run] > others[run] for run in others) else "not brighter in every run"
    yield (
        f"The darkest of all end-token maps on memorized local plants, selected after seeing the results, is `{dark}`: {all_kinds(dark)}. Memorized "
        f"plants are darker than phantoms in {darker} of {len(copied)} runs, but {brighter} than plants that are not memorized: {pairs}. It is "
        f"dark where nothing is copied, too. The best inverted trivial map, `{inverted}`, has {auc(inverted, 'local')}."
    )
    matched = matched_pairs(maps, prompts)
    yield (
        f"`{DIFFERENCE_MAP}`: {all_kinds(DIFFERENCE_MAP)}. This map responds to what the caption predicts, also if nothing is copied: "
        f"{against(DIFFERENCE_MAP, 'tint')}; {against(DIFFERENCE_MAP, 'phantom')}. In {len(matched)} pairs of a memorized local plant and a tint "
        f"matched in the guidance norm, the AUC of the plant minus that of the tint is {pairs_difference(matched).difference_text()}."
    )
    yield (
        f"`patch_nearness` tells a copied region from a predicted one: {all_kinds('patch_nearness')}; {against('patch_nearness', 'tint')}; "
        f"{against('patch_nearness', 'phantom')}. It reads the training set, the template inside its own mask included. `cross_seed_std` has "
        f"{auc('cross_seed_std', 'local')} on memorized local plants and {auc('cross_seed_std', 'tint')} on tints."
    )
    names = (DIFFERENCE_MAP, "cross_seed_std", "patch_nearness", PAPER_MAP)
    memory = "; ".join(f"`{name}` {auc(name, 'local')} and {auc(name, NOT_MEMORIZED)}" for name in names)
    yield f"AUC on local plants that are memorized and on those that are not yet: {memory}."
    yield (
        f"On memorized local plants the curvature difference has {auc('curvature_difference', 'local')} as published "
        f"(`-sum diag J(eps_c - eps_u)`) and {auc('curvature_difference.of_score', 'local')} with the sign of the scores."
    )
    yield f"{norm_text(detection)} {confounded_text(prompts)}"
    tints = ", ".join(f"{value:.2f} on those of seed {seed}" for seed, value in enumerate(values_of(maps, PAPER_MAP, "tint").seeds))
    for name, label in (("ld.be.all", "LD in the layers of the paper"), ("ld_neutral.be.all", "Area-neutral LD")):
        differences = ((n, minus(detection[name, "local", n], detection["guidance_norm.all", "local", n])) for n in NEGATIVES)
        yield (
            f"{label} minus `guidance_norm.all`, AUC for memorized local plants: {'; '.join(f'{n} {d.difference_text()}' for n, d in differences)}. "
            f"Two detectors against four kinds are eight comparisons. The map that weights LD has an AUC on tints of {tints} (by run: "
            f"{', '.join(f'{value:.2f}' for value in values_of(maps, PAPER_MAP, 'tint').runs.values())})."
        )


def answer(folder: Path = HERE) -> str:
    """One sentence for the front page: the best map on memorized regions that needs no training images, and what tells a copy from a tint."""
    maps, detection, _ = read_maps(folder)

    def auc(name: str, kind: str) -> str:
        return f"{values_of(maps, name, kind).mean:.2f}"

    num_seeds = len(detection["guidance_norm.all", "local", "phantom"].seeds)
    norm = [f"{detection['guidance_norm.all', 'local', kind].mean:.2f}" for kind in ("phantom", "tint")]
    return (
        f"`{DIFFERENCE_MAP}` finds memorized regions of OpenMoji with an AUC of {auc(DIFFERENCE_MAP, 'local')} but has "
        f"{auc(DIFFERENCE_MAP, 'tint')} on tints, of which nothing is copied, while `patch_nearness`, which compares with the training images, the copied one included, has "
        f"{auc('patch_nearness', 'local')} and {auc('patch_nearness', 'tint')}; the guidance norm separates memorized local plants from phantoms with "
        f"an AUC of {norm[0]} and from tints with {norm[1]} (means of {num_seeds} training seeds)."
    )


def with_copies(prompts: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Scores of prompts with the number of copies of each local plant, which alternates over the local plants of a run; NaN elsewhere."""
    tables = []
    for run, part in prompts.groupby("run"):
        config = yaml.safe_load((folder / str(run) / "config.yaml").read_text(encoding="utf-8"))
        levels = config["data"]["init_args"]["planting"]["copies"]
        numbers = sorted(part[part["kind"].isin(["local", NOT_MEMORIZED])]["plant_id"].unique())
        copies = {number: levels[place % len(levels)] for place, number in enumerate(numbers)}
        tables.append(part.assign(copies=part["plant_id"].map(copies)))
    return pd.concat(tables, ignore_index=True)


def confounded_text(prompts: pd.DataFrame) -> str:
    """That the local plants which are not memorized have the fewest copies, and the AUC of the norm among plants with that number.

    prompts: with copies; AssertionError if plants with several numbers of copies are not memorized.
    """
    local = prompts[(prompts["measure"] == "guidance_norm.all") & prompts["kind"].isin(["local", NOT_MEMORIZED])]
    missing = local[local["kind"] == NOT_MEMORIZED]
    (level,) = missing["copies"].unique()
    cells = []
    for _, part in local[local["copies"] == level].groupby("run"):
        own, others = (part[part["kind"] == kind]["value"].to_numpy() for kind in ("local", NOT_MEMORIZED))
        if len(own) and len(others):
            cells.append(f"{detection_metrics(own, others)['auc']:.2f} ({len(own)} against {len(others)})")
    return (
        f"All {len(missing)} local plants that are not memorized have {level:.0f} copies; among the plants with {level:.0f} copies the AUC of "
        f"memorized against not memorized ones is {' and '.join(cells)}."
    )


def norm_text(detection: Mapping[tuple[str, str, str], RunValues]) -> str:
    """What the guidance norm separates, over all steps and in the first step."""
    name = "guidance_norm.all"
    listed = ", ".join(f"{negative} {detection[name, 'local', negative].text()}" for negative in NEGATIVES)
    others = ", ".join(f"{negative} {detection[name, NOT_MEMORIZED, negative].text()}" for negative in NEGATIVES)
    whole, between = detection[name, "global", "tint"].runs.values(), detection[name, "local", NOT_MEMORIZED].runs.values()
    return (
        f"AUC of `{name}` for memorized local plants against {listed}. Over all steps it hardly separates local plants from tints "
        f"({detection[name, 'local', 'tint'].text()}); in the first step it does ({detection['guidance_norm.1', 'local', 'tint'].text()}), and "
        f"global plants against tints have {min(whole):.2f} to {max(whole):.2f}. Memorized against not memorized local plants have "
        f"{' and '.join(f'{value:.2f}' for value in between)} in the runs with both. Local plants that are not memorized, against {others}."
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


def write_clusters(folder: Path = HERE) -> None:
    """clusters.csv: run, plant_id (of the control), and the number of images of its near-duplicate cluster in the training set."""
    tables = []
    for path in sorted(folder.glob("*/config.yaml")):
        sizes = cluster_sizes(load_planted_set(path.parent))
        tables.append(pd.DataFrame({"run": path.parent.name, "plant_id": sizes.keys(), "size": sizes.values()}).head(NUM_CONTROLS))
    pd.concat(tables).to_csv(folder / "clusters.csv", index=False)


def memorized_text(rows: pd.DataFrame, folder: Path) -> str:
    """Memorized plants of each kind: in all runs, as distinct images of each seed, and by the second rule."""
    sizes = pd.read_csv(folder / "clusters.csv").set_index(["run", "plant_id"])["size"]
    rows = pd.concat([with_families(part, sizes.loc[str(run)].to_dict()) for run, part in rows.groupby("run")])
    ratios = rows[(rows["measure"] == "nn_ratio") & (rows["seed"] != ALL_SEEDS)]
    second = (ratios["value"] < CLOSE_RATIO).groupby([ratios["kind"], ratios["run"], ratios["plant_id"]]).mean() >= 0.5
    lines = []
    for kind, part in rows[rows["measure"] == "plant_memorized"].groupby("kind"):
        copied = part.assign(seed=part["run"].map(training_seed)).groupby(["seed", "caption"])["value"].max()
        images = [f"{int(own.sum())} of {len(own)}" for _, own in copied.groupby("seed")]
        low, high = exact_interval(int(part["value"].sum()), len(part))
        first = count_text(int(part["value"].sum()), len(part))
        if kind != "control" and part["value"].nunique() == 1:
            first = f"{int(part['value'].sum())} of {len(part)} ({low:.0%} to {high:.0%})"
        by_run = second[kind].groupby("run").sum() if kind in second.index.get_level_values(0) else pd.Series(dtype=int)
        ratio = f"{int(by_run.sum())} of {len(second[kind])} ({', '.join(str(int(v)) for v in by_run)})" if len(by_run) else "-"
        lines.append((list(KINDS).index(str(kind)), [str(kind), first, *images, ratio]))
    head = ["kind", "memorized (95 % interval, Wilson; exact at 0 and 1)", "distinct images, seed 0", "seed 1", "d1/d2 below 1/3 (by run)"]
    note = (
        "The two runs of a seed share plants, so that the first count takes some images twice and its interval is too narrow. Distinct images are "
        "counted once in a seed, as memorized if one of its runs memorizes them. The last column counts plants of which at least half of the "
        "generations have d1/d2 below 1/3."
    )
    return f"{note}\n\n{text_table(head, [line for _, line in sorted(lines)])}"


def maps_text(maps: pd.DataFrame) -> str:
    """One row per map, best AUC on memorized local plants first."""
    kinds = {"local": "memorized", NOT_MEMORIZED: NOT_MEMORIZED, "phantom": "phantom", "tint": "tint", "decoy": "decoy"}
    names = sorted(maps[maps["kind"] == "local"]["map"].unique(), key=lambda name: (-values_of(maps, name, "local").mean, name))
    counts = maps.drop_duplicates(["run", "plant_id", "kind"])["kind"].value_counts()
    rows = []
    for name in names:
        cells = [values_of(maps, name, kind, metric) for kind, metric in (*((kind, "auc") for kind in kinds), ("local", "iou"))]
        rows.append([f"`{name}`" + " (trivial)" * is_trivial(name), *(cell.text() if cell.runs else "-" for cell in cells)])
    return text_table(["map", *(f"AUC {label} ({counts[kind]})" for kind, label in kinds.items()), "IoU memorized"], rows)


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
    if sys.argv[1:] == ["clusters"]:
        write_clusters()
    target = HERE.with_suffix(".md")
    target.write_text(page(), encoding="utf-8")
    print(target)
