"""The runs of a folder, each in one line."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from afterglow.errors import AfterglowError
from afterglow.reports.run import read_config, setting


@dataclass(frozen=True)
class RunState:
    """What a run has reached.

    Args:
        name: of the run folder.
        step: training step of the last evaluation; 0 before the first.
        max_steps: length of the training; None if unknown.
        finished: the last evaluation was made.
        memorized: {kind: (memorized plants, plants)} at the last evaluation.
    """

    name: str
    step: int
    max_steps: int | None
    finished: bool
    memorized: Mapping[str, tuple[int, int]]

    def fraction_text(self, kind: str) -> str:
        """'7 of 8', or a dash if the kind was not evaluated."""
        return "{} of {}".format(*self.memorized[kind]) if kind in self.memorized else "-"

    def number(self, column: str) -> float:
        """The step, or the memorized fraction of a kind; -1 if it was not evaluated."""
        if column == "step":
            return self.step
        memorized, plants = self.memorized.get(column, (-1, 1))
        return memorized / plants


def run_states(folder: Path) -> list[RunState]:
    """The states of all run folders inside a folder, by name; a damaged measurements.parquet counts as no evaluation."""
    folders = [path for path in sorted(folder.iterdir()) if (path / "config.yaml").is_file() or (path / "measurements.parquet").is_file()]
    return [_state(path) for path in folders]


def _state(folder: Path) -> RunState:
    try:
        max_steps = setting(read_config(folder), "trainer.max_steps")
    except AfterglowError:
        max_steps = None
    rows = _plants(folder / "measurements.parquet")
    counts = (rows["value"] > 0.5).groupby(rows["kind"]).agg(["sum", "count"])
    memorized = {str(kind): (int(total), int(plants)) for kind, total, plants in counts.itertuples()}
    step = int(rows["step"].max()) if len(rows) else 0
    return RunState(folder.name, step, max_steps, (folder / "emergence.json").is_file(), memorized)


def _plants(file: Path) -> pd.DataFrame:
    """Rows of plant_memorized at the last evaluation; only these are read."""
    columns = ["step", "kind", "value"]
    try:
        rows = pd.read_parquet(file, columns=columns, filters=[("measure", "==", "plant_memorized")])
    except (OSError, ValueError):  # missing or damaged: pyarrow's errors are both
        return pd.DataFrame({"step": [], "kind": [], "value": []})
    return rows[rows["step"] == rows["step"].max()]
