"""Mitigations at training time: runs that differ in one mitigation, beside their twin without one."""

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

from afterglow.analysis.mitigation_effect import BASELINE
from afterglow.analysis.scaling import Estimate, fit, mean_over_runs
from afterglow.analysis.summary import read_measurements
from afterglow.functional.statistics import wilson_interval
from afterglow.reports.bench import PLAIN, text_table
from afterglow.reports.run import setting
from afterglow.reports.runs import DATA, read_runs

JUDGED = ("global", "local")
NAME = re.compile(r"mitigations-(?P<mitigation>.+)-(?P<seed>\d+)")
REMEDIED = "remedied"  # the term of the paired comparison: e with the mitigation, 1 without


@dataclass(frozen=True)
class PairedRuns:
    """Runs of one recipe with and without mitigations; a mitigation and a seed name each.

    plants: of read_runs, with the mitigation of their run; rows: the probes of each run.
    """

    plants: pd.DataFrame
    rows: Mapping[tuple[str, int], pd.DataFrame]

    @property
    def mitigations(self) -> list[str]:
        """None first, the others by their names."""
        return sorted({mitigation for mitigation, _ in self.rows}, key=lambda name: (name != BASELINE, name))

    def seeds(self, mitigation: str) -> list[int]:
        return sorted(seed for name, seed in self.rows if name == mitigation)

    def last(self, mitigation: str, kind: str, beside: str = "") -> tuple[int, int]:
        """Of the plants of a kind: memorized at the last probe, and all, over the seeds (those with which `beside` was run)."""
        found = [_last(self.rows[mitigation, seed], kind) for seed in self.seeds(beside or mitigation)]
        return int(sum(values.sum() for values in found)), sum(map(len, found))

    def ended(self, mitigation: str, beside: str = "") -> list[int]:
        """The last step of each seed's run (of those with which `beside` was run)."""
        return [int(self.rows[mitigation, seed]["step"].max()) for seed in self.seeds(beside or mitigation)]

    def heldout(self, mitigation: str) -> Estimate:
        """Held-out denoising loss at the last probe over its twin's, a mean over images of log ratios, as a factor; over seeds."""
        ratios = [np.log(_losses(self.rows[mitigation, seed]) / _losses(self.rows[BASELINE, seed])) for seed in self.seeds(mitigation)]
        found = mean_over_runs([ratio.dropna().to_numpy() for ratio in ratios])
        return Estimate(*(float(np.exp(value)) for value in (found.value, found.low, found.high)))

    def numbers(self) -> dict[str, float]:
        """Of every mitigation, for the tracker."""
        found: dict[str, float] = {}
        for mitigation in self.mitigations:
            counts = {kind: self.last(mitigation, kind) for kind in JUDGED}
            found |= {f"mitigations/{mitigation}/{kind}_memorized": count / total for kind, (count, total) in counts.items() if total}
            found[f"mitigations/{mitigation}/heldout_loss_ratio"] = self.heldout(mitigation).value
        return found

    def delay(self, mitigation: str, kind: str) -> Estimate | None:
        """Difference of ln step of emergence, with the mitigation less without, paired by plant (censored fit).

        None where nothing tells: nothing emerged with the mitigation, or it ended the training, which until then is its twin's.
        """
        if self.ended(mitigation) != self.ended(BASELINE, mitigation):
            return None
        plants = self.plants
        table = plants[(plants["kind"] == kind) & (plants["within"] == "") & plants["mitigation"].isin([mitigation, BASELINE])]
        table = table.assign(unit=table["plant_id"], run=table["seed"].astype(str))
        table[REMEDIED] = np.where(table["mitigation"] == BASELINE, 1.0, np.e)
        table = table[table.groupby(["run", "unit"])[REMEDIED].transform("nunique") == 2]
        ended = table[table[REMEDIED] > 1]
        if ended.empty or np.isinf(ended["upper"]).all():
            return None  # nothing emerged with the mitigation: a lower bound only
        return fit(table, [REMEDIED]).slopes[REMEDIED]


def named(folders: Sequence[Path]) -> dict[tuple[str, int], Path]:
    """Mitigation and seed of runs called mitigations-NAME-SEED; ValueError names one that is called otherwise."""
    runs = {}
    for folder in folders:
        found = NAME.fullmatch(folder.name)
        if found is None:
            raise ValueError(f"'{folder}' is not called mitigations-NAME-SEED.")
        runs[found["mitigation"], int(found["seed"])] = folder
    return runs


def beside(without: Sequence[Path], treated: Sequence[Path]) -> dict[tuple[str, int], Path]:
    """Mitigation and seed of any runs: a mitigation is called as the folder, less the seed behind its name.

    ValueError names a folder without config.yaml, and two runs of one mitigation and seed.
    """
    runs: dict[tuple[str, int], Path] = {}
    for folder, plain in [(folder, True) for folder in without] + [(folder, False) for folder in treated]:
        if not (folder / "config.yaml").is_file():
            raise ValueError(f"There is no run in '{folder}': config.yaml is missing.")
        seed = int(setting(_config(folder), "seed_everything"))
        name = BASELINE if plain else folder.resolve().name.removesuffix(f"-{seed}")
        if (name, seed) in runs:
            raise ValueError(
                f"'{folder}' and '{runs[name, seed]}' are both {'without a mitigation' if plain else name}, and of seed {seed}."
            )
        runs[name, seed] = folder
    return runs


