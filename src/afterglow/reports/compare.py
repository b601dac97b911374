"""Several runs of one recipe as tables: the last evaluations, pooled over plants."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from afterglow.analysis.scaling import bootstrap_run_values
from afterglow.analysis.summary import plant_means, with_inversions
from afterglow.errors import AfterglowError
from afterglow.functional.roc import detection_metrics
from afterglow.functional.statistics import exact_at_bounds
from afterglow.kinds import KINDS, NEGATIVES
from afterglow.reports.run import read_config, read_rows, setting
from afterglow.reports.run_tables import COMPARED_KINDS, TRIVIAL
from afterglow.reports.runs import ways
from afterglow.reports.tables import count_text, text_table

RECIPE_SETTINGS = ("model", "data", "mitigations", "monitor.early_stop", "trainer.max_steps")  # equal in runs that are pooled
SCORE = "guidance_norm.all"


def differing_settings(first: Mapping[str, Any], second: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Dotted names of the settings, inside those of `names`, that both configurations have and that differ."""

    def leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                yield from leaves(f"{name}.{key}", inner)
        else:
            yield name, value

    flat, other = ({leaf: value for name in names for leaf, value in leaves(name, setting(config, name))} for config in (first, second))
    return sorted(name for name in flat.keys() & other.keys() if flat[name] != other[name])


def read_last_evaluations(folders: Sequence[Path]) -> pd.DataFrame:
    """Means over seeds for every plant at each run's last evaluation, with a column `run`.

    Raises:
        AfterglowError: a folder is not a run, or two runs have different recipes.
    """
    rows = {folder: read_rows(folder) for folder in folders}
    configs = {folder: config for folder in folders if (config := read_config(folder))}
    for folder, config in configs.items():
        first = next(iter(configs))
        if differing := differing_settings(configs[first], config, RECIPE_SETTINGS):
            raise AfterglowError(f"'{folder}' and '{first}' differ in {', '.join(differing)}: only seeds of one recipe are pooled.")
    last = {folder.name: with_inversions(plant_means(part[part["step"] == part["step"].max()])) for folder, part in rows.items()}
    return pd.concat([table.assign(run=name) for name, table in last.items()], ignore_index=True)


def compare(folders: Sequence[Path], *, every_map: bool = False) -> str:
    """Tables of memorized plants, detection by run, and localization, of runs of one recipe.

    every_map: list all maps, not only trivial ones, score differences and the first end token.
    """
    plants = read_last_evaluations(folders)
    return "\n\n".join([_memorized(plants), _detection(plants), _localization(plants, every_map)])


def _values(plants: pd.DataFrame, measure: str, kind: str) -> pd.Series:
    return plants[(plants["measure"] == measure) & (plants["kind"] == kind)]["value"]


def _memorized(plants: pd.DataFrame) -> str:
    measured = plants["measure"][plants["measure"].str.startswith("plant_memorized")].str.removeprefix("plant_memorized")
    counts = {
        kind + way: values
        for within, way in ways(measured).items()
        for kind in KINDS
        if len(values := _values(plants, f"plant_memorized{within}", kind))
    }
    return text_table(["kind", "memorized (95 %, Wilson)"], [[kind, count_text(int(v.sum()), len(v))] for kind, v in counts.items()])


def _detection(plants: pd.DataFrame) -> str:
    def auc(run: pd.DataFrame, positive: str, negative: str) -> str:
        values = [_values(run, SCORE, kind).to_numpy() for kind in (positive, negative)]
        return f"{detection_metrics(*values)['auc']:.2f}" if all(map(len, values)) else ""

    runs = [run for _, run in plants.groupby("run")]
    rows = []
    for kind in ("global", "local"):
        cells = [", ".join(filter(None, (auc(run, kind, negative) for run in runs))) for negative in NEGATIVES]
        rows.append([f"{kind} against", *(cell or "-" for cell in cells)])
    return text_table([f"AUC of `{SCORE}`, one number per run", *NEGATIVES], rows)


def _localization(plants: pd.DataFrame, every_map: bool) -> str:
    names = sorted(name.removeprefix("auc.") for name in plants["measure"].unique() if name.startswith("auc."))
    if not every_map:
        names = [name for name in names if name in TRIVIAL or "score_difference" in name or ".last.first_eos." in name]

    def cell(name: str, kind: str) -> str:
        part = plants[(plants["measure"] == f"auc.{name}") & (plants["kind"] == kind)]
        runs = [values.to_numpy() for _, values in part.groupby("run")["value"]]
        return str(exact_at_bounds(bootstrap_run_values(runs), len(part))) if runs else "-"

    kinds = [kind for kind in ("local", *COMPARED_KINDS) if any(len(_values(plants, f"auc.{name}", kind)) for name in names)]
    rows = [[f"`{name}`", *(cell(name, kind) for kind in kinds)] for name in names]
    return text_table(["AUC of the map, mean over plants", *kinds], rows)
