"""Training mitigations: runs with one mitigation beside baseline runs of the same seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from afterglow import keys
from afterglow.analysis.emergence_table import IN_MASK
from afterglow.analysis.mitigation_effect import BASELINE
from afterglow.analysis.scaling import bootstrap_run_values, fit, seed_fits
from afterglow.errors import AfterglowError
from afterglow.functional.statistics import Estimate
from afterglow.reports.figures import PLAIN_STYLE, new_figure
from afterglow.reports.run import read_config, read_rows, setting
from afterglow.reports.runs import DATA, read_runs
from afterglow.reports.tables import count_text, interval_text, text_table

COPIED_KINDS = ("global", "local")
MITIGATED = "mitigated"  # the term of the paired comparison: e with the mitigation, 1 without


@dataclass(frozen=True)
class PairedRuns:
    """Runs of one recipe with and without mitigations, each named by its mitigation and its seed.

    plants: the table of read_runs with a column `mitigation`. rows: measurements of each run.
    """

    plants: pd.DataFrame
    rows: Mapping[tuple[str, int], pd.DataFrame]

    @property
    def mitigations(self) -> list[str]:
        """The baseline first, the others by name."""
        return sorted({mitigation for mitigation, _ in self.rows}, key=lambda name: (name != BASELINE, name))

    def seeds(self, mitigation: str) -> list[int]:
        """Seeds of the runs of a mitigation."""
        return sorted(seed for name, seed in self.rows if name == mitigation)

    def last_counts(self, mitigation: str, kind: str, seeds_of: str = "") -> tuple[int, int]:
        """Memorized plants of a kind at the last evaluation, and all, summed over the seeds of `seeds_of` (by default its own)."""
        counts = self.seed_counts(mitigation, kind, seeds_of)
        return sum(count for count, _ in counts), sum(total for _, total in counts)

    def seed_counts(self, mitigation: str, kind: str, seeds_of: str = "") -> list[tuple[int, int]]:
        """As `last_counts`, of each seed."""
        memorized = [_last(self.rows[mitigation, seed], "plant_memorized", kind) > 0.5 for seed in self.seeds(seeds_of or mitigation)]
        return [(int(values.sum()), len(values)) for values in memorized]

    def last_steps(self, mitigation: str, seeds_of: str = "") -> list[int]:
        """The last step of each run, over the seeds of `seeds_of` (by default its own)."""
        return [int(self.rows[mitigation, seed]["step"].max()) for seed in self.seeds(seeds_of or mitigation)]

    def heldout_loss_ratio(self, mitigation: str) -> Estimate:
        """Held-out denoising loss over that of the baseline at the last evaluation; geometric mean over images and seeds."""
        return bootstrap_run_values(self._log_loss_ratios(mitigation), self.seeds(mitigation)).map(np.exp)

    def seed_loss_ratios(self, mitigation: str) -> list[float]:
        """As `heldout_loss_ratio`, of each seed: geometric mean over images."""
        return [float(np.exp(ratios.mean())) for ratios in self._log_loss_ratios(mitigation)]

    def _log_loss_ratios(self, mitigation: str) -> list[np.ndarray]:
        ratios = []
        for seed in self.seeds(mitigation):
            losses = [_last(self.rows[name, seed], "denoising_loss", "heldout") for name in (mitigation, BASELINE)]
            ratios.append(np.log(losses[0] / losses[1]).dropna().to_numpy())
        return ratios

    def numbers(self) -> dict[str, float]:
        """Numbers of every mitigation for the tracker, by key."""
        numbers: dict[str, float] = {}
        for mitigation in self.mitigations:
            counts = {kind: self.last_counts(mitigation, kind) for kind in COPIED_KINDS}
            numbers |= {keys.mitigation(mitigation, f"{kind}_memorized"): count / total for kind, (count, total) in counts.items() if total}
            numbers[keys.mitigation(mitigation, "heldout_loss_ratio")] = self.heldout_loss_ratio(mitigation).value
        return numbers

    def delay(self, mitigation: str, kind: str, within: str = IN_MASK) -> Estimate | None:
        """Difference of ln(step of emergence), mitigated minus baseline, paired by plant, by the censored fit.

        Returns:
            The estimate, or None if nothing emerged with the mitigation, or if it ended the training (until then it equals the baseline).
        """
        table = self._delay_table(mitigation, kind, within)
        return None if table is None else fit(table, [MITIGATED]).slopes[MITIGATED]

    def seed_delays(self, mitigation: str, kind: str) -> list[float | None]:
        """As `delay`, of each seed fitted alone; None for every seed if nothing emerged in one."""
        table = self._delay_table(mitigation, kind)
        fits = {} if table is None else seed_fits(table, [MITIGATED])
        return [fits[seed][MITIGATED] if seed in fits else None for seed in self.seeds(mitigation)]

    def _delay_table(self, mitigation: str, kind: str, within: str = IN_MASK) -> pd.DataFrame | None:
        if self.last_steps(mitigation) != self.last_steps(BASELINE, mitigation):
            return None
        plants = self.plants
        table = plants[(plants["kind"] == kind) & (plants["within"] == within) & plants["mitigation"].isin([mitigation, BASELINE])]
        table = table.assign(unit=table["plant_id"], run=table["seed"].astype(str))
        table[MITIGATED] = np.where(table["mitigation"] == BASELINE, 1.0, np.e)
        table = table[table.groupby(["run", "unit"])[MITIGATED].transform("nunique") == 2]
        mitigated = table[table[MITIGATED] > 1]
        if mitigated.empty or np.isinf(mitigated["upper"]).all():
            return None  # only a lower bound
        return table


def pair_by_seed(baselines: Sequence[Path], mitigated: Sequence[Path]) -> PairedRuns:
    """Read runs and pair them by seed. A mitigation is named after its folder, without the seed at the end.

    Args:
        baselines: run folders without a mitigation.
        mitigated: run folders with one.

    Raises:
        AfterglowError: a folder is not a run, two runs have the same mitigation and seed, or a run has no baseline of its seed.
    """
    runs: dict[tuple[str, int], Path] = {}
    for folder in [*baselines, *mitigated]:
        config = read_config(folder)
        if not config:
            raise AfterglowError(f"'{folder}' is not a run: config.yaml is missing.")
        seed = int(setting(config, "seed_everything"))
        name = BASELINE if folder in baselines else folder.resolve().name.removesuffix(f"-{seed}")
        if (name, seed) in runs:
            raise AfterglowError(f"'{folder}' and '{runs[name, seed]}' are both '{name}' with seed {seed}.")
        runs[name, seed] = folder
    return read_paired_runs(runs)


def read_paired_runs(runs: Mapping[tuple[str, int], Path]) -> PairedRuns:
    """Read runs by mitigation and seed.

    Raises:
        AfterglowError: a folder is not a run, or has no baseline of its seed.
    """
    for (_, seed), folder in runs.items():
        if (BASELINE, seed) not in runs:
            raise AfterglowError(f"'{folder}' has no baseline: no run without a mitigation has seed {seed}.")
    # a de-duplicated set is read from a folder: another dataset by name, but the same definitions
    planted = [key for key, folder in runs.items() if setting(read_config(folder), f"{DATA}.dataset") == "planted"]
    tables = []
    for names in ([key for key in runs if key not in planted], planted):
        if names:
            mitigations = {runs[key].name: key[0] for key in names}
            plants = read_runs([runs[key] for key in names]).plants
            tables.append(plants.assign(mitigation=plants["run"].map(mitigations)))
    return PairedRuns(pd.concat(tables, ignore_index=True), {key: read_rows(folder) for key, folder in runs.items()})


def _last(rows: pd.DataFrame, measure: str, kind: str) -> pd.Series:
    """Values at the last evaluation in the order of plants: plant numbers differ after de-duplication, their order does not."""
    part = rows[(rows["measure"] == measure) & (rows["kind"] == kind)]
    return part[part["step"] == part["step"].max()].sort_values("plant_id")["value"].reset_index(drop=True)


def paired_runs_text(paired: PairedRuns) -> str:
    """One row per mitigation: plants memorized at the last evaluation, delay of emergence, held-out loss over the baseline's."""
    rows = []
    for mitigation in paired.mitigations:
        counts = [count_text(*paired.last_counts(mitigation, kind)) for kind in COPIED_KINDS]
        effects = ["-"] * (len(COPIED_KINDS) + 1)
        if mitigation != BASELINE:
            effects = [_factor(paired.delay(mitigation, kind)) for kind in COPIED_KINDS]
            effects.append(interval_text(paired.heldout_loss_ratio(mitigation), unit="x"))
        ends = ", ".join(map(str, sorted(set(paired.last_steps(mitigation)))))
        rows.append([mitigation, str(len(paired.seeds(mitigation))), ends, *counts, *effects])
    head = ["mitigation", "runs", "last step", *(f"{kind} memorized" for kind in COPIED_KINDS)]
    return text_table([*head, *(f"{kind}, delay" for kind in COPIED_KINDS), "held-out loss"], rows)


