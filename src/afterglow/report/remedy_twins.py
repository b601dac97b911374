"""Remedies at training time: runs that differ in one remedy, beside their twin without one."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import yaml
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from afterglow.measures.scaling import Estimate, fit, mean_over_runs
from afterglow.measures.statistics import wilson_interval
from afterglow.measures.summary import read_rows
from afterglow.report.bench import PLAIN, text_table
from afterglow.report.run import setting
from afterglow.report.runs import DATA, read_runs

UNTOUCHED = "none"
JUDGED = ("global", "local")
NAME = re.compile(r"remedies-(?P<remedy>.+)-(?P<seed>\d+)")
REMEDIED = "remedied"  # the term of the paired comparison: e with the remedy, 1 without


@dataclass(frozen=True)
class Twins:
    """Runs of one recipe with and without remedies; a remedy and a seed name each. plants: of read_runs; rows: the probes of each run."""

    plants: pd.DataFrame
    rows: Mapping[tuple[str, int], pd.DataFrame]

    @property
    def remedies(self) -> list[str]:
        """None first, the others by their names."""
        return sorted({remedy for remedy, _ in self.rows}, key=lambda name: (name != UNTOUCHED, name))

    def seeds(self, remedy: str) -> list[int]:
        return sorted(seed for name, seed in self.rows if name == remedy)

    def last(self, remedy: str, kind: str, beside: str = "") -> tuple[int, int]:
        """Of the plants of a kind: memorized at the last probe, and all, over the seeds (those with which `beside` was run)."""
        found = [_last(self.rows[remedy, seed], kind) for seed in self.seeds(beside or remedy)]
        return int(sum(values.sum() for values in found)), sum(map(len, found))

    def ended(self, remedy: str, beside: str = "") -> list[int]:
        """The last step of each seed's run (of those with which `beside` was run)."""
        return [int(self.rows[remedy, seed]["step"].max()) for seed in self.seeds(beside or remedy)]

    def heldout(self, remedy: str) -> Estimate:
        """Held-out denoising loss at the last probe over its twin's, a mean over pictures of log ratios, as a factor; over seeds."""
        ratios = [np.log(_losses(self.rows[remedy, seed]) / _losses(self.rows[UNTOUCHED, seed])) for seed in self.seeds(remedy)]
        found = mean_over_runs([ratio.dropna().to_numpy() for ratio in ratios])
        return Estimate(*(float(np.exp(value)) for value in (found.value, found.low, found.high)))

    def delay(self, remedy: str, kind: str) -> Estimate | None:
        """Difference of ln step of emergence, with the remedy less without, paired by plant (censored fit).

        None where nothing tells: nothing emerged with the remedy, or it ended the training, which until then is its twin's.
        """
        if self.ended(remedy) != self.ended(UNTOUCHED, remedy):
            return None
        plants = self.plants
        table = plants[(plants["kind"] == kind) & (plants["within"] == "")]
        pair = table["run"].str.fullmatch(rf"remedies-({re.escape(remedy)}|{UNTOUCHED})-\d+")
        table = table[pair].assign(unit=table["plant_id"])
        table[REMEDIED] = np.where(table["run"].str.startswith(f"remedies-{UNTOUCHED}-"), 1.0, np.e)
        table["run"] = table["seed"].astype(str)
        table = table[table.groupby(["run", "unit"])[REMEDIED].transform("nunique") == 2]
        ended = table[table[REMEDIED] > 1]
        if ended.empty or np.isinf(ended["upper"]).all():
            return None  # nothing emerged with the remedy: a lower bound only
        return fit(table, [REMEDIED]).slopes[REMEDIED]


def read_twins(folders: Sequence[Path]) -> Twins:
    """Runs called remedies-NAME-SEED; ValueError names one that is called otherwise, or has no twin without a remedy."""
    rows = {}
    for folder in folders:
        found = NAME.fullmatch(folder.name)
        if found is None:
            raise ValueError(f"'{folder}' is not called remedies-NAME-SEED.")
        rows[found["remedy"], int(found["seed"])] = read_rows(folder / "probes.parquet")
    for remedy, seed in rows:
        if (UNTOUCHED, seed) not in rows:
            raise ValueError(f"'remedies-{remedy}-{seed}' has no twin: remedies-{UNTOUCHED}-{seed} is missing.")
    # a set without its duplicates is a planted one: another source, but the same definitions
    written = [folder for folder in folders if setting(yaml.safe_load((folder / "config.yaml").read_text()), f"{DATA}.source") == "planted"]
    parts = [part for part in (written, [folder for folder in folders if folder not in written]) if part]
    return Twins(pd.concat([read_runs(part).plants for part in parts], ignore_index=True), rows)


