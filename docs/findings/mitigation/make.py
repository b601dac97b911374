"""Write docs/findings/mitigation.md and its figures from the rows committed beside this file.

  python docs/findings/mitigation/make.py

`python scripts/reproduce.py mitigation` makes the comparisons and the runs and copies their rows here.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from afterglow.analysis.mitigation_effect import BASELINE
from afterglow.functional.roc import detection_metrics
from afterglow.functional.statistics import Estimate, exact_at_bounds, t_interval
from afterglow.kinds import KINDS
from afterglow.reports.figures import PLAIN_STYLE, new_figure
from afterglow.reports.paired_runs import PairedRuns, paired_runs_figure, read_paired_runs
from afterglow.reports.tables import text_table

HERE = Path(__file__).parent
COPIED_KINDS = ("global", "local")
UNIT = ["run", "kind", "plant_id"]
OPTIMIZED = {"wen.magnitude": "guidance norm", "wen.ld": "LD"}
COSTS = {"cost.evaluations": "evaluations", "cost.gflops": "FLOPs of a plant"}
CORRELATIONS = (  # kind, measure, title
    ("global", "correlation.inside", "correlation, global"),
    ("local", "correlation.inside", "inside, local"),
    ("local", "correlation.outside", "outside, local"),
)
FEW = 2  # of the copies of a seed
HALF = 0.5  # of the copies of a seed
SAME = 0.02  # two mitigations whose values never differ by more are one schedule
SECONDS = "cost.seconds"  # the only value that differs between two calls of the same sampler

INTRODUCTION = """# What removes memorization, and what does it cost?

`python docs/findings/mitigation/make.py` writes this page from the rows in `docs/findings/mitigation/`. `python scripts/reproduce.py mitigation` makes the comparisons and the runs again.

Setup: four models (two recipes with two training seeds each: `runs/demo`, an earlier version of the demo, and `runs/shapes-0` with seed 0, `runs/seed1` and `runs/shapes-1` with seed 1). The same captions and initial noises are sampled without and with each mitigation at its default strength (`afterglow mitigate --list`), at guidance scale 1 with the sampler of the evaluations (DDIM, 12 steps, the last at t = 82) and 4 generations per caption. A plant counts as memorized if at least half of its generations do. Thresholds are the 99th percentile of the controls of each model. The U-Nets have 1 and 2 attention heads. All local plants of a model share one pool of 256 backgrounds.

