"""Measures that are younger than a run: its last probe's generations is measured again, and what is new joins its rows."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from afterglow.evaluation.measurement_table import MeasurementTable
from afterglow.evaluation.measurements import judge
from afterglow.generations import Generations


def remeasure(run: Path, patterns: Sequence[str] = ("*",)) -> list[str]:
    """Add to a run's measurements.parquet the named measures that its last probe lacks; returns their names.

    Measures whose input the generations does not hold stay absent. Raises ValueError where the run kept no generations.
    """
    kept = sorted((run / "generations").glob("step=*"), key=lambda folder: int(folder.name.partition("=")[2]))
    if not kept or not (run / "measurements.parquet").is_file():
        raise ValueError(f"There is no generations of a last probe in '{run}': the training has not ended, or is no run.")
    rows = MeasurementTable(run / "measurements.parquet")
    step = int(kept[-1].name.partition("=")[2])
    last = rows.table[rows.table["step"] == step]
    found = judge(Generations.load(kept[-1]), patterns)[0]
    asked = [name for name in found["measure"].unique() if any(fnmatchcase(own, p) for own in _own_names(name) for p in patterns)]
    new = found[found["measure"].isin(set(asked) - set(last["measure"]))]
    if len(new):
        rows.add(new.assign(step=step, epoch=last["epoch"].iloc[0], seconds=last["seconds"].iloc[0]))
    return list(dict.fromkeys(new["measure"]))


def _own_names(name: str) -> tuple[str, ...]:
    """A row's name, and that of the map it is about."""
    return (name, name.partition(".")[2]) if name.startswith(("auc.", "iou.")) else (name,)
