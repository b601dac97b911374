"""The same templates planted whole in one run and as a region in its paired run: which is memorized first, and by how much."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from afterglow.analysis.scaling import fit, seed_fits
from afterglow.functional.statistics import FEW_SEEDS, Estimate, t_interval
from afterglow.reports.runs import EmergenceTables
from afterglow.reports.tables import interval_text, order_text

LOCAL = "local"  # the term of the paired comparison: e for a local plant, 1 for a global one


@dataclass(frozen=True)
class PairedPlants:
    """Templates planted whole in one run and as a region in its paired run, both measured in that region.

    difference: of ln(step), local minus global: the mean over seeds with its t interval, of one seed or of five and more the bootstrap's.
    seeds: {seed: its difference}. local_first, global_first, undecided: number of pairs by which of the two emerged first; undecided if
    both emerged between the same evaluations, or neither did. templates: distinct ones; runs of one seed share theirs.
    """

    difference: Estimate
    seeds: Mapping[Any, float]
    pairs: int
    templates: int
    runs: int
    local_first: int
    global_first: int
    undecided: int


def paired_table(tables: EmergenceTables) -> pd.DataFrame:
    """Two rows per template, planted whole in one run and as a region in its paired run, both measured in that region: kind, lower, upper.

    Columns run (the pair of runs) and unit (the template) are those of a fit; LOCAL is its term. Empty without paired runs.
    """
    plants = tables.plants
    if not len(plants) or plants["arm"].isna().all():
        return pd.DataFrame()
    in_region = ((plants["kind"] == "local") & (plants["within"] == "")) | ((plants["kind"] == "global") & (plants["within"] == ".region"))
    table = plants[in_region]
    table = table.assign(run=[f"{n:g}-{seed}" for n, seed in zip(table["n"], table["seed"], strict=True)], unit=table["plant_id"])
    table[LOCAL] = np.where(table["kind"] == "local", np.e, 1.0)
    return table[table.groupby(["run", "unit"])["kind"].transform("nunique") == 2].sort_values(["run", "unit", "kind"])


def pair_plants(tables: EmergenceTables) -> PairedPlants | None:
    """Difference of log emergence at equal n and copies, by the censored fit; both runs of a template are resampled together.

    None without paired runs (planting.arm 0 and 1).
    """
    table = paired_table(tables)
    if not len(table) or not np.isfinite(table["upper"]).any():
        return None
    seeds = seed_differences(table)
    difference = t_interval(list(seeds.values())) if 1 < len(seeds) < FEW_SEEDS else fit(table, _paired_terms(table)).slopes[LOCAL]
    wide = table.set_index(["run", "unit", "kind"])[["lower", "upper"]].unstack("kind")
    local = int((wide["upper", "local"] <= wide["lower", "global"]).sum())
    whole = int((wide["upper", "global"] <= wide["lower", "local"]).sum())
    templates, runs = len(table.drop_duplicates(["seed", "unit"])), table["run"].nunique()
    return PairedPlants(difference, seeds, len(wide), templates, runs, local, whole, len(wide) - local - whole)


def seed_differences(table: pd.DataFrame) -> dict[Any, float]:
    """{seed: difference of ln(step), local minus global, by the censored fit}. table: as `paired_table` returns it."""
    seeds = {seed: part for seed, part in table.groupby("seed") if np.isfinite(part["upper"]).any()}
    return {seed: seed_fits(part, _paired_terms(part))[seed][LOCAL] for seed, part in seeds.items()}


def _paired_terms(table: pd.DataFrame) -> list[str]:
    return [LOCAL, *varying_terms(table, ("n", "copies"))]


def paired_text(paired: PairedPlants | None) -> str:
    """The paired comparison in words; its verdict depends on the interval."""
    if paired is None:
        return "There are no paired runs (planting.arm 0 and 1), so global and local plants cannot be compared."
    difference = paired.difference
    factor = difference.map(np.exp)
    per_seed = f" (seeds: {', '.join(f'{value:+.2f}' for value in paired.seeds.values())})" if len(paired.seeds) > 1 else ""
    distinct = f"{paired.templates} distinct templates" + (f" ({paired.pairs} pairs)" if paired.pairs > paired.templates else "")
    return (
        f"Local plants are {order_text(factor)} the same images planted whole, in the same region, under the same caption and with the "
        f"same number of copies: difference of ln(step) {interval_text(difference, '+.2f')}{per_seed}, a factor of "
        f"{interval_text(factor)}, over {distinct} in {paired.runs} {'pair' if paired.runs == 1 else 'pairs'} of runs. Number of pairs "
        f"whose local plant emerged first: {paired.local_first}; global plant first: {paired.global_first}; undecided: {paired.undecided}."
    )


def varying_terms(table: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """The columns among `names` that are known in every row and take more than one value."""
    return [name for name in names if name in table and table[name].notna().all() and table[name].nunique() > 1]
