"""The runs of a comparison: their measurements, emergence, and the settings in which they differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from afterglow.analysis.summary import plant_means, with_inversions
from afterglow.errors import AfterglowError
from afterglow.kinds import PLANTED
from afterglow.reports.compare import RECIPE_SETTINGS, differing_settings
from afterglow.reports.run import read_config, read_rows, setting
from afterglow.reports.runs import EmergenceTables, read_runs

MAX_RUNS = 200
COUNTED = (*PLANTED, "phantom")
LABELS = {"set_size": "n", "block_out_channels": "width", "class_path": "model"}  # shorter than the last part of the option's name
AXIS_COLUMNS = ("n", "copies", "width")  # settings that are columns of EmergenceTables.plants


@dataclass(frozen=True)
class Comparison:
    """Runs with the same definitions. rows: measurements of each run. settings: {option that differs: its value in each run}."""

    folders: Sequence[Path]
    tables: EmergenceTables
    rows: Mapping[str, pd.DataFrame]
    seeds: Mapping[str, int]
    settings: Mapping[str, Mapping[str, Any]]

    @cached_property
    def labels(self) -> dict[str, str]:
        """{option: its short name}, unique."""
        last = {name: LABELS.get(name.rpartition(".")[2], name.rpartition(".")[2]) for name in self.settings}
        return {name: label if list(last.values()).count(label) == 1 else name for name, label in last.items()}

    @cached_property
    def groups(self) -> dict[str, list[str]]:
        """{label: runs that differ only in the seed and the arm}, by rising values; without a mitigation first."""
        names = [name for name in self.settings if self.labels[name] != "arm"]
        values = {run: tuple(self.settings[name][run] for name in names) for run in self.rows}
        groups: dict[str, list[str]] = {}
        for run in sorted(self.rows, key=lambda run: [order_of(value) for value in values[run]]):
            label = ", ".join(f"{self.labels[name]} {value_text(value)}" for name, value in zip(names, values[run], strict=True))
            groups.setdefault(label or "all runs", []).append(run)
        return groups

    @cached_property
    def last(self) -> dict[str, pd.DataFrame]:
        """{run: means over seeds of every plant at its last evaluation}."""
        return {run: with_inversions(plant_means(rows[rows["step"] == rows["step"].max()])) for run, rows in self.rows.items()}

    def values(self, run: str, kind: str, measure: str) -> np.ndarray:
        """Values of the plants of a kind at the last evaluation of a run."""
        plants = self.last[run]
        return plants[(plants["kind"] == kind) & (plants["measure"] == measure)]["value"].to_numpy()


def value_text(value: Any) -> str:
    """A setting as the page shows it; a list of one value as this value."""
    if isinstance(value, Mapping) and "class_path" in value:
        return str(value["class_path"]).rpartition(".")[2]
    if isinstance(value, list | tuple):
        return ", ".join(map(value_text, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def order_of(value: Any) -> tuple[bool, float, str]:
    """The place of a setting among others: none first, then by the number, then by the text."""
    first = value[0] if isinstance(value, list | tuple) and value else value
    number = float(first) if isinstance(first, int | float) else 0.0
    return value not in ([], None), number, value_text(value)


def read_comparison(folders: Sequence[Path]) -> Comparison:
    """Read run folders.

    Raises:
        AfterglowError: a folder is not a run, two runs have different definitions of memorized or the same name, or there are too many.
    """
    if len(folders) > MAX_RUNS:
        raise AfterglowError(f"{len(folders)} runs do not fit on one page: compare at most {MAX_RUNS}.")
    tables, paths = read_runs(folders), {Path(folder).name: Path(folder) for folder in folders}
    configs = {run: read_config(path) for run, path in paths.items()}
    first = next(iter(configs.values()))
    names = sorted({name for config in configs.values() for name in differing_settings(first, config, RECIPE_SETTINGS)})
    settings = {name: {run: setting(config, name) for run, config in configs.items()} for name in names}
    seeds = {run: int(setting(config, "seed_everything") or 0) for run, config in configs.items()}
    return Comparison(folders, tables, {run: read_rows(path) for run, path in paths.items()}, seeds, settings)
