"""A run folder as the report reads it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import safe_open

from afterglow.analysis.emergence_table import emergence_of
from afterglow.analysis.summary import (
    CLUSTER_SIZE,
    MEASUREMENT_COLUMNS,
    plant_means,
    read_measurements,
    summarize_evaluation,
    with_families,
    with_inversions,
)
from afterglow.errors import AfterglowError, reading
from afterglow.files import read_json, read_json_lines, read_yaml
from afterglow.functional.statistics import wilson_interval
from afterglow.kinds import KINDS, NOT_MEMORIZED


class EvaluationFile:
    """Images, masks and maps that one evaluation saved, by plant and seed.

    Args:
        path: a file maps/step=N.safetensors.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._tensors = path, dict[str, np.ndarray]()

    @cached_property
    def row(self) -> dict[tuple[int, int], int]:
        """{(plant_id, seed): row}."""
        keys = zip(self.tensor("plant_id").tolist(), self.tensor("seed").tolist(), strict=True)
        return {key: row for row, key in enumerate(keys)}

    @cached_property
    def _seeds(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for plant_id, seed in sorted(self.row):
            found.setdefault(plant_id, []).append(seed)
        return found

    def tensor(self, name: str) -> np.ndarray:
        """One array of the file, read once."""
        if name not in self._tensors:
            with reading(self.path, "maps of an evaluation"), safe_open(self.path, "np") as file:
                self._tensors[name] = file.get_tensor(name)
        return self._tensors[name]

    @property
    def images(self) -> np.ndarray:
        """uint8 [B, C, H, W]."""
        return self.tensor("images")

    @cached_property
    def names(self) -> set[str]:
        """Names of all arrays."""
        with reading(self.path, "maps of an evaluation"), safe_open(self.path, "np") as file:
            return set(file.keys())

    def seeds(self, plant_id: int) -> list[int]:
        """Seeds generated for a plant, rising."""
        return self._seeds.get(plant_id, [])

    def first_row(self, plant_id: int) -> int | None:
        """Row of the plant's first seed; None if the plant was not evaluated."""
        seeds = self.seeds(plant_id)
        return self.row[plant_id, seeds[0]] if seeds else None


@dataclass(frozen=True)
class MemorizedFraction:
    """`memorized` of `count` plants of a kind at a step."""

    step: int
    kind: str
    memorized: int
    count: int

    @property
    def value(self) -> float:
        """Between 0 and 1."""
        return self.memorized / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson, 95 %."""
        return wilson_interval(self.memorized, self.count)


@dataclass(frozen=True)
class Run:
    """What a run folder holds.

    rows: measurements.parquet. numbers: {step: summarize_evaluation(rows of the step)}.
    finished: emergence.json exists and belongs to these rows.
    plants: {plant_id: its first line of metadata.jsonl}.
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
        """Steps of all evaluations, rising."""
        return list(self.numbers)

    @property
    def last(self) -> int:
        """Step of the last evaluation."""
        return self.steps[-1]

    @cached_property
    def kinds(self) -> list[str]:
        """Kinds that were evaluated, in the order of the page."""
        return list(self.memorized)

    @cached_property
    def measures(self) -> tuple[np.ndarray, pd.Index]:
        """The place of each row's measure among the names of all measures, and these names: numbers are compared faster than texts."""
        return pd.factorize(self.rows["measure"])

    def rows_of(self, measure: str, steps: Sequence[int] | None = None) -> pd.DataFrame:
        """Rows of one measure, at some or at all steps."""
        places, names = self.measures
        rows = self.rows[places == names.get_loc(measure)] if measure in names else self.rows.head(0)
        return rows if steps is None else rows[rows["step"].isin(steps)]

    @cached_property
    def last_rows(self) -> pd.DataFrame:
        """Rows of the last evaluation."""
        return self.rows[self.rows["step"] == self.last]

    @cached_property
    def last_values(self) -> dict[tuple[str, str], pd.Series]:
        """{(kind, measure): value by plant_id} at the last evaluation, means over seeds."""
        groups = with_inversions(plant_means(self.last_rows)).set_index("plant_id").groupby(["kind", "measure"])["value"]
        return {(str(kind), str(name)): part for (kind, name), part in groups}

    @cached_property
    def map_names(self) -> list[str]:
        """Maps measured on local plants at the last evaluation, best mean AUC first, ties by name."""
        found = {
            name.removeprefix("auc."): values.mean()
            for of in (NOT_MEMORIZED, "local")
            for (kind, name), values in self.last_values.items()
            if kind == of and name.startswith("auc.")
        }
        return sorted(found, key=lambda name: (-found[name], name))

    @cached_property
    def memorized(self) -> dict[str, list[MemorizedFraction]]:
        """{kind: one fraction per evaluation that measured it}."""
        rows = self.rows_of("plant_memorized")
        counts = rows.assign(value=rows["value"] > 0.5).groupby(["kind", "step"])["value"].agg(["sum", "count"])
        fractions: dict[str, list[MemorizedFraction]] = {}
        for kind, step, memorized, count in counts.reset_index().itertuples(index=False):
            fractions.setdefault(kind, []).append(MemorizedFraction(step, kind, memorized, count))
        return {kind: fractions[kind] for kind in KINDS if kind in fractions}

    @property
    def has_cluster_sizes(self) -> bool:
        """Whether controls with near-duplicates in the training set are told from the others."""
        return len(self.rows_of(CLUSTER_SIZE)) > 0

    @cached_property
    def evaluations(self) -> dict[int, EvaluationFile]:
        """{step: saved images}; evaluations whose file is missing are left out."""
        paths = {step: self.folder / "maps" / f"step={step}.safetensors" for step in self.steps}
        return {step: EvaluationFile(path) for step, path in paths.items() if path.is_file()}

    def setting(self, path: str) -> Any:
        """A value of config.yaml by its dotted path, or None."""
        return setting(self.config, path)


def setting(config: Mapping[str, Any], path: str) -> Any:
    """A value of a configuration by its dotted path, or None."""
    value: Any = config
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def read_config(folder: Path) -> dict[str, Any]:
    """config.yaml of a run folder; empty if there is none."""
    file = folder / "config.yaml"
    return read_yaml(file) if file.is_file() else {}


def read_rows(folder: Path) -> pd.DataFrame:
    """measurements.parquet of a run folder; see `with_families`.

    Raises:
        AfterglowError: the file is missing or holds no rows.
    """
    file = folder / "measurements.parquet"
    if not folder.is_dir():
        raise AfterglowError(f"The run folder '{folder}' does not exist.")
    if not file.is_file():
        raise AfterglowError(f"'{folder}' is not a run with evaluations: measurements.parquet is missing.")
    rows = read_measurements(file, MEASUREMENT_COLUMNS)
    if rows.empty:
        raise AfterglowError(f"'{folder}' is not a run with evaluations: measurements.parquet holds no rows.")
    return with_families(rows)


def read_run(folder: Path, rows: pd.DataFrame | None = None, summaries: dict[int, dict[str, float]] | None = None) -> Run:
    """Read a run folder. Only measurements.parquet is required; see read_rows.

    Args:
        folder: run folder.
        rows: content of measurements.parquet, if it has been read.
        summaries: summaries of earlier evaluations, which are not computed again; new ones are added.
    """
    rows = read_rows(folder) if rows is None else with_families(rows)
    known = {} if summaries is None else summaries
    numbers = {step: known.get(step) or summarize_evaluation(rows[rows["step"] == step]) for step in sorted(rows["step"].unique().tolist())}
    known |= numbers
    emergence, finished = _emergence(folder / "emergence.json", rows)
    return Run(folder, rows, numbers, emergence, finished, read_config(folder), read_plants(folder))


def _emergence(path: Path, rows: pd.DataFrame) -> tuple[dict[str, Any], bool]:
    """The file if it belongs to these rows, else what the rows say so far: a resumed run is longer than its last emergence.json."""
    if path.is_file():
        emergence = read_json(path)
        with reading(path, "emergence of a run"):
            if emergence["evaluation_steps"] == sorted(rows["step"].unique().tolist()):
                return emergence, True
    return emergence_of(rows), False


def read_plants(folder: Path) -> dict[int, dict[str, Any]]:
    """{plant_id: its first line of plants/metadata.jsonl} of a run folder; empty if there is no such file."""
    path = folder / "plants" / "metadata.jsonl"
    if not path.is_file():
        return {}
    lines = read_json_lines(path, ("plant_id", "kind", "copies", "text"))
    with reading(path, "a list of plants"):
        first = {line["plant_id"]: line for line in reversed(lines) if line["plant_id"] >= 0}
    return dict(sorted(first.items()))
