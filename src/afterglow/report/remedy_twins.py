"""Remedies at training time: runs that differ in one remedy, beside their twin without one."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import yaml
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from afterglow.measures.remedied import UNTOUCHED
from afterglow.measures.scaling import Estimate, fit, mean_over_runs
from afterglow.measures.statistics import wilson_interval
from afterglow.measures.summary import read_rows
from afterglow.report.bench import PLAIN, text_table
from afterglow.report.run import setting
from afterglow.report.runs import DATA, read_runs

JUDGED = ("global", "local")
NAME = re.compile(r"remedies-(?P<remedy>.+)-(?P<seed>\d+)")
REMEDIED = "remedied"  # the term of the paired comparison: e with the remedy, 1 without


@dataclass(frozen=True)
class Twins:
    """Runs of one recipe with and without remedies; a remedy and a seed name each.

    plants: of read_runs, with the remedy of their run; rows: the probes of each run.
    """

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

    def numbers(self) -> dict[str, float]:
        """Of every remedy, for the tracker."""
        found: dict[str, float] = {}
        for remedy in self.remedies:
            counts = {kind: self.last(remedy, kind) for kind in JUDGED}
            found |= {f"remedies/{remedy}/{kind}_memorized": count / total for kind, (count, total) in counts.items() if total}
            found[f"remedies/{remedy}/heldout_loss_ratio"] = self.heldout(remedy).value
        return found

    def delay(self, remedy: str, kind: str) -> Estimate | None:
        """Difference of ln step of emergence, with the remedy less without, paired by plant (censored fit).

        None where nothing tells: nothing emerged with the remedy, or it ended the training, which until then is its twin's.
        """
        if self.ended(remedy) != self.ended(UNTOUCHED, remedy):
            return None
        plants = self.plants
        table = plants[(plants["kind"] == kind) & (plants["within"] == "") & plants["remedy"].isin([remedy, UNTOUCHED])]
        table = table.assign(unit=table["plant_id"], run=table["seed"].astype(str))
        table[REMEDIED] = np.where(table["remedy"] == UNTOUCHED, 1.0, np.e)
        table = table[table.groupby(["run", "unit"])[REMEDIED].transform("nunique") == 2]
        ended = table[table[REMEDIED] > 1]
        if ended.empty or np.isinf(ended["upper"]).all():
            return None  # nothing emerged with the remedy: a lower bound only
        return fit(table, [REMEDIED]).slopes[REMEDIED]


def named(folders: Sequence[Path]) -> dict[tuple[str, int], Path]:
    """Remedy and seed of runs called remedies-NAME-SEED; ValueError names one that is called otherwise."""
    runs = {}
    for folder in folders:
        found = NAME.fullmatch(folder.name)
        if found is None:
            raise ValueError(f"'{folder}' is not called remedies-NAME-SEED.")
        runs[found["remedy"], int(found["seed"])] = folder
    return runs


def beside(without: Sequence[Path], treated: Sequence[Path]) -> dict[tuple[str, int], Path]:
    """Remedy and seed of any runs: a remedy is called as the folder, less the seed behind its name.

    ValueError names a folder without config.yaml, and two runs of one remedy and seed.
    """
    runs: dict[tuple[str, int], Path] = {}
    for folder, plain in [(folder, True) for folder in without] + [(folder, False) for folder in treated]:
        if not (folder / "config.yaml").is_file():
            raise ValueError(f"There is no run in '{folder}': config.yaml is missing.")
        seed = int(setting(_config(folder), "seed_everything"))
        name = UNTOUCHED if plain else folder.resolve().name.removesuffix(f"-{seed}")
        if (name, seed) in runs:
            raise ValueError(f"'{folder}' and '{runs[name, seed]}' are both {'without a remedy' if plain else name}, and of seed {seed}.")
        runs[name, seed] = folder
    return runs


def read_twins(runs: Mapping[tuple[str, int], Path]) -> Twins:
    """Of the folders by remedy and seed; ValueError names one without probes, or without a twin of its seed that has no remedy."""
    for (_, seed), folder in runs.items():
        if (UNTOUCHED, seed) not in runs:
            raise ValueError(f"'{folder}' has no twin: of the runs without a remedy none has seed {seed}.")
    # a set without its duplicates is a planted one: another source, but the same definitions
    written = [key for key, folder in runs.items() if setting(_config(folder), f"{DATA}.source") == "planted"]
    tables = []
    for keys in ([key for key in runs if key not in written], written):
        if keys:
            remedies = {runs[key].name: key[0] for key in keys}
            plants = read_runs([runs[key] for key in keys]).plants
            tables.append(plants.assign(remedy=plants["run"].map(remedies)))
    rows = {key: read_rows(folder / "probes.parquet") for key, folder in runs.items()}
    return Twins(pd.concat(tables, ignore_index=True), rows)


def _config(folder: Path) -> Any:
    return yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))


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