The four models have **two training seeds**, and the models of one seed share plants: the 32 global and 32 local plants are 16 and 16 distinct images. The unit is the seed. Counts are sums over models; parentheses hold the count of each seed, of 16 plants (8 images in each of two models). Other values are means over models with the mean of each seed in parentheses. No interval and no test is computed from two seeds. A copy is a generation with a calibrated distance below 1; the rows of these runs hold no d1/d2, which the [plan](plan.md) asks for beside it. Caption agreement and SSCD were not measured, because no weights were available."""

INFERENCE = """Remaining copies: of the plants that are memorized without a mitigation. The criterion is a distance in colors. A faded copy no longer meets it; the correlation with the planted image, inside and outside the mask, shows whether the copy is still recognizable. Held-out captions: change of the distance to the nearest training image. Costs are relative to the baseline: network evaluations per image, averaged over all captions, of which some mitigations skip a part; and FLOPs of one image of the first plant, gradients included. Both are counted; the median over models is shown. For seconds see `benchmarks/` and the guide on [mitigation](../guides/mitigation.md)."""

LOCAL_LOSS = """Chen et al. weight the loss of Wen et al. with the Bright Ending map, both for the decision whether to optimize and for the gradient. First table: the loss at the first step, plants memorized by the baseline against controls. Text below: effect of the gradient on the memorized local plants."""

CAUSAL = """MemAttn scales the attention to the begin token, and LD weights its loss with the end-token map: both rest on an encoder in which the begin token holds no caption and the end token holds all of it. These models have such an encoder, a causal one that is trained along (experiment E3 of the [plan](plan.md); `python scripts/reproduce.py mitigation_causal`). The attention has 1 and 2 heads. Parentheses hold the count of each of three seeds. Brackets hold the 95 % t interval over the three seeds, which is not cut at 0 or 1; at an AUC of 1 they hold the exact bound over distinct plants."""

TRAINING = """`configs/findings/mitigations.yaml`, each run beside a baseline of the same seed with the same plants. Order and noises are the same too, except after de-duplication, which shortens the epochs. Each cell holds seed 0 and seed 1; each run has 4 global and 4 local plants. An inner evaluation counts a plant as memorized with 1 of 2 generations, the last one with 2 of 4: the delays rest on the inner evaluations. Delay: factor by which the step of emergence changes (censored fit, paired by plant); - if no plant emerged, or if the mitigation ended the training. Held-out loss: at the last evaluation, relative to the baseline. `stop_memorized` ends training at the first evaluation with a memorized plant, `stop_log_ratio` at the first with a plant whose denoising log ratio exceeds its threshold; their losses are those of unfinished trainings."""

NOT_MEASURED = """- A sampler of 12 steps has no timestep 500: `stp.finer` equals `stp` here. Few generations reach the minimum of the guidance in the first half of the steps: `dtp` hardly differs from `stp`.
- Stable Diffusion with its published strengths: no weights and no GPU were available.
- Guidance scale 7.5. The models trained here are evaluated at guidance scale 1. Opposite guidance and a late start of the guidance still act there; `dtp.scale_1` changes nothing by definition, and PRSS is weaker.
- Paraphrases for PRSS: random words replace them.
- Multiple captions and de-duplication by SSCD during training: the [guide](../guides/mitigation.md#retrigger) has two runs of each.
- Small effects of training mitigations: each run has 4 global and 4 local plants."""


@dataclass(frozen=True)
class RemainingCopies:
    """Plants of one kind that remain memorized with a mitigation, of those that the baseline memorizes; seeds: (count, total) of each."""

    mitigation: str
    strength: float
    kind: str
    seeds: Mapping[str, tuple[int, int]]

    @property
    def key(self) -> tuple[str, float]:
        """Mitigation and strength."""
        return self.mitigation, self.strength

    @property
    def count(self) -> int:
        """Over all models."""
        return sum(count for count, _ in self.seeds.values())

    @property
    def total(self) -> int:
        """Over all models."""
        return sum(total for _, total in self.seeds.values())

    @property
    def counts_text(self) -> str:
        """'2, 0': the count of each seed."""
        return ", ".join(str(self.seeds[seed][0]) for seed in sorted(self.seeds))

    @property
    def text(self) -> str:
        """'2 of 32 (2, 0)': all models, and each seed if there are several."""
        return f"{self.count} of {self.total}" + f" ({self.counts_text})" * (len(self.seeds) > 1)

    @property
    def few(self) -> bool:
        """Whether at most FEW remain in each seed."""
        return all(count <= FEW for count, _ in self.seeds.values())

    @property
    def below_half(self) -> bool:
        """Whether less than half remain in each seed."""
        return all(count < HALF * total for count, total in self.seeds.values())

    @property
    def fraction(self) -> float:
        """Between 0 and 1."""
        return self.count / self.total

    @property
    def range(self) -> tuple[float, float]:
        """The fractions of the lowest and the highest seed."""
        fractions = [count / total for count, total in self.seeds.values()]
        return min(fractions), max(fractions)

    @property
    def label(self) -> str:
        """Mitigation and strength as text."""
        return self.mitigation if self.mitigation == BASELINE else f"{self.mitigation} {self.strength:g}"


@dataclass(frozen=True)
class RunMeans:
    """A number of each model; units: distinct plants of all seeds, for the exact bound of an AUC."""

    runs: Mapping[str, float]
    units: int = 0

    @property
    def value(self) -> float:
        """Mean over models."""
        return float(np.mean(list(self.runs.values())))

    @property
    def seeds(self) -> list[float]:
        """Mean of each seed."""
        seeds: dict[str, list[float]] = {}
        for run, value in self.runs.items():
            seeds.setdefault(training_seed(run), []).append(value)
        return [float(np.mean(seeds[seed])) for seed in sorted(seeds)]

    def text(self, spec: str = ".2f") -> str:
        """'0.84 (0.83, 0.86)' of two seeds; of more the t interval over seeds; at an AUC of 1 the exact bound; '-' without models."""
        if not self.runs:
            return "-"
        exact = exact_at_bounds(Estimate(self.value, self.value, self.value), self.units) if self.units else None
        if exact is not None and exact.low < exact.high:
            return exact.text(spec)
        if len(self.seeds) == 1:
            return f"{self.value:{spec}}"
        listed = f"{self.value:{spec}} ({', '.join(f'{value:{spec}}' for value in self.seeds)})"
        return listed if len(self.seeds) == 2 else t_interval(self.seeds).text(spec)


def page(folder: Path = HERE) -> tuple[str, dict[str, Figure]]:
    """Markdown of the finding, every number computed from the committed rows, and its figures by name."""
    rows, strengths, causal = (read_comparisons(folder, prefix) for prefix in ("mitigation", "strengths", "causal"))
    paired = read_paired_runs(training_runs(folder))
    remaining = remaining_copies(rows)
    models = ", ".join(f"`runs/{name}`" for name in sorted(set(strengths["run"])))
    parts = [
        INTRODUCTION,
        "## Conclusions",
        "\n".join(f"{number}. {line}" for number, line in enumerate(conclusions(rows, causal, paired, shared_plants(folder)), start=1)),
        "## Mitigations at inference",
        INFERENCE,
        mitigations_text(rows),
        "Mean over the seeds; a line goes from the lowest to the highest seed and is no interval.",
        "![Remaining copies of global and local plants by mitigation](mitigation/copies_left.png)",
        "## Strengths",
        f"Some mitigations over a grid of strengths, on {models}: one seed, two generations per caption, of which one makes a plant memorized.",
        mitigations_text(strengths),
        "One curve per mitigation over its strengths, the square is the baseline.",
        "![Remaining copies over the distance of held-out captions to the training images, by strength](mitigation/strengths.png)",
        "## Does the local loss help?",
        LOCAL_LOSS,
        trigger_text(rows),
        local_loss_text(rows),
        "## With a causal text encoder",
        CAUSAL,
        mitigations_text(causal),
        trigger_text(causal),
        local_loss_text(causal),
        "## Mitigations at training time",
        TRAINING,
        training_text(paired),
        "Means over the seeds (their number in parentheses).",
        "![Memorized fraction of global and local plants, and held-out loss over the baseline's, over training steps](mitigation/training.png)",
        "## Not measured",
        NOT_MEASURED,
    ]
    figures = {"copies_left": remaining_figure(remaining), "strengths": tradeoff_figure(strengths), "training": paired_runs_figure(paired)}
    return "\n\n".join(parts) + "\n", figures


def read_comparisons(folder: Path, prefix: str) -> pd.DataFrame:
    """Rows of all comparisons PREFIX-RUN with a column `run`."""
    files = sorted(folder.glob(f"{prefix}-*/plants.parquet"))
    return pd.concat([pd.read_parquet(file).assign(run=file.parent.name.removeprefix(f"{prefix}-")) for file in files], ignore_index=True)


def training_runs(folder: Path) -> dict[tuple[str, int], Path]:
    """Folders mitigations-NAME-SEED by name and seed."""
    runs = {}
    for path in sorted(folder.glob("mitigations-*/measurements.parquet")):
        name, _, seed = path.parent.name.removeprefix("mitigations-").rpartition("-")
        runs[name, int(seed)] = path.parent
    return runs


def shared_plants(folder: Path) -> list[tuple[int, int]]:
    """Of the baseline's plants of each seed: how many are images that the paired runs of the finding emergence plant, and all."""
    listed = {
        path: {plant["text"] for plant in map(json.loads, path.read_text(encoding="utf-8").splitlines()) if plant["kind"] in COPIED_KINDS}
        for path in [
            *folder.glob("mitigations-none-*/plants/metadata.jsonl"),
            *folder.glob("../emergence/paired_arms-*/plants/metadata.jsonl"),
        ]
    }
    chosen = set().union(*(texts for path, texts in listed.items() if "emergence" in path.parts))
    own = [texts for path, texts in sorted(listed.items()) if "emergence" not in path.parts]
    return [(len(texts & chosen), len(texts)) for texts in own]


def remaining_copies(rows: pd.DataFrame) -> list[RemainingCopies]:
    """One entry per mitigation, strength and kind. rows: run, mitigation, strength, kind, plant_id, measure, value."""
    memorized = rows[(rows["measure"] == "memorized") & rows["kind"].isin(COPIED_KINDS)].merge(_baseline_copies(rows), on=UNIT)
    memorized = memorized.assign(copied=memorized["value"] > 0.5, seed=memorized["run"].map(training_seed))
    entries = []
    for (mitigation, strength, kind), part in memorized.groupby(["mitigation", "strength", "kind"], sort=False):
        counts = {str(seed): (int(own.sum()), len(own)) for seed, own in part.groupby("seed")["copied"]}
        entries.append(RemainingCopies(mitigation, strength, kind, counts))
    return entries


def one_schedule(rows: pd.DataFrame, first: str, second: str) -> bool:
    """Whether two mitigations have the same values but for SAME; costs in seconds do not count."""
    return largest_difference(rows, first, second) <= SAME


def largest_difference(rows: pd.DataFrame, first: str, second: str) -> float:
    """The largest difference of two mitigations in any value but seconds."""
    own = rows[rows["measure"] != SECONDS]
    values = [own[own["mitigation"] == name].set_index([*UNIT, "measure"])["value"] for name in (first, second)]
    return float((values[0] - values[1]).abs().max())


def _baseline_copies(rows: pd.DataFrame) -> pd.DataFrame:
    """Run, kind and plant_id of the plants that the baseline memorizes."""
    copied = (rows["mitigation"] == BASELINE) & (rows["measure"] == "memorized") & rows["kind"].isin(COPIED_KINDS) & (rows["value"] > 0.5)
    return rows[copied][UNIT]


def heldout_changes(rows: pd.DataFrame) -> pd.DataFrame:
    """Change of the distance of held-out captions to the training set against the baseline: mitigation, strength, run, value."""
    part = rows[(rows["kind"] == "heldout") & (rows["measure"] == "distance.training")]
    baseline = part[part["mitigation"] == BASELINE][[*UNIT, "value"]].rename(columns={"value": "baseline"})
    paired = part[part["mitigation"] != BASELINE].merge(baseline, on=UNIT)
    return paired.assign(value=paired["value"] - paired["baseline"])


def values_of_copies(rows: pd.DataFrame, kind: str, measure: str) -> pd.DataFrame:
    """A measure of the plants that the baseline memorizes: mitigation, strength, run, plant_id, value."""
    return rows[(rows["kind"] == kind) & (rows["measure"] == measure)].merge(_baseline_copies(rows), on=UNIT)


def mean_by_runs(table: pd.DataFrame) -> RunMeans:
    """Mean of the column `value` in each run."""
    return RunMeans({str(run): float(value) for run, value in table.groupby("run")["value"].mean().items()})


def removed_only(rows: pd.DataFrame, kind: str, measure: str) -> pd.DataFrame:
    """A measure of the plants that the baseline memorizes and the mitigation does not: mitigation, strength, run, plant_id, value."""
    left = values_of_copies(rows, kind, "memorized")
    gone = left[left["value"] <= 0.5][["mitigation", "strength", *UNIT]]
    return values_of_copies(rows, kind, measure).merge(gone, on=["mitigation", "strength", *UNIT])


def training_seed(run: str) -> str:
    """Training seed of a compared model: the digit at the end of its name, 0 for `demo`; other models have a seed of their own."""
    return "0" if run == "demo" else run[-1]


def cost_ratios(rows: pd.DataFrame) -> pd.Series:
    """Cost over the baseline's of the same run, median over runs, by (mitigation, strength, measure)."""
    keys = ["run", "mitigation", "strength", "measure"]
    costs = rows[rows["measure"].isin(tuple(COSTS))].groupby(keys, sort=False)["value"].mean().reset_index()
    baseline = costs[costs["mitigation"] == BASELINE][["run", "measure", "value"]].rename(columns={"value": "baseline"})
    paired = costs.merge(baseline, on=["run", "measure"])
    return paired.assign(ratio=paired["value"] / paired["baseline"]).groupby(keys[1:])["ratio"].median()


def _at(table: pd.DataFrame, key: tuple[str, float]) -> pd.DataFrame:
    return table[(table["mitigation"] == key[0]) & (table["strength"] == key[1])]


def mitigations_text(rows: pd.DataFrame) -> str:
    """One row per mitigation and strength: remaining copies, correlations, change of held-out images, costs."""
    remaining, costs = remaining_copies(rows), cost_ratios(rows)
    estimates = [(values_of_copies(rows, kind, measure), ".2f") for kind, measure, _ in CORRELATIONS] + [(heldout_changes(rows), "+.3f")]
    lines = []
    for key in dict.fromkeys(entry.key for entry in remaining):
        by_kind = {entry.kind: entry for entry in remaining if entry.key == key}
        cells = [by_kind[kind].text if kind in by_kind else "-" for kind in COPIED_KINDS]
        cells += [mean_by_runs(_at(table, key)).text(spec) for table, spec in estimates]
        cells += [f"{costs[*key, name]:.2f}x" if (*key, name) in costs.index else "-" for name in COSTS]
        lines.append([next(iter(by_kind.values())).label, *cells])
    titles = [*(f"{kind} remaining" for kind in COPIED_KINDS), *(title for *_, title in CORRELATIONS), "held-out to nearest"]
    return text_table(["mitigation", *titles, *COSTS.values()], lines)


def trigger_auc(rows: pd.DataFrame, mitigation: str, kind: str) -> RunMeans:
    """AUC of the loss at the first step, memorized plants against controls, in each run."""
    losses = rows[(rows["mitigation"] == mitigation) & (rows["measure"] == "mitigation.loss_before")]
    plants, controls = values_of_copies(rows, kind, "mitigation.loss_before"), losses[losses["kind"] == "control"]
    plants = plants[plants["mitigation"] == mitigation]
    pairs = {run: (part["value"].to_numpy(), controls[controls["run"] == run]["value"].to_numpy()) for run, part in plants.groupby("run")}
    units: dict[str, int] = {}
    for run, pair in pairs.items():
        units[training_seed(str(run))] = max(units.get(training_seed(str(run)), 0), min(map(len, pair)))
    return RunMeans({str(run): detection_metrics(*pair)["auc"] for run, pair in pairs.items()}, sum(units.values()))


def trigger_text(rows: pd.DataFrame) -> str:
    """How well each loss separates memorized plants from controls at the first step."""
    lines = [[kind, *(trigger_auc(rows, name, kind).text() for name in OPTIMIZED)] for kind in COPIED_KINDS]
    return text_table(["memorized plants against controls", *(f"AUC of {loss}" for loss in OPTIMIZED.values())], lines)


def loss_difference(rows: pd.DataFrame, measure: str) -> RunMeans:
    """Mean of a measure with the LD loss minus that with the guidance norm, over the same memorized local plants."""
    table = values_of_copies(rows, "local", measure)
    norm, ld = (table[table["mitigation"] == name].set_index(UNIT)["value"] for name in OPTIMIZED)
    return mean_by_runs((ld - norm).dropna().reset_index())


def local_loss_text(rows: pd.DataFrame) -> str:
    """The difference between the two losses in each measure."""
    measures = ("memorized", *(measure for kind, measure, _ in CORRELATIONS if kind == "local"))
    differences = ", ".join(f"{measure} {loss_difference(rows, measure).text('+.3f')}" for measure in measures)
    return f"`wen.ld` minus `wen.magnitude` on memorized local plants: {differences}."


def conclusions(rows: pd.DataFrame, causal: pd.DataFrame, paired: PairedRuns, shared: Sequence[tuple[int, int]]) -> Iterator[str]:
    """One sentence or more per conclusion."""
    remaining = remaining_copies(rows)
    baseline = [entry for entry in remaining if entry.mitigation == BASELINE]
    mitigated = [entry for entry in remaining if entry.mitigation != BASELINE]
    listed = " and ".join(f"{entry.total} {entry.kind} (seeds: {entry.counts_text})" for entry in baseline)
    yield f"Without a mitigation, {listed} plants are memorized."
    for kind in COPIED_KINDS:
        yield few_text(rows, [entry for entry in mitigated if entry.kind == kind and entry.few], baseline)
        others = sorted((entry for entry in mitigated if entry.kind == kind and not entry.few), key=lambda entry: entry.fraction)
        counts = ", ".join(f"`{entry.label}` ({entry.counts_text})" for entry in others)
        yield f"{kind.capitalize()} copies that remain in seed 0 and in seed 1 with the other mitigations: {counts}."
    strong = list(dict.fromkeys(entry.key for entry in mitigated if entry.below_half))
    means = [
        (key, [mean_by_runs(_at(removed_only(rows, kind, "correlation.inside"), key)).text() for kind in COPIED_KINDS]) for key in strong
    ]
    cells = ", ".join(f"`{name} {strength:g}` {' and '.join(texts)}" for (name, strength), texts in means)
    yield (
        "Copies that a mitigation removes can remain recognizable. Mean correlation with the planted image over the removed copies only, global "
        f"and local, for mitigations that leave less than half of the copies of a kind in each seed: {cells}. Nobody looked at the generations, "
        "and no limit of the correlation separates recognizable ones from others."
    )
    changes = {key: mean_by_runs(part) for key, part in heldout_changes(rows).groupby(["mitigation", "strength"], sort=False)}
    (name, strength), largest = max(changes.items(), key=lambda item: abs(item[1].value))
    yield (
        f"The largest change of the distance of held-out captions to the training set is {largest.text('+.3f')}, with `{name} {strength:g}`. "
        "No test is made with two seeds."
    )
    costs, both = cost_ratios(rows), [key for key in strong if all(e.below_half for e in mitigated if e.key == key)]
    cheap = ", ".join(
        f"`{n} {s:g}` {costs[n, s, 'cost.gflops']:.2f}x" for n, s in sorted(both, key=lambda k: (costs[*k, "cost.gflops"], k))
    )
    yield f"FLOPs of the mitigations that leave less than half of the copies of both kinds in each seed, relative to plain sampling: {cheap}."
    norm, ld = (trigger_auc(rows, name, "local").text() for name in OPTIMIZED)
    change, other = loss_difference(rows, "memorized"), loss_difference(causal, "memorized")
    by_model = ", ".join(
        f"{value:+.2f} (`{run}`)" for run, value in sorted(change.runs.items(), key=lambda item: (training_seed(item[0]), item[0]))
    )
    yield (
        f"As a trigger on local plants, LD has an AUC of {ld} and the guidance norm of {norm}. No effect of optimizing LD instead of the guidance "
        f"norm is shown: the memorized fraction of local plants changes by {by_model}; with the causal encoder by "
        f"{', '.join(f'{value:+.3f}' for value in other.seeds)} in the three seeds, mean {other.text('+.2f')}."
    )
    yield encoder_text(rows, causal)
    for mitigation in paired.mitigations[1:]:
        line = f"Training with `{mitigation}`: {', '.join(trained_text(paired, mitigation, kind) for kind in COPIED_KINDS)}; held-out loss "
        ratios = " and ".join(f"{ratio:.2f}x" for ratio in paired.seed_loss_ratios(mitigation))
        overlap = " and ".join(f"{count} of {total}" for count, total in shared)
        chosen = f" Of its plants {overlap} (seeds 0 and 1) are plants of the runs on which the limit of the ratio was chosen."
        yield f"{line}{ratios} that of the baseline.{chosen * (mitigation == 'stop_log_ratio')}"


def few_text(rows: pd.DataFrame, entries: Sequence[RemainingCopies], baseline: Sequence[RemainingCopies]) -> str:
    """The mitigations that leave few copies of one kind, with the correlation that stays; equal schedules are named together."""
    kind, groups = entries[0].kind, list[list[RemainingCopies]]()
    for entry in entries:
        group = next((group for group in groups if one_schedule(rows, group[0].mitigation, entry.mitigation)), None)
        groups.append([entry]) if group is None else group.append(entry)
    total = next(min(total for _, total in entry.seeds.values()) for entry in baseline if entry.kind == kind)
    most = max(total for entry in baseline if entry.kind == kind for _, total in entry.seeds.values())
    of = f"{total}" if total == most else f"{total} or {most}"
    most_left = max(count for entry in entries for count, _ in entry.seeds.values())
    named = [
        f"{', '.join(f'`{entry.label}`' for entry in group)}{' as one schedule' if len(group) > 1 else ''} (seeds: {group[0].counts_text})"
        for group in groups
    ]
    means = [mean_by_runs(_at(values_of_copies(rows, kind, "correlation.inside"), entry.key)).value for entry in entries]
    text = (
        f"At most {most_left} of {of} {kind} copies remain in each of two seeds with {', '.join(named[:-1])} and {named[-1]}; the mean correlation "
        f"of the generations with the plant stays at {min(means):.2f} to {max(means):.2f}."
    )
    same = next((group for group in groups if len(group) > 2), None)
    if same is None or kind != COPIED_KINDS[0]:
        return text
    first, second, third = (entry.mitigation for entry in same[:3])
    equal, close = largest_difference(rows, first, second), largest_difference(rows, first, third)
    assert equal == 0
    return f"{text} `{first}` and `{second}` are identical in all values; `{third}` differs from them by at most {close:.3f}."


def encoder_text(rows: pd.DataFrame, causal: pd.DataFrame) -> str:
    """What the mitigations that read or scale the attention leave with either encoder."""
    counts = {(entry.mitigation, entry.kind): entry for entry in remaining_copies(causal)}
    scaled = [name for name in dict.fromkeys(causal["mitigation"]) if name.startswith("memattn")]
    here = [entry for entry in remaining_copies(rows) if entry.mitigation in scaled]
    assert all(entry.count == entry.total for entry in here)

    def left(names: Sequence[str], kind: str) -> str:
        values = sorted({counts[name, kind].count for name in names})
        return f"{' to '.join(map(str, dict.fromkeys((values[0], values[-1]))))} of {counts[names[0], kind].total}"

    both = " and ".join(f"{left(scaled, kind)} {kind}" for kind in COPIED_KINDS)
    ld = " and ".join(f"{left(['wen.ld'], kind)} {kind}" for kind in COPIED_KINDS)
    norm = " and ".join(str(counts["wen.magnitude", kind].count) for kind in COPIED_KINDS)
    return (
        "`memattn` scales the attention to the begin token, because CLIP's begin token holds no caption; MiniLM's holds a part of it. With MiniLM "
        f"all three variants leave every copy. With the causal encoder they leave {both} copies. So the encoder alone does not explain it. "
        "Guidance scale 7.5 was not tested. The end-token map that weights the loss of `wen.ld` is not shown to be better than a trivial map "
        f"[here](endings.md). With the causal encoder `wen.ld` leaves {ld} copies (`wen.magnitude` {norm})."
    )


def trained_text(paired: PairedRuns, mitigation: str, kind: str) -> str:
    """Memorized plants of a kind, in all and in each seed, beside the baseline's."""
    count, total = paired.last_counts(mitigation, kind)
    own, base = (seed_counts_text(paired, name, kind, mitigation) for name in (mitigation, BASELINE))
    return f"{count} of {total} {kind} plants memorized (seeds: {own}; baseline: {base})"


def seed_counts_text(paired: PairedRuns, mitigation: str, kind: str, seeds_of: str = "") -> str:
    """'4, 3': memorized plants of each seed."""
    return ", ".join(str(count) for count, _ in paired.seed_counts(mitigation, kind, seeds_of))


def training_text(paired: PairedRuns) -> str:
    """One row per training mitigation, each cell with the value of each seed."""
    lines = []
    for mitigation in paired.mitigations:
        cells = [seed_counts_text(paired, mitigation, kind) for kind in COPIED_KINDS]
        if mitigation == BASELINE:
            cells += ["-"] * (len(COPIED_KINDS) + 1)
        else:
            delays = [paired.seed_delays(mitigation, kind) for kind in COPIED_KINDS]
            cells += [", ".join("-" if delay is None else f"{np.exp(delay):.2f}x" for delay in of_kind) for of_kind in delays]
            cells.append(", ".join(f"{ratio:.2f}x" for ratio in paired.seed_loss_ratios(mitigation)))
        lines.append([mitigation, ", ".join(map(str, paired.last_steps(mitigation))), *cells])
    head = ["mitigation", "last step", *(f"{kind} memorized, of 4" for kind in COPIED_KINDS), *(f"{kind}, delay" for kind in COPIED_KINDS)]
    return text_table([*head, "held-out loss"], lines)


def remaining_figure(remaining: Sequence[RemainingCopies]) -> Figure:
    """Remaining copies with the lowest and the highest seed, one row per mitigation, global and local beside each other."""
    labels = list(dict.fromkeys(entry.label for entry in remaining))[::-1]
    with matplotlib.rc_context(PLAIN_STYLE):
        figure = new_figure(6.4, 0.26 * len(labels) + 1.1)
        axes = figure.add_subplot()
        for shift, kind in zip((0.14, -0.14), COPIED_KINDS, strict=True):
            entries = [entry for entry in remaining if entry.kind == kind]
            low, high = np.array([entry.range for entry in entries]).T
            y, style = [labels.index(entry.label) + shift for entry in entries], KINDS[kind]
            axes.hlines(y, low, high, color=style.color, linewidth=1.2)
            axes.plot([entry.fraction for entry in entries], y, style.marker, color=style.color, markersize=5, label=kind)
        axes.set(xlim=(-0.03, 1.03), yticks=range(len(labels)), yticklabels=labels, xlabel="remaining copies, fraction of the baseline's")
        axes.grid(axis="x", alpha=0.2)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    return figure


def heldout_distance(rows: pd.DataFrame) -> pd.Series:
    """Mean distance of held-out captions to the nearest training image over the baseline's, by (mitigation, strength)."""
    part = rows[(rows["kind"] == "heldout") & (rows["measure"] == "distance.training")]
    means = part.groupby(["mitigation", "strength"], sort=False)["value"].mean()
    return means / means[BASELINE].iloc[0]


def tradeoff_figure(rows: pd.DataFrame) -> Figure:
    """Remaining copies against the change of held-out images, one curve per mitigation over its strengths, one panel per kind."""
    costs, remaining = heldout_distance(rows), remaining_copies(rows)
    with matplotlib.rc_context(PLAIN_STYLE):
        figure = new_figure(9, 4.4)
        panels = figure.subplots(1, len(COPIED_KINDS), sharey=True)
        for axes, kind in zip(panels, COPIED_KINDS, strict=True):
            _tradeoff_curves(axes, [entry for entry in remaining if entry.kind == kind], costs)
            axes.set(
                title=kind, xlabel="held-out captions: distance to the nearest training image, over the baseline's", ylim=(-0.03, 1.03)
            )
            axes.xaxis.label.set_fontsize(8)
            axes.grid(alpha=0.2)
        panels[0].set_ylabel("remaining copies")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=7, frameon=False)
    return figure


def _tradeoff_curves(axes: Axes, remaining: Sequence[RemainingCopies], costs: pd.Series) -> None:
    for place, mitigation in enumerate(dict.fromkeys(entry.mitigation for entry in remaining)):
        entries = sorted((entry for entry in remaining if entry.mitigation == mitigation), key=lambda entry: entry.strength)
        own = {"color": colormaps["tab20"](place % 20), "marker": "o"}
        style = {"color": "black", "marker": "s", "zorder": 5} if mitigation == BASELINE else own
        axes.plot(
            [costs[entry.key] for entry in entries], [e.fraction for e in entries], label=mitigation, markersize=4, linewidth=1, **style
        )


if __name__ == "__main__":
    text, drawn = page()
    for figure_name, figure in drawn.items():
        figure.savefig(HERE / f"{figure_name}.png", dpi=110, facecolor="white")
    HERE.with_suffix(".md").write_text(text, encoding="utf-8")
    print(HERE.with_suffix(".md"))
