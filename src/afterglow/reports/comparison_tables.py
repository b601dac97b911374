"""Tables of a comparison of runs."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from afterglow.analysis.mitigation_effect import BASELINE
from afterglow.analysis.scaling import bootstrap_run_values
from afterglow.functional.statistics import exact_at_bounds
from afterglow.kinds import PLANTED
from afterglow.reports.comparison_runs import COUNTED, Comparison, value_text
from afterglow.reports.emergence import TERMS, NamedFit, median, median_text, plants_of_kind
from afterglow.reports.paired_runs import PairedRuns
from afterglow.reports.run_tables import COMPARED_KINDS, MAIN_MAPS, MAPS_WITHOUT_TEXT, TRIVIAL
from afterglow.reports.tables import NO_VALUE, Cell, Row, Table, count_cell, number_cell, text_table


def effects_table(fits: Sequence[NamedFit]) -> Table | None:
    """By which factor the step of emergence changes when a term doubles; None if the runs vary none."""
    names = {"tau_mem": "f_mem above .1", "tau_gen": "held-out loss near its minimum"}
    rows = []
    for named in fits:
        for term, slope in named.fit.slopes.items():
            expected = named.reference.get(term) if named.name in PLANTED else None
            cells = [Cell(TERMS[term]), Cell(str(slope.map(np.exp2))), NO_VALUE if expected is None else Cell(f"{2.0**expected:.2f}")]
            rows.append(Row(names.get(named.name, f"{named.name} plants{named.way}"), cells, named.name))
    return Table(["emergence of", "doubling", "multiplies the step by", "expected from the number of exposures"], rows) if rows else None


def runs_table(comparison: Comparison) -> Table:
    """One row per run: settings that differ, memorized plants, medians of emergence, localization and held-out loss."""
    kinds = _measured_kinds(comparison)
    maps = [name for name in _maps(comparison) if name not in TRIVIAL][:2]
    rows = []
    for run, measured in comparison.rows.items():
        last = int(measured["step"].max())
        cells = [Cell(value_text(values[run])) for values in comparison.settings.values()]
        cells += [Cell(str(comparison.seeds[run])), Cell(str(last), str(last))]
        cells += [_memorized_cell(comparison, [run], kind, within) for kind, within in kinds]
        cells += [_median_cell(comparison.tables.plants, run, *kind, last) for kind in kinds if kind[0] in PLANTED]
        cells += [_mean(comparison.values(run, "local", f"auc.{name}")) for name in maps]
        cells.append(_mean(comparison.values(run, "heldout", "denoising_loss"), ".4f"))
        rows.append(Row(run, cells))
    medians = [f"{kind}: median step of emergence{way}" for (kind, _), way in kinds.items() if kind in PLANTED]
    memorized = [f"{kind} memorized{way}" for (kind, _), way in kinds.items()]
    head = [*comparison.labels.values(), "seed", "last step", *memorized, *medians]
    head += [*(f"AUC of {name}" for name in maps), "held-out loss"]
    kept = [place for place in range(len(head)) if any(row.cells[place] is not NO_VALUE for row in rows)]
    return Table(["run", *(head[place] for place in kept)], [replace(row, cells=[row.cells[place] for place in kept]) for row in rows])


def _measured_kinds(comparison: Comparison) -> dict[tuple[str, str], str]:
    """{(kind, within): text of the way} of the kinds that were measured at the last evaluation of a run."""
    return {
        (kind, within): way
        for within, way in comparison.tables.ways.items()
        for kind in COUNTED
        if any(len(comparison.values(run, kind, f"plant_memorized{within}")) for run in comparison.rows)
    }


def _memorized_cell(comparison: Comparison, runs: Sequence[str], kind: str, within: str) -> Cell:
    values = np.concatenate([comparison.values(run, kind, f"plant_memorized{within}") for run in runs]) > 0.5
    return count_cell(int(values.sum()), len(values))


def _mean(values: np.ndarray, spec: str = ".2f") -> Cell:
    return number_cell(float(values.mean()), spec) if len(values) else NO_VALUE


def _median_cell(plants: pd.DataFrame, run: str, kind: str, within: str, last: int) -> Cell:
    part = plants_of_kind(plants[plants["run"] == run], kind, within)
    if part.empty:
        return NO_VALUE
    step = median(part)
    return Cell(f"{step:.0f}", repr(step)) if np.isfinite(step) else Cell(f"after {last}", repr(2.0 * last))


def groups_table(comparison: Comparison) -> Table:
    """One row per group of runs that differ only in the seed: memorized plants and medians of emergence, pooled."""
    rows, plants, kinds = [], comparison.tables.plants, _measured_kinds(comparison)
    for label, runs in comparison.groups.items():
        cells = [_memorized_cell(comparison, runs, *kind) for kind in kinds]
        for kind in (kind for kind in kinds if kind[0] in PLANTED):
            part = plants_of_kind(plants[plants["run"].isin(runs)], *kind)
            cells.append(Cell(median_text(part)) if len(part) else NO_VALUE)
        rows.append(Row(label, [Cell(str(len(runs))), *cells]))
    memorized = [f"{kind} memorized{way}" for (kind, _), way in kinds.items()]
    medians = [f"{kind}: median step{way}" for (kind, _), way in kinds.items() if kind in PLANTED]
    return Table(["setting", "runs", *memorized, *medians], rows)


def paired_groups_table(comparison: Comparison) -> Table | None:
    """Each group against the first, paired by seed and plant; None if no runs have the same plants and seed."""
    groups = comparison.groups
    arms = next((values for name, values in comparison.settings.items() if comparison.labels[name] == "arm"), {})
    pair = {run: 1000 * seed + int(arms.get(run) or 0) for run, seed in comparison.seeds.items()}
    first = {pair[run]: run for run in next(iter(groups.values()))}
    plants, rows = comparison.tables.plants, []
    for label, runs in list(groups.items())[1:]:
        both = {number: (first[number], run) for run in runs if (number := pair[run]) in first}
        both = {
            number: (one, two) for number, (one, two) in both.items() if _planted(comparison, one) == _planted(comparison, two) != set()
        }
        if not both:
            continue
        side = {run: name for one, two in both.values() for run, name in ((one, BASELINE), (two, label))}
        own = plants[plants["run"].isin(side)]
        own = own.assign(mitigation=own["run"].map(side), seed=own["run"].map(pair))
        paired = PairedRuns(own, {(side[run], pair[run]): comparison.rows[run] for run in side})
        for within, way in comparison.tables.ways.items():
            cells = [Cell(str(len(both)))]
            for kind in ("global", "local"):
                delay = paired.delay(label, kind, within) if len(own[own["kind"] == kind]) else None
                differences = [_difference(comparison, kind, within, *runs) for runs in both.values()]
                gain = bootstrap_run_values(differences) if all(map(len, differences)) else None
                cells += [NO_VALUE if gain is None else Cell(gain.text("+.0%"), repr(gain.value))]
                cells += [NO_VALUE if delay is None else Cell(delay.map(np.exp).text(), repr(float(np.exp(delay.value))))]
            rows.append(Row(label + way, cells))
    groups_head = [("", 2), ("global plants", 2), ("local plants", 2)]
    head = ["setting", "pairs of runs", *["memorized fraction", "factor of the step of emergence"] * 2]
    return Table(head, rows, groups_head) if rows else None


def _planted(comparison: Comparison, run: str) -> set[tuple]:
    plants = comparison.tables.plants
    return set(
        plants[(plants["run"] == run) & plants["kind"].isin(PLANTED)][["plant_id", "kind", "caption"]].itertuples(index=False, name=None)
    )


def _difference(comparison: Comparison, kind: str, within: str, first: str, second: str) -> np.ndarray:
    """Memorized (1 or 0) of each plant in the second run minus in the first."""
    one, two = (comparison.last[run] for run in (first, second))
    parts = [
        table[(table["measure"] == f"plant_memorized{within}") & (table["kind"] == kind)].set_index("plant_id")["value"]
        for table in (one, two)
    ]
    return ((parts[1] > 0.5).astype(float) - (parts[0] > 0.5)).dropna().to_numpy()


def _maps(comparison: Comparison) -> list[str]:
    names = {
        name.removeprefix("auc.") for table in comparison.last.values() for name in table["measure"].unique() if name.startswith("auc.")
    }
    return [name for name in dict.fromkeys((*MAIN_MAPS, *MAPS_WITHOUT_TEXT, *TRIVIAL)) if name in names]


def map_table(comparison: Comparison) -> Table | None:
    """Mean AUC of the main maps on memorized local plants in each group; None without any."""
    names, groups = _maps(comparison), comparison.groups
    if not names or not any(len(comparison.values(run, "local", f"auc.{names[0]}")) for run in comparison.rows):
        return None

    def cell(name: str, runs: Sequence[str], kind: str) -> Cell:
        parts = [values for run in runs if len(values := comparison.values(run, kind, f"auc.{name}"))]
        if not parts:
            return NO_VALUE
        found = exact_at_bounds(bootstrap_run_values(parts), sum(map(len, parts)))
        return Cell(str(found), repr(found.value))

    everyone = list(comparison.rows)
    rows = [
        Row(
            name,
            [*(cell(name, runs, "local") for runs in groups.values()), *(cell(name, everyone, kind) for kind in COMPARED_KINDS)],
            remark="trivial" if name in TRIVIAL else "",
            shaded=name in TRIVIAL,
        )
        for name in names
    ]
    heads = [("", 1), ("memorized local plants", len(groups)), ("all runs, kinds without a copy", len(COMPARED_KINDS))]
    return Table(["map", *groups, *COMPARED_KINDS], rows, heads)


def runs_text(comparison: Comparison) -> str:
    """The groups as a table for the terminal."""
    table = groups_table(comparison)
    head = [name.replace(" memorized", "") for name in table.head]
    return text_table(head, [[row.label, *(cell.text.partition(" (")[0] for cell in row.cells)] for row in table.rows])