def _last(rows: pd.DataFrame, kind: str) -> np.ndarray:
    some = rows[(rows["measure"] == "plant_memorized") & (rows["kind"] == kind)]
    return some[some["step"] == some["step"].max()]["value"].to_numpy() > 0.5


def _losses(rows: pd.DataFrame) -> pd.Series:
    """Of held-out pictures at the last probe, in their order; their numbers differ where duplicates were removed, their order does not."""
    some = rows[(rows["measure"] == "denoising_loss") & (rows["kind"] == "heldout")]
    return some[some["step"] == some["step"].max()].sort_values("plant_id")["value"].reset_index(drop=True)


def twins_text(twins: Twins) -> str:
    """A row a remedy: plants memorized at the last probe, the delay of emergence, the held-out loss over the twin's."""
    lines = []
    for remedy in twins.remedies:
        cells = [_counted(*twins.last(remedy, kind)) for kind in JUDGED]
        if remedy == UNTOUCHED:
            cells += ["-"] * (len(JUDGED) + 1)
        else:
            cells += [_delay(twins.delay(remedy, kind)) for kind in JUDGED]
            one = twins.heldout(remedy)
            cells.append(f"{one.value:.2f}x [{one.low:.2f}, {one.high:.2f}]")
        ends = sorted(set(twins.ended(remedy)))
        lines.append([remedy, str(len(twins.seeds(remedy))), ", ".join(map(str, ends)), *cells])
    delays = [f"{kind}, delay" for kind in JUDGED]
    return text_table(["remedy", "runs", "ended at step", *(f"{kind} memorized" for kind in JUDGED), *delays, "held-out loss"], lines)


def _counted(count: int, total: int) -> str:
    low, high = wilson_interval(count, total)
    return f"{count} of {total} ({low:.0%} to {high:.0%})"


def _delay(one: Estimate | None) -> str:
    """As a factor of the step."""
    return "-" if one is None else "{:.2f}x [{:.2f}, {:.2f}]".format(*np.exp([one.value, one.low, one.high]))


def twins_figure(twins: Twins) -> Figure:
    """Share of the plants that are memorized, global and local, and the held-out loss over the twin's, over steps; a line a remedy."""
    with matplotlib.rc_context(PLAIN):
        figure = Figure(figsize=(12, 4.2), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(1, 3)
        for place, remedy in enumerate(twins.remedies):
            colour = "black" if remedy == UNTOUCHED else colormaps["tab10"]((place - 1) % 10)
            label = f"{remedy} ({len(twins.seeds(remedy))})"
            look = {"color": colour, "linewidth": 2.2 if remedy == UNTOUCHED else 1.3, "marker": ".", "label": label}
            look["linestyle"] = "-" if place <= 10 else "--"  # beyond the tenth colours come again
            for axes, kind in zip(panels, JUDGED, strict=False):
                axes.plot(_over_steps(twins, remedy, "plant_memorized", kind).mean(axis=1), **look)
            ratio = _over_steps(twins, remedy, "denoising_loss", "heldout") / _over_steps(twins, UNTOUCHED, "denoising_loss", "heldout")
            panels[-1].plot(ratio[twins.seeds(remedy)].mean(axis=1).dropna(), **look)
        titles = (*(f"{kind}: share memorized" for kind in JUDGED), "held-out denoising loss over the twin's")
        for axes, title in zip(panels, titles, strict=True):
            axes.set(title=title, xlabel="step", xscale="log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 4)))
            axes.xaxis.set_major_formatter(ScalarFormatter())
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.grid(alpha=0.2)
        for axes in panels[:-1]:
            axes.set_ylim(-0.03, 1.03)
        handles = panels[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=6, fontsize=8, frameon=False, title="remedy (runs)")
    return figure


def _over_steps(twins: Twins, remedy: str, measure: str, kind: str) -> pd.DataFrame:
    """Means of a measure over a kind: a row a probe after step 0, a column a seed."""
    found = {}
    for seed in twins.seeds(remedy):
        rows = twins.rows[remedy, seed]
        some = rows[(rows["measure"] == measure) & (rows["kind"] == kind) & (rows["step"] > 0)]
        found[seed] = some.groupby("step")["value"].mean()
    return pd.DataFrame(found)