def read_twins(runs: Mapping[tuple[str, int], Path]) -> PairedRuns:
    """Of the folders by mitigation and seed; ValueError names one without probes, or without a twin of its seed that has no mitigation."""
    for (_, seed), folder in runs.items():
        if (BASELINE, seed) not in runs:
            raise ValueError(f"'{folder}' has no twin: of the runs without a mitigation none has seed {seed}.")
    # a set without its duplicates is a planted one: another source, but the same definitions
    written = [key for key, folder in runs.items() if setting(_config(folder), f"{DATA}.dataset") == "planted"]
    tables = []
    for keys in ([key for key in runs if key not in written], written):
        if keys:
            mitigations = {runs[key].name: key[0] for key in keys}
            plants = read_runs([runs[key] for key in keys]).plants
            tables.append(plants.assign(mitigation=plants["run"].map(mitigations)))
    rows = {key: read_measurements(folder / "measurements.parquet") for key, folder in runs.items()}
    return PairedRuns(pd.concat(tables, ignore_index=True), rows)


def _config(folder: Path) -> Any:
    return yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))


def _last(rows: pd.DataFrame, kind: str) -> np.ndarray:
    some = rows[(rows["measure"] == "plant_memorized") & (rows["kind"] == kind)]
    return some[some["step"] == some["step"].max()]["value"].to_numpy() > 0.5


def _losses(rows: pd.DataFrame) -> pd.Series:
    """Of held-out images at the last probe, in their order; their numbers differ where duplicates were removed, their order does not."""
    some = rows[(rows["measure"] == "denoising_loss") & (rows["kind"] == "heldout")]
    return some[some["step"] == some["step"].max()].sort_values("plant_id")["value"].reset_index(drop=True)


def twins_text(twins: PairedRuns) -> str:
    """A row a mitigation: plants memorized at the last probe, the delay of emergence, the held-out loss over the twin's."""
    lines = []
    for mitigation in twins.mitigations:
        cells = [_counted(*twins.last(mitigation, kind)) for kind in JUDGED]
        if mitigation == BASELINE:
            cells += ["-"] * (len(JUDGED) + 1)
        else:
            cells += [_delay(twins.delay(mitigation, kind)) for kind in JUDGED]
            one = twins.heldout(mitigation)
            cells.append(f"{one.value:.2f}x [{one.low:.2f}, {one.high:.2f}]")
        ends = sorted(set(twins.ended(mitigation)))
        lines.append([mitigation, str(len(twins.seeds(mitigation))), ", ".join(map(str, ends)), *cells])
    delays = [f"{kind}, delay" for kind in JUDGED]
    return text_table(["mitigation", "runs", "ended at step", *(f"{kind} memorized" for kind in JUDGED), *delays, "held-out loss"], lines)


def _counted(count: int, total: int) -> str:
    low, high = wilson_interval(count, total)
    return f"{count} of {total} ({low:.0%} to {high:.0%})"


def _delay(one: Estimate | None) -> str:
    """As a factor of the step."""
    return "-" if one is None else "{:.2f}x [{:.2f}, {:.2f}]".format(*np.exp([one.value, one.low, one.high]))


def twins_figure(twins: PairedRuns) -> Figure:
    """Share of the plants that are memorized, global and local, and the held-out loss over the twin's, over steps; a line a mitigation."""
    with matplotlib.rc_context(PLAIN):
        figure = Figure(figsize=(12, 4.2), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(1, 3)
        for place, mitigation in enumerate(twins.mitigations):
            color = "black" if mitigation == BASELINE else colormaps["tab10"]((place - 1) % 10)
            label = f"{mitigation} ({len(twins.seeds(mitigation))})"
            look = {"color": color, "linewidth": 2.2 if mitigation == BASELINE else 1.3, "marker": ".", "label": label}
            look["linestyle"] = "-" if place <= 10 else "--"  # beyond the tenth colors come again
            for axes, kind in zip(panels, JUDGED, strict=False):
                axes.plot(_over_steps(twins, mitigation, "plant_memorized", kind).mean(axis=1), **look)
            ratio = _over_steps(twins, mitigation, "denoising_loss", "heldout") / _over_steps(twins, BASELINE, "denoising_loss", "heldout")
            panels[-1].plot(ratio[twins.seeds(mitigation)].mean(axis=1).dropna(), **look)
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
        figure.legend(*handles, loc="outside lower center", ncols=6, fontsize=8, frameon=False, title="mitigation (runs)")
    return figure


def _over_steps(twins: PairedRuns, mitigation: str, measure: str, kind: str) -> pd.DataFrame:
    """Means of a measure over a kind: a row a probe after step 0, a column a seed."""
    found = {}
    for seed in twins.seeds(mitigation):
        rows = twins.rows[mitigation, seed]
        some = rows[(rows["measure"] == measure) & (rows["kind"] == kind) & (rows["step"] > 0)]
        found[seed] = some.groupby("step")["value"].mean()
    return pd.DataFrame(found)
