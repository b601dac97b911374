"""A run folder as the page reads it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from safetensors import safe_open

from afterglow.analysis.emergence_table import emergence_of
from afterglow.analysis.summary import of_plants, read_measurements, summarize
from afterglow.reports.kinds import KINDS


class Evaluation:
    """Images, masks and maps that one probe left, by plant and seed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        keys = zip(self.tensor("plant_id").tolist(), self.tensor("seed").tolist(), strict=True)
        self.row = {key: row for row, key in enumerate(keys)}

    def tensor(self, name: str) -> np.ndarray:
        with safe_open(self.path, "np") as file:
            return file.get_tensor(name)

    @cached_property
    def images(self) -> np.ndarray:
        return self.tensor("images")

    @cached_property
    def names(self) -> set[str]:
        with safe_open(self.path, "np") as file:
            return set(file.keys())

    def seeds(self, plant_id: int) -> list[int]:
        return sorted(seed for number, seed in self.row if number == plant_id)


@dataclass(frozen=True)
class Run:
    """What a run folder holds.

    rows: measurements.parquet; numbers: {step: summarize(rows of the step)}; finished: whether emergence.json is there and is of
    these rows; plants: {plant_id: its first line of metadata.jsonl}.
    """

    folder: Path
    rows: pd.DataFrame
    numbers: Mapping[int, Mapping[str, float]]
    emergence: Mapping[str, Any]
    finished: bool
    config: Mapping[str, Any]
    plants: Mapping[int, Mapping[str, Any]]

    @property
    def steps(self) -> list[int]:
        return list(self.numbers)

    @property
    def last(self) -> int:
        return self.steps[-1]

    @cached_property
    def kinds(self) -> list[str]:
        """Those that any probe looked at, in the page's order."""
        seen = set(self.rows.loc[self.rows["measure"] == "plant_memorized", "kind"])
        return [kind for kind in KINDS if kind in seen]

    @cached_property
    def last_rows(self) -> pd.DataFrame:
        return self.rows[self.rows["step"] == self.last]

    @cached_property
    def last_values(self) -> dict[tuple[str, str], pd.Series]:
        """{(kind, measure): value by plant_id} at the last probe, means over seeds."""
        groups = of_plants(self.last_rows).groupby(["kind", "measure"])
        return {(str(kind), str(name)): part.set_index("plant_id")["value"] for (kind, name), part in groups}

    @cached_property
    def probed(self) -> dict[int, Evaluation]:
        """{step: images}; a probe whose file is missing is left out."""
        paths = {step: self.folder / "maps" / f"step={step}.safetensors" for step in self.steps}
        return {step: Evaluation(path) for step, path in paths.items() if path.is_file()}

    def setting(self, path: str) -> Any:
        """A value of config.yaml by its dotted path; None where there is none."""
        return setting(self.config, path)


def setting(config: Mapping[str, Any], path: str) -> Any:
    """A value of config.yaml by its dotted path; None where there is none."""
    value: Any = config
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def read_run(folder: Path) -> Run:
    """Raises ValueError naming measurements.parquet where it is missing: all else may be."""
    table = folder / "measurements.parquet"
    if not table.is_file():
        raise ValueError(f"There is no run to report in '{folder}': measurements.parquet is missing.")
    rows = read_measurements(table)
    if rows.empty:
        raise ValueError(f"There is nothing to report in '{folder}': measurements.parquet holds no rows.")
    numbers = {step: summarize(rows[rows["step"] == step]) for step in sorted(rows["step"].unique().tolist())}
    config = folder / "config.yaml"
    found, finished = _emergence(folder / "emergence.json", rows)
    settings = yaml.safe_load(config.read_text(encoding="utf-8")) if config.is_file() else {}
    return Run(folder, rows, numbers, found, finished, settings or {}, read_plants(folder / "plants" / "metadata.jsonl"))


def _emergence(path: Path, rows: pd.DataFrame) -> tuple[dict[str, Any], bool]:
    """What the run found, or what can be said so far: a run that was continued has outgrown its file."""
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["evaluation_steps"] == sorted(rows["step"].unique().tolist()):
            return found, True
    return emergence_of(rows), False


def read_plants(path: Path) -> dict[int, dict[str, Any]]:
    """{plant_id: its first line of metadata.jsonl}; nothing where there is no file."""
    if not path.is_file():
        return {}
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    first = {line["plant_id"]: line for line in reversed(lines) if line["plant_id"] >= 0}
    return dict(sorted(first.items()))