def _factor(delay: Estimate | None) -> str:
    return "-" if delay is None else delay.map(np.exp).text(unit="x")


def paired_runs_figure(paired: PairedRuns) -> Figure:
    """Memorized fraction of global and local plants, and held-out loss over the baseline's, over steps; one line per mitigation."""
    with matplotlib.rc_context(PLAIN_STYLE):
        figure = new_figure(12, 4.2)
        panels = figure.subplots(1, 3)
        for place, mitigation in enumerate(paired.mitigations):
            color, width = ("black", 2.2) if mitigation == BASELINE else (colormaps["tab10"]((place - 1) % 10), 1.3)
            style = {"color": color, "linewidth": width, "marker": ".", "label": f"{mitigation} ({len(paired.seeds(mitigation))})"}
            style["linestyle"] = "-" if place <= 10 else "--"  # colors repeat after the tenth
            for axes, kind in zip(panels, COPIED_KINDS, strict=False):
                axes.plot(_means_by_step(paired, mitigation, "plant_memorized", kind).mean(axis=1), **style)
            losses = [_means_by_step(paired, name, "denoising_loss", "heldout") for name in (mitigation, BASELINE)]
            panels[-1].plot((losses[0] / losses[1])[paired.seeds(mitigation)].mean(axis=1).dropna(), **style)
        titles = (*(f"{kind}: memorized fraction" for kind in COPIED_KINDS), "held-out denoising loss over the baseline's")
        for axes, title in zip(panels, titles, strict=True):
            axes.set(title=title, xlabel="step", xscale="log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 4)))
            axes.xaxis.set_major_formatter(ScalarFormatter())
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.grid(alpha=0.2)
        for axes in panels[:-1]:
            axes.set_ylim(-0.03, 1.03)
        legend = panels[0].get_legend_handles_labels()
        figure.legend(*legend, loc="outside lower center", ncols=6, fontsize=8, frameon=False, title="mitigation (runs)")
    return figure


def _means_by_step(paired: PairedRuns, mitigation: str, measure: str, kind: str) -> pd.DataFrame:
    """Means over a kind: one row per evaluation after step 0, one column per seed."""
    columns = {}
    for seed in paired.seeds(mitigation):
        rows = paired.rows[mitigation, seed]
        part = rows[(rows["measure"] == measure) & (rows["kind"] == kind) & (rows["step"] > 0)]
        columns[seed] = part.groupby("step")["value"].mean()
    return pd.DataFrame(columns)
