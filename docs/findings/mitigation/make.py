"""Write docs/findings/mitigation.md and its figures from the rows committed beside this file.

  python docs/findings/mitigation/make.py

`python scripts/reproduce.py mitigation` makes the comparisons and the runs and copies their rows here.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import fisher_exact

from afterglow.analysis.mitigation_effect import BASELINE
from afterglow.functional.roc import detection_metrics
from afterglow.functional.statistics import Estimate, wilson_interval
from afterglow.kinds import KINDS
from afterglow.reports.figures import PLAIN_STYLE, new_figure
from afterglow.reports.paired_runs import PairedRuns, paired_runs_figure, paired_runs_text, read_paired_runs
from afterglow.reports.tables import count_text, interval_text, text_table

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
HALF = 0.5  # of the copies: a mitigation is strong if the interval of what remains lies below, weak if it lies above
RECOGNIZABLE = 0.5  # correlation inside the mask

INTRODUCTION = """# What removes memorization, and what does it cost?

`python docs/findings/mitigation/make.py` writes this page from the rows in `docs/findings/mitigation/`. `python scripts/reproduce.py mitigation` makes the comparisons and the runs again.

Setup: four models (two recipes with two training seeds each: `runs/demo`, `runs/seed1`, `runs/shapes-0`, `runs/shapes-1`). The same captions and initial noises are sampled without and with each mitigation at its default strength (`afterglow mitigate --list`), at guidance scale 1 with the sampler of the evaluations (DDIM, 12 steps) and 4 generations per caption. A plant counts as memorized if at least half of its generations do. Thresholds are the 99th percentile of the controls of each model. The four models have **two training seeds**, and the models of one seed share plants: the 32 global and 32 local plants are 16 and 16 distinct images. Brackets of counts hold 95 % Wilson intervals, which take the plants of all models as independent. Other values are means over models with the lowest and the highest seed in parentheses; no interval is computed from two seeds. Caption agreement and SSCD were not measured, because no weights were available."""

INFERENCE = """Remaining copies: of the plants that are memorized without a mitigation. The criterion is a distance in colors. A faded copy no longer meets it; the correlation with the planted image, inside and outside the mask, shows whether the copy is still recognizable. Held-out captions: change of the distance to the nearest training image. Costs are relative to the baseline: network evaluations per image, averaged over all captions, of which some mitigations skip a part; and FLOPs of one image of the first plant, gradients included. Both are counted; the median over models is shown. For seconds see `benchmarks/` and the guide on [mitigation](../guides/mitigation.md)."""

LOCAL_LOSS = """Chen et al. weight the loss of Wen et al. with the Bright Ending map, both for the decision whether to optimize and for the gradient. First table: the loss at the first step, plants memorized by the baseline against controls. Text below: effect of the gradient on the memorized local plants."""

CAUSAL = """MemAttn scales the attention to the begin token, and LD weights its loss with the end-token map: both rest on an encoder in which the begin token holds no caption and the end token holds all of it. These models have such an encoder, a causal one that is trained along (experiment E3 of the [plan](plan.md); `python scripts/reproduce.py mitigation_causal`). Parentheses hold the lowest and the highest seed."""

TRAINING = """`configs/findings/mitigations.yaml`, each run beside a baseline of the same seed with the same plants. Order and noises are the same too, except after de-duplication, which shortens the epochs. Delay: factor by which the step of emergence changes (censored fit, paired by plant); - if no plant emerged, or if the mitigation ended the training. Held-out loss: at the last evaluation, relative to the baseline; the intervals of both are t intervals over two seeds. p: Fisher's exact test of the memorized plants against the baseline's. `stop_memorized` ends training at the first evaluation with a memorized plant, `stop_log_ratio` at the first with a plant whose denoising log ratio exceeds its threshold; their losses are those of unfinished trainings."""

NOT_MEASURED = """- A sampler of 12 steps has no timestep 500: `stp.finer` equals `stp` here. Few generations reach the minimum of the guidance in the first half of the steps: `dtp` hardly differs from `stp`.
- Stable Diffusion with its published strengths: no weights and no GPU were available.
- Guidance scale 7.5. The models trained here are evaluated at guidance scale 1. Opposite guidance and a late start of the guidance still act there; `dtp.scale_1` changes nothing by definition, and PRSS is weaker.
- Paraphrases for PRSS: random words replace them.
- Multiple captions and de-duplication by SSCD during training: the [guide](../guides/mitigation.md#retrigger) has two runs of each.
- Small effects of training mitigations: each run has 4 global and 4 local plants."""


@dataclass(frozen=True)
class RemainingCopies:
    """Plants of one kind that remain memorized with a mitigation, of those that the baseline memorizes."""

    mitigation: str
    strength: float
    kind: str
    count: int
    total: int

    @property
    def key(self) -> tuple[str, float]:
        """Mitigation and strength."""
        return self.mitigation, self.strength

    @property
    def fraction(self) -> float:
        """Between 0 and 1."""
        return self.count / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson, 95 %."""
        return wilson_interval(self.count, self.total)

    @property
    def label(self) -> str:
        """Mitigation and strength as text."""
        return self.mitigation if self.mitigation == BASELINE else f"{self.mitigation} {self.strength:g}"


def page(folder: Path = HERE) -> tuple[str, dict[str, Figure]]:
    """Markdown of the finding, every number computed from the committed rows, and its figures by name."""
    rows, strengths = (read_comparisons(folder, prefix) for prefix in ("mitigation", "strengths"))
    paired = read_paired_runs(training_runs(folder))
    remaining = remaining_copies(rows)
    models = ", ".join(f"`runs/{name}`" for name in sorted(set(strengths["run"])))
    parts = [
        INTRODUCTION,
        "## Conclusions",
        "\n".join(f"{number}. {line}" for number, line in enumerate(conclusions(rows, remaining, paired), start=1)),
        "## Mitigations at inference",
        INFERENCE,
        mitigations_text(rows),
        "![Remaining copies](mitigation/copies_left.png)",
        "## Strengths",
        f"Some mitigations over a grid of strengths, on {models}.",
        mitigations_text(strengths),
        "![Strengths](mitigation/strengths.png)",
        "## Does the local loss help?",
        LOCAL_LOSS,
        trigger_text(rows),
        local_loss_text(rows),
        *causal_section(folder),
        "## Mitigations at training time",
        TRAINING,
        paired_runs_text(paired),
        "![Training](mitigation/training.png)",
        "## Not measured",
        NOT_MEASURED,
    ]
    figures = {"copies_left": remaining_figure(remaining), "strengths": tradeoff_figure(strengths), "training": paired_runs_figure(paired)}
    return "\n\n".join(parts) + "\n", figures


def read_comparisons(folder: Path, prefix: str) -> pd.DataFrame:
    """Rows of all comparisons PREFIX-RUN with a column `run`."""
    files = sorted(folder.glob(f"{prefix}-*/plants.parquet"))
    return pd.concat([pd.read_parquet(file).assign(run=file.parent.name.removeprefix(f"{prefix}-")) for file in files], ignore_index=True)


def causal_section(folder: Path) -> list[str]:
    """The comparisons on models with a causal text encoder; nothing before the first one is committed."""
    if not any(folder.glob("causal-*/plants.parquet")):
        return []
    rows = read_comparisons(folder, "causal")
    return ["## With a causal text encoder", CAUSAL, mitigations_text(rows), trigger_text(rows), local_loss_text(rows)]


def training_runs(folder: Path) -> dict[tuple[str, int], Path]:
    """Folders mitigations-NAME-SEED by name and seed."""
    runs = {}
    for path in sorted(folder.glob("mitigations-*/measurements.parquet")):
        name, _, seed = path.parent.name.removeprefix("mitigations-").rpartition("-")
        runs[name, int(seed)] = path.parent
    return runs


def remaining_copies(rows: pd.DataFrame) -> list[RemainingCopies]:
    """One entry per mitigation, strength and kind. rows: run, mitigation, strength, kind, plant_id, measure, value."""
    memorized = rows[(rows["measure"] == "memorized") & rows["kind"].isin(COPIED_KINDS)].merge(_baseline_copies(rows), on=UNIT)
    return [
        RemainingCopies(mitigation, strength, kind, int((part["value"] > 0.5).sum()), len(part))
        for (mitigation, strength, kind), part in memorized.groupby(["mitigation", "strength", "kind"], sort=False)
    ]


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


def mean_by_runs(table: pd.DataFrame) -> Estimate:
    """Mean over runs of the mean of the column `value`; low and high are the lowest and the highest mean of a seed, no interval."""
    return mean_of_seeds({str(run): float(value) for run, value in table.groupby("run")["value"].mean().items()})


def mean_of_seeds(runs: Mapping[str, float]) -> Estimate:
    """Mean of the runs, with the lowest and the highest mean of a seed."""
    seeds: dict[str, list[float]] = {}
    for run, value in runs.items():
        seeds.setdefault(training_seed(run), []).append(value)
    means = [float(np.mean(values)) for values in seeds.values()]
    return Estimate(float(np.mean(list(runs.values()))), min(means), max(means))


def seeds_text(mean: Estimate, spec: str = ".2f") -> str:
    """'0.84 (0.83, 0.86)': the mean, the lowest and the highest seed."""
    return f"{mean.value:{spec}} ({mean.low:{spec}}, {mean.high:{spec}})"


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
        cells = [count_text(by_kind[kind].count, by_kind[kind].total) if kind in by_kind else "-" for kind in COPIED_KINDS]
        cells += ["-" if _at(table, key).empty else seeds_text(mean_by_runs(_at(table, key)), spec) for table, spec in estimates]
        cells += [f"{costs[*key, name]:.2f}x" if (*key, name) in costs.index else "-" for name in COSTS]
        lines.append([next(iter(by_kind.values())).label, *cells])
    titles = [*(f"{kind} remaining" for kind in COPIED_KINDS), *(title for *_, title in CORRELATIONS), "held-out to nearest"]
    return text_table(["mitigation", *titles, *COSTS.values()], lines)


def trigger_auc(rows: pd.DataFrame, mitigation: str, kind: str) -> Estimate:
    """AUC of the loss at the first step, memorized plants against controls: mean over runs, each with thresholds of its own."""
    losses = rows[(rows["mitigation"] == mitigation) & (rows["measure"] == "mitigation.loss_before")]
    plants, controls = values_of_copies(rows, kind, "mitigation.loss_before"), losses[losses["kind"] == "control"]
    plants = plants[plants["mitigation"] == mitigation]
    pairs = {run: (part["value"].to_numpy(), controls[controls["run"] == run]["value"].to_numpy()) for run, part in plants.groupby("run")}
    return mean_of_seeds({str(run): detection_metrics(*pair)["auc"] for run, pair in pairs.items()})


def trigger_text(rows: pd.DataFrame) -> str:
    """How well each loss separates memorized plants from controls at the first step."""
    lines = [[kind, *(seeds_text(trigger_auc(rows, name, kind)) for name in OPTIMIZED)] for kind in COPIED_KINDS]
    return text_table(["memorized plants against controls", *(f"AUC of {loss}" for loss in OPTIMIZED.values())], lines)


def loss_difference(rows: pd.DataFrame, measure: str) -> Estimate:
    """Mean of a measure with the LD loss minus that with the guidance norm, over the same memorized local plants."""
    table = values_of_copies(rows, "local", measure)
    norm, ld = (table[table["mitigation"] == name].set_index(UNIT)["value"] for name in OPTIMIZED)
    return mean_by_runs((ld - norm).dropna().reset_index())


def local_loss_text(rows: pd.DataFrame) -> str:
    """The difference between the two losses in each measure."""
    measures = ("memorized", *(measure for kind, measure, _ in CORRELATIONS if kind == "local"))
    differences = ", ".join(f"{measure} {seeds_text(loss_difference(rows, measure), '+.3f')}" for measure in measures)
    return f"`wen.ld` minus `wen.magnitude` on memorized local plants: {differences}."


def conclusions(rows: pd.DataFrame, remaining: Sequence[RemainingCopies], paired: PairedRuns) -> Iterator[str]:
    """One sentence or two per conclusion. The intervals decide which mitigation is listed where."""
    baseline = [f"{entry.total} {entry.kind}" for entry in remaining if entry.mitigation == BASELINE]
    mitigated = [entry for entry in remaining if entry.mitigation != BASELINE]
    strong = [entry for entry in mitigated if entry.interval[1] < HALF]
    yield f"Without a mitigation, {' and '.join(baseline)} plants are memorized."
    for kind in COPIED_KINDS:
        yield f"Fewer than half of the {kind} copies remain, with an interval below 50 %, with {_names(strong, kind)}."
        yield f"More than half of the {kind} copies remain, with an interval above 50 %, with {_names([e for e in mitigated if e.interval[0] > HALF], kind)}."
    faded = []
    for kind in COPIED_KINDS:
        table = values_of_copies(rows, kind, "correlation.inside")
        means = {entry: mean_by_runs(_at(table, entry.key)) for entry in strong if entry.kind == kind}
        faded += [f"`{entry.label}` ({kind}, {seeds_text(mean)})" for entry, mean in means.items() if mean.low > RECOGNIZABLE]
    yield (
        f"Copies that a mitigation removes can remain recognizable. The mean correlation with the planted image is above "
        f"{RECOGNIZABLE:g} in both seeds with {', '.join(faded) or 'none'}."
    )
    moved = []
    for (mitigation, strength), part in heldout_changes(rows).groupby(["mitigation", "strength"], sort=False):
        mean = mean_by_runs(part)
        moved += [f"`{mitigation} {strength:g}` ({seeds_text(mean, '+.3f')})"] if mean.low > 0 or mean.high < 0 else []
    yield f"The distance of held-out captions to the training set changes in the same direction in both seeds with {', '.join(moved) or 'none'}."
    costs, both = cost_ratios(rows), {entry.key for entry in strong if all(e in strong for e in mitigated if e.key == entry.key)}
    cheap = sorted((round(float(costs[*key, "cost.gflops"]), 2), key) for key in both)
    listed = ", ".join(f"`{name} {strength:g}` {cost:.2f}x" for cost, (name, strength) in cheap)
    yield f"FLOPs of the mitigations that remove more than half of the copies of both kinds, relative to plain sampling: {listed or 'none'}."
    norm, ld = (seeds_text(trigger_auc(rows, name, "local")) for name in OPTIMIZED)
    difference = loss_difference(rows, "memorized")
    agree = "the same sign" if difference.low > 0 or difference.high < 0 else "not the same sign"
    yield (
        f"As a trigger on local plants, LD has an AUC of {ld} and the guidance norm of {norm}. Optimizing LD instead of the guidance norm "
        f"changes the memorized fraction of local plants by {seeds_text(difference, '+.3f')}, {agree} in both seeds."
    )
    yield (
        "`memattn` scales the attention to the begin token, because CLIP's begin token holds no caption. The encoder of these models (MiniLM) is "
        "bidirectional: its begin token holds a part of the caption, and its padding is where attention goes that reads nothing. That its three "
        "variants leave every copy is a statement about this encoder, not about the method. The same holds for `wen.ld`: the end-token map that "
        "weights its loss carries no information on the copied region here."
    )
    for mitigation in paired.mitigations[1:]:
        counts = [
            f"{count} of {total} {kind} plants memorized (baseline {before}, p = {fisher_p(count, before, total):.2g})"
            for kind in COPIED_KINDS
            for (count, total), (before, _) in [(paired.last_counts(mitigation, kind), paired.last_counts(BASELINE, kind, mitigation))]
        ]
        yield f"Training with `{mitigation}`: {', '.join(counts)}; held-out loss {_verdict(paired.heldout_loss_ratio(mitigation), 1.0, unit='x')}."


def fisher_p(count: int, before: int, total: int) -> float:
    """Two-sided p of Fisher's exact test that `count` and `before` of `total` plants each have one probability."""
    return float(fisher_exact([[count, total - count], [before, total - before]]).pvalue)


def _names(entries: Sequence[RemainingCopies], kind: str) -> str:
    """Mitigations of a kind with their counts, fewest remaining copies first."""
    chosen = sorted((entry for entry in entries if entry.kind == kind), key=lambda entry: entry.fraction)
    return ", ".join(f"`{entry.label}` ({entry.count} of {entry.total})" for entry in chosen) or "none"


def _verdict(estimate: Estimate, neutral: float, spec: str = ".2f", unit: str = "") -> str:
    significant = estimate.low > neutral or estimate.high < neutral
    return f"{interval_text(estimate, spec, unit)} ({'significant' if significant else 'not significant'})"


def remaining_figure(remaining: Sequence[RemainingCopies]) -> Figure:
    """Remaining copies with Wilson intervals, one row per mitigation, global and local beside each other."""
    labels = list(dict.fromkeys(entry.label for entry in remaining))[::-1]
    with matplotlib.rc_context(PLAIN_STYLE):
        figure = new_figure(6.4, 0.26 * len(labels) + 1.1)
        axes = figure.add_subplot()
        for shift, kind in zip((0.14, -0.14), COPIED_KINDS, strict=True):
            entries = [entry for entry in remaining if entry.kind == kind]
            low, high = np.array([entry.interval for entry in entries]).T
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
        y, ends = np.array([entry.fraction for entry in entries]), np.array([entry.interval for entry in entries])
        errors = np.stack([y - ends[:, 0], ends[:, 1] - y]).clip(0)
        x = [costs[entry.key] for entry in entries]
        axes.errorbar(x, y, yerr=errors, label=mitigation, markersize=4, linewidth=1, elinewidth=0.4, **style)


if __name__ == "__main__":
    text, drawn = page()
    for figure_name, figure in drawn.items():
        figure.savefig(HERE / f"{figure_name}.png", dpi=110, facecolor="white")
    HERE.with_suffix(".md").write_text(text, encoding="utf-8")
    print(HERE.with_suffix(".md"))
