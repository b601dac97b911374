"""Add measures to a finished run: its last generations are measured again."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from afterglow.errors import AfterglowError
from afterglow.evaluation.measurement_table import MeasurementTable
from afterglow.evaluation.measurements import measure_generations
from afterglow.generations import Generations


def remeasure(run: Path, patterns: Sequence[str] = ("*",)) -> list[str]:
    """Add the named measures that the last evaluation of a run lacks to its measurements.parquet.

    Args:
        run: run folder.
        patterns: names of measures, with wildcards; those whose input was not captured stay absent.

    Returns:
        The names of the added measures.

    Raises:
        AfterglowError: if the run has no saved generations.
    """
    folders = sorted((run / "generations").glob("step=*"), key=lambda folder: int(folder.name.partition("=")[2]))
    if not folders or not (run / "measurements.parquet").is_file():
        raise AfterglowError(f"'{run}' has no generations of a last evaluation: it is no run, or its training has not ended.")
    rows = MeasurementTable(run / "measurements.parquet")
    step = int(folders[-1].name.partition("=")[2])
    last = rows.table[rows.table["step"] == step]
    measured = measure_generations(Generations.load(folders[-1]), patterns).measurements
    requested = [n for n in measured["measure"].unique() if any(fnmatchcase(own, p) for own in _names(n) for p in patterns)]
    new = measured[measured["measure"].isin(set(requested) - set(last["measure"]))]
    if len(new):
        rows.add(new.assign(step=step, epoch=last["epoch"].iloc[0], seconds=last["seconds"].iloc[0]))
    return list(dict.fromkeys(new["measure"]))


def _names(measure: str) -> tuple[str, ...]:
    """The name of a row, and that of the map that it judges."""
    return (measure, measure.partition(".")[2]) if measure.startswith(("auc.", "iou.")) else (measure,)
