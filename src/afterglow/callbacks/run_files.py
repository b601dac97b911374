"""The files that the evaluations of a training leave in the run folder."""

import copy
import json
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors.torch import load_file, save

from afterglow.analysis.emergence_table import emergence_of
from afterglow.cache import atomic_path
from afterglow.errors import AfterglowError, reading
from afterglow.evaluation.measurement_table import MeasurementTable
from afterglow.evaluation.measurements import EvaluationResult

EARLY_SNAPSHOT = Path("checkpoints") / "early.safetensors"


class RunFiles:
    """Writes measurements.parquet, maps, the last generations and emergence.json of one run.

    Args:
        folder: run folder.
        step: measurements of later steps are dropped, since a resumed training repeats them.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        self.folder = folder
        self.table = MeasurementTable(folder / "measurements.parquet")
        self._ended = (folder / "emergence.json").exists() and self.measurements["step"].max() == step
        self.table.drop_after(step)

    @property
    def measurements(self) -> pd.DataFrame:
        """The measurements of all evaluations."""
        return self.table.table

    def reopen(self, step: int, *, write: bool) -> None:
        """Drop the last evaluation of a shorter training that ended at this step; only one process writes."""
        if self._ended:
            self.table.drop_after(step - 1)
            self.table.add(self.measurements.head(0), write=write)
            if write:
                (self.folder / "emergence.json").unlink()

    def write(self, result: EvaluationResult, step: int, *, last: bool) -> dict[str, Any] | None:
        """Write the maps of an evaluation; after the last one also its generations and emergence, which is returned."""
        result.save(self.folder / "maps" / f"step={step}.safetensors")
        if not last:
            return None
        result.generations.save(self.folder / "generations" / f"step={step}")
        emergence = emergence_of(self.measurements)
        with atomic_path(self.folder / "emergence.json") as path:
            path.write_text(json.dumps(emergence, indent=1), encoding="utf-8")
        return emergence


def save_early_snapshot(model: Any, folder: Path) -> None:
    """Write the network's weights to the run folder, for early_difference at the last evaluation of this or a resumed training."""
    file = folder / EARLY_SNAPSHOT
    with atomic_path(file) as path:
        path.write_bytes(save({name: value.detach().cpu().contiguous() for name, value in model.unet.state_dict().items()}))


def load_early_snapshot(model: Any, folder: Path) -> Any:
    """The same model with the saved weights; AfterglowError if the run has none."""
    file = folder / EARLY_SNAPSHOT
    if not file.is_file():
        raise AfterglowError(f"early_difference needs the early weights of this run, and '{file}' is missing.")
    unet = copy.deepcopy(model.unet)
    with reading(file, "weights of the network"):
        unet.load_state_dict(load_file(file))
    return model.with_network(unet)
