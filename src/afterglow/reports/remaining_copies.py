"""Mitigations at inference over several runs: what is still copied, what that costs, and what a trigger can tell."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from afterglow.analysis.detection import judge, over_runs
from afterglow.analysis.mitigation_effect import BASELINE
from afterglow.analysis.scaling import Estimate, mean_over_runs
from afterglow.functional.statistics import wilson_interval
from afterglow.reports.bench import PLAIN, text_table
from afterglow.reports.kinds import KINDS

JUDGED = ("global", "local")
UNITS = ["run", "kind", "plant_id"]
OPTIMIZED = {"wen.magnitude": "guidance_norm", "wen.ld": "LD"}
COSTS = {"cost.evaluations": "evaluations", "cost.gflops": "FLOPs, a plant's"}
LEVELS = (  # kind, measure, head: means
    ("global", "correlation.inside", "correlation, global"),
    ("local", "correlation.inside", "inside, local"),
    ("local", "correlation.outside", "outside, local"),
)
HELD_OUT = ("heldout", "distance.training")  # changes against no mitigation


@dataclass(frozen=True)
class RemainingCopies:
    """Of the plants of one kind that are memorized without a mitigation: how many still are with it. interval: Wilson, 95 %."""

    mitigation: str
    strength: float
    kind: str
    count: int
    total: int

    @property
    def interval(self) -> tuple[float, float]:
        return wilson_interval(self.count, self.total)

    @property
    def label(self) -> str:
        return self.mitigation if self.mitigation == BASELINE else f"{self.mitigation} {self.strength:g}"

    def text(self) -> str:
        low, high = self.interval
        return f"{self.count} of {self.total} ({low:.0%} to {high:.0%})"


def copies_left(rows: pd.DataFrame) -> list[RemainingCopies]:
    """For each mitigation, strength and kind, in the order of the rows. rows: run, mitigation, strength, kind, plant_id, measure, value."""
    judged = rows[(rows["measure"] == "memorized") & rows["kind"].isin(JUDGED)]
    before = judged[(judged["mitigation"] == BASELINE) & (judged["value"] > 0.5)][UNITS]
    judged = judged.merge(before, on=UNITS)
    return [
        RemainingCopies(mitigation, strength, kind, int((some["value"] > 0.5).sum()), len(some))
        for (mitigation, strength, kind), some in judged.groupby(["mitigation", "strength", "kind"], sort=False)
    ]


def paired_changes(rows: pd.DataFrame, kind: str, measure: str) -> pd.DataFrame:
    """The change against no mitigation of each plant or caption: mitigation, strength, run, unit, change."""
    some = rows[(rows["kind"] == kind) & (rows["measure"] == measure)]
    before = some[some["mitigation"] == BASELINE][[*UNITS, "value"]].rename(columns={"value": "before"})
    both = some[some["mitigation"] != BASELINE].merge(before, on=UNITS)
    return both.assign(change=both["value"] - both["before"], unit=both["plant_id"], upper=0.0)


def levels(rows: pd.DataFrame, kind: str, measure: str) -> pd.DataFrame:
    """A measure of the plants that the baseline memorizes: mitigation, strength, run, unit, change (the value itself)."""
    known = rows[(rows["mitigation"] == BASELINE) & (rows["measure"] == "memorized") & (rows["value"] > 0.5)][UNITS]
    some = rows[(rows["kind"] == kind) & (rows["measure"] == measure)].merge(known, on=UNITS)
    return some.assign(change=some["value"], unit=some["plant_id"], upper=0.0)


def mean_change(table: pd.DataFrame) -> Estimate:
    """Of a table of paired changes (run, unit, upper, change), with its interval over runs."""
    return mean_over_runs([some["change"].to_numpy() for _, some in table.groupby("run")])


def cost_ratios(rows: pd.DataFrame) -> pd.DataFrame:
    """Cost over that of no mitigation in the same run: mitigation, strength, run, measure, ratio."""
    some = (
        rows[rows["measure"].isin(tuple(COSTS))]
        .groupby(["run", "mitigation", "strength", "measure"], sort=False)["value"]
        .mean()
        .reset_index()
    )
    before = some[some["mitigation"] == BASELINE][["run", "measure", "value"]].rename(columns={"value": "before"})
    both = some.merge(before, on=["run", "measure"])
    return both.assign(ratio=both["value"] / both["before"])


def remedies_text(rows: pd.DataFrame) -> str:
    """One row per mitigation and strength: copies left, correlations, change of held-out images, median cost over the baseline."""
    left = copies_left(rows)
    shown = [(levels(rows, kind, name), plain) for kind, name, _ in LEVELS] + [(paired_changes(rows, *HELD_OUT), signed)]
    costs = cost_ratios(rows).groupby(["mitigation", "strength", "measure"])["ratio"].median()
    lines = []
    for mitigation, strength in dict.fromkeys((one.mitigation, one.strength) for one in left):
        mine = {one.kind: one for one in left if (one.mitigation, one.strength) == (mitigation, strength)}
        cells = [mine[kind].text() if kind in mine else "-" for kind in JUDGED]
        for table, written in shown:
            some = table[(table["mitigation"] == mitigation) & (table["strength"] == strength)]
            cells.append("-" if some.empty else written(mean_change(some)))
        cells += [f"{costs[key]:.2f}x" if (key := (mitigation, strength, name)) in costs.index else "-" for name in COSTS]
        lines.append([next(iter(mine.values())).label, *cells])
    heads = [*(head for *_, head in LEVELS), "held-out to nearest"]
    return text_table(["mitigation", "global left", "local left", *heads, *COSTS.values()], lines)


def plain(one: Estimate) -> str:
    """'0.84 [0.79, 0.88]'."""
    return f"{one.value:.2f} [{one.low:.2f}, {one.high:.2f}]"


def signed(one: Estimate) -> str:
    """'-0.120 [-0.150, -0.090]'."""
    return f"{one.value:+.3f} [{one.low:+.3f}, {one.high:+.3f}]"


def trigger_auc(rows: pd.DataFrame, mitigation: str, kind: str) -> Estimate:
    """AUC of the loss that an optimization begins with, memorized plants of a kind against controls: mean over runs.

    Each run has thresholds of its own. The interval resamples runs first, plants and controls within each second.
    """
    losses = rows[(rows["mitigation"] == mitigation) & (rows["measure"] == "mitigation.loss_before")]
    plants, controls = levels(rows, kind, "mitigation.loss_before"), losses[losses["kind"] == "control"]
    plants = plants[plants["mitigation"] == mitigation]
    both = [(some["value"].to_numpy(), controls[controls["run"] == run]["value"].to_numpy()) for run, some in plants.groupby("run")]
    return Estimate(*over_runs([judge(*pair)["auc"] for pair in both]))


def trigger_text(rows: pd.DataFrame) -> str:
    """A row a kind: how well magnitude and LD tell memorized plants from controls at the first step."""
    present = [name for name in OPTIMIZED if (rows["mitigation"] == name).any()]
    lines = [[kind, *(plain(trigger_auc(rows, name, kind)) for name in present)] for kind in JUDGED]
    return text_table(["memorized plants against controls", *(f"AUC of {OPTIMIZED[name]}" for name in present)], lines)


def difference(rows: pd.DataFrame, first: str, second: str, kind: str, measure: str) -> Estimate:
    """Mean of `first` less `second` over the same plants, those memorized without a mitigation, with its interval over runs."""
    some = levels(rows, kind, measure)
    one, other = (some[some["mitigation"] == name].set_index(UNITS)["value"] for name in (first, second))
    both = (one - other).dropna().rename("change").reset_index()
    return mean_change(both.assign(unit=both["plant_id"], upper=0.0))


def left_figure(lefts: Sequence[RemainingCopies]) -> Figure:
    """Copies left with Wilson's intervals, a row a mitigation at its strength, global and local beside each other."""
    labels = list(dict.fromkeys(one.label for one in lefts))[::-1]
    with matplotlib.rc_context(PLAIN):
        figure = Figure(figsize=(6.4, 0.26 * len(labels) + 1.1), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        for shift, kind in ((0.14, "global"), (-0.14, "local")):
            mine = [one for one in lefts if one.kind == kind]
            ends = np.array([one.interval for one in mine])
            y = [labels.index(one.label) + shift for one in mine]
            axes.hlines(y, ends[:, 0], ends[:, 1], color=KINDS[kind].color, linewidth=1.2)
            axes.plot([one.count / one.total for one in mine], y, KINDS[kind].marker, color=KINDS[kind].color, markersize=5, label=kind)
        axes.set(xlim=(-0.03, 1.03), yticks=range(len(labels)), yticklabels=labels, xlabel="copies left, of those without a mitigation")
        axes.grid(axis="x", alpha=0.2)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    return figure


def tradeoff(rows: pd.DataFrame, kind: str, cost: Callable[[pd.DataFrame], pd.Series]) -> pd.DataFrame:
    """Copies left of a kind against a cost, a row a mitigation and strength. cost: rows => a number by (mitigation, strength)."""
    found = pd.DataFrame(
        [
            {
                "mitigation": one.mitigation,
                "strength": one.strength,
                "left": one.count / one.total,
                "low": one.interval[0],
                "high": one.interval[1],
            }
            for one in copies_left(rows)
            if one.kind == kind
        ]
    )
    return found.merge(cost(rows).rename("cost").reset_index(), on=["mitigation", "strength"])


def drift(rows: pd.DataFrame) -> pd.Series:
    """Mean distance of held-out captions' generations to the nearest training image, over the baseline, by (mitigation, strength)."""
    some = rows[(rows["kind"] == "heldout") & (rows["measure"] == "distance.training")]
    means = some.groupby(["mitigation", "strength"], sort=False)["value"].mean()
    return means / means[BASELINE].iloc[0]


def tradeoff_figure(rows: pd.DataFrame) -> Figure:
    """Copies left against what happens to images that were no copies, a curve a mitigation over its strengths, a panel a kind."""
    with matplotlib.rc_context(PLAIN):
        figure = Figure(figsize=(9, 4.4), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(1, len(JUDGED), sharey=True)
        for axes, kind in zip(panels, JUDGED, strict=True):
            _tradeoff(axes, tradeoff(rows, kind, drift))
            axes.set(title=kind, xlabel="held-out captions: distance to the nearest training image, over untouched", ylim=(-0.03, 1.03))
            axes.xaxis.label.set_fontsize(8)
            axes.grid(alpha=0.2)
        panels[0].set_ylabel("copies left")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=7, frameon=False)
    return figure


def _tradeoff(axes: Axes, table: pd.DataFrame) -> None:
    for place, (mitigation, some) in enumerate(table.groupby("mitigation", sort=False)):
        some = some.sort_values("strength")
        look = (
            {"color": "black", "marker": "s", "zorder": 5}
            if mitigation == BASELINE
            else {"color": colormaps["tab20"](place % 20), "marker": "o"}
        )
        spread = np.stack([some["left"] - some["low"], some["high"] - some["left"]]).clip(0)
        axes.errorbar(some["cost"], some["left"], yerr=spread, label=str(mitigation), markersize=4, linewidth=1, elinewidth=0.4, **look)
