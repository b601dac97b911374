"""Several runs on one page: emergence and localization against the settings in which they differ, and differences of paired runs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from afterglow.analysis.mitigation_effect import BASELINE
from afterglow.analysis.scaling import bootstrap_run_values, fit
from afterglow.analysis.summary import plant_means
from afterglow.cache import atomic_path
from afterglow.errors import AfterglowError
from afterglow.functional.statistics import Estimate, exact_at_bounds
from afterglow.kinds import PLANTED
from afterglow.reports import comparison_charts as charts
from afterglow.reports.compare import RECIPE_SETTINGS, differing_settings
from afterglow.reports.emergence import TERMS, NamedFit, median, median_text, model_fits, plant_fits
from afterglow.reports.page import join, render
from afterglow.reports.paired_plants import LOCAL, PairedPlants, pair_plants, paired_text
from afterglow.reports.paired_runs import PairedRuns
from afterglow.reports.run import read_config, read_rows, setting
from afterglow.reports.run_tables import COMPARED_KINDS, MAIN_MAPS, MAPS_WITHOUT_TEXT, TRIVIAL
from afterglow.reports.runs import EmergenceTables, read_runs
from afterglow.reports.tables import NO_VALUE, Cell, Row, Table, count_cell, number_cell, text_table

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
        for run in sorted(self.rows, key=lambda run: [_order(value) for value in values[run]]):
            label = ", ".join(f"{self.labels[name]} {value_text(value)}" for name, value in zip(names, values[run], strict=True))
            groups.setdefault(label or "all runs", []).append(run)
        return groups

    @cached_property
    def last(self) -> dict[str, pd.DataFrame]:
        """{run: means over seeds of every plant at its last evaluation}."""
        return {run: plant_means(rows[rows["step"] == rows["step"].max()]) for run, rows in self.rows.items()}

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


def _order(value: Any) -> tuple[bool, float, str]:
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


def write_comparison(comparison: Comparison, page: Path) -> Path:
    """Write the page; readers see the old one or the new one."""
    drawn = _charts(comparison)
    specs = {name: spec for name, (_, spec) in drawn.items()}
    fits, paired = _fits(comparison.tables), pair_plants(comparison.tables)
    contents = {
        "title": f"{len(comparison.rows)} runs compared" if len(comparison.rows) > 1 else f"Run {next(iter(comparison.rows))}",
        "differ": _differ(comparison),
        "answer": local_against_global(comparison, paired),
        "effects": effects_table(fits),
        "notes": comparison.tables.notes,
        "titles": {name: title for name, (title, _) in drawn.items()},
        "charts": specs,
        "paired": paired_text(paired) if paired else "",
        "tables": {"runs": runs_table(comparison), "pairs": paired_groups_table(comparison), "groups": groups_table(comparison)},
        "localization": map_table(comparison),
        "command": f"afterglow compare {' '.join(map(str, comparison.folders))}",
    }
    page.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(page) as file:
        file.write_text(render("comparison.html.jinja", contents, {"charts": specs}), encoding="utf-8")
    return page


def local_against_global(comparison: Comparison, paired: PairedPlants | None) -> str:
    """The first sentence: local plants against global ones, by which factor; or how many emerged."""
    tables, count = comparison.tables, _count(len(comparison.rows), "run")
    if paired is not None:
        factor = paired.difference.map(np.exp)
        return f"Local plants were memorized {_verdict(factor)} the same images planted whole: {_factor(factor)}, in paired runs."
    plants = tables.plants
    table = plants[plants["kind"].isin(["global", "local"]) & (plants["within"] == "")] if len(plants) else plants
    if len(table) and table[np.isfinite(table["upper"])]["kind"].nunique() == 2:  # otherwise the factor has no bound
        table = table.assign(unit=table["plant_id"], **{LOCAL: np.where(table["kind"] == "local", np.e, 1.0)})
        varying = [name for name in AXIS_COLUMNS if table[name].notna().all() and table[name].nunique() > 1]
        found = _try_fit(table, [LOCAL, *varying], LOCAL) or _try_fit(table, [LOCAL], LOCAL)
        if found is not None:
            return f"Local plants were memorized {_verdict(found)} global plants: {_factor(found)}, over {count}."
    emerged = {kind: part["upper"] for kind, part in table.groupby("kind")} if len(table) else {}
    if emerged:
        parts = [f"{int(np.isfinite(upper).sum())} of {len(upper)} {kind}" for kind, upper in emerged.items()]
        return f"{join(parts)} plants emerged in {count}."
    memorized = tables.runs["tau_mem"]
    if memorized.notna().any():
        return f"The generations came to copy training images in {int(np.isfinite(memorized).sum())} of {count} (f_mem above .1)."
    return f"Nothing was planted in {count}."


def _try_fit(table: pd.DataFrame, terms: list[str], term: str) -> Estimate | None:
    try:
        return fit(table, terms).slopes[term].map(np.exp)
    except AfterglowError:  # the runs do not tell the terms apart
        return None


def _verdict(factor: Estimate) -> str:
    return "later than" if factor.low > 1 else "earlier than" if factor.high < 1 else "neither distinguishably earlier nor later than"


def _factor(factor: Estimate) -> str:
    return f"a factor of {factor.value:.2f} in training steps (95 % interval {factor.low:.2f} to {factor.high:.2f})"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _fits(tables: EmergenceTables) -> list[NamedFit]:
    fits = []
    for find in (partial(plant_fits, axes=("step",)), model_fits):
        try:
            fits += find(tables)
        except AfterglowError:  # the runs do not tell the terms apart
            continue
    return fits


def effects_table(fits: Sequence[NamedFit]) -> Table | None:
    """By which factor the step of emergence changes when a term doubles; None if the runs vary none."""
    names = {"tau_mem": "f_mem above .1", "tau_gen": "held-out loss near its minimum"}
    rows = []
    for named in fits:
        for term, slope in named.fit.slopes.items():
            expected = named.reference.get(term) if named.name in PLANTED else None
            cells = [Cell(TERMS[term]), Cell(str(slope.map(np.exp2))), NO_VALUE if expected is None else Cell(f"{2.0**expected:.2f}")]
            rows.append(Row(names.get(named.name, f"{named.name} plants"), cells, named.name))
    return Table(["emergence of", "doubling", "multiplies the step by", "expected from the number of exposures"], rows) if rows else None


def _differ(comparison: Comparison) -> str:
    parts = []
    for name, values in comparison.settings.items():
        texts = dict.fromkeys(value_text(value) for value in sorted(values.values(), key=_order))
        parts.append(f"{comparison.labels[name]} ({', '.join(texts) if len(texts) <= 8 else f'{len(texts)} values'})")
    seeds = sorted(set(comparison.seeds.values()))
    parts += [f"seed ({', '.join(map(str, seeds))})"] if len(seeds) > 1 else []
    return f"The runs differ in {join(parts)}." if parts else ""


def _charts(comparison: Comparison) -> dict[str, tuple[str, dict[str, Any]]]:
    """{id: title and specification}."""
    found: dict[str, tuple[str, dict[str, Any] | None]] = {}
    plants = comparison.tables.plants
    if len(plants):
        plants = plants[(plants["within"] == "") & plants["kind"].isin(PLANTED)]
    if len(plants) and np.isfinite(plants["upper"]).any():
        axes = {name: plants[name].tolist() for name in AXIS_COLUMNS if plants[name].nunique() > 1}
        others = [name for name in comparison.settings if comparison.labels[name] not in (*AXIS_COLUMNS, "arm", "max_steps")]
        axes |= {comparison.labels[name]: [value_text(comparison.settings[name][run]) for run in plants["run"]] for name in others}
        for place, (label, values) in enumerate((axes or {"kind": plants["kind"].tolist()}).items()):
            spec = charts.emergence_against(plants.assign(x=values, unit=plants["plant_id"]), label)
            found[f"against-{place}"] = (f"Emergence against {TERMS.get(label, label)}", spec)
    for kind in COUNTED:
        title = "Memorized phantoms (false positives)" if kind == "phantom" else f"Memorized {kind} plants"
        found[f"memorized-{kind}"] = (title, charts.group_curves(_fractions(comparison, kind), "memorized fraction"))
    shares = comparison.tables.fractions
    if len(shares):
        group = {run: label for label, runs in comparison.groups.items() for run in runs}
        rows = [(group[run], int(step), value) for run, step, value in shares[["run", "step", "f_mem"]].itertuples(index=False)]
        found["f_mem"] = ("Generations that copy a training image (f_mem)", charts.group_curves(rows, "f_mem"))
    return {name: (title, spec) for name, (title, spec) in found.items() if spec}


def _fractions(comparison: Comparison, kind: str) -> Iterable[tuple[str, int, float]]:
    for label, runs in comparison.groups.items():
        for run in runs:
            rows = comparison.rows[run]
            part = rows[(rows["measure"] == "plant_memorized") & (rows["kind"] == kind)]
            yield from ((label, int(step), float(value)) for step, value in (part["value"] > 0.5).groupby(part["step"]).mean().items())


def runs_table(comparison: Comparison) -> Table:
    """One row per run: settings that differ, memorized plants, medians of emergence, localization and held-out loss."""
    kinds = [kind for kind in COUNTED if any(len(comparison.values(run, kind, "plant_memorized")) for run in comparison.rows)]
    maps = [name for name in _maps(comparison) if name not in TRIVIAL][:2]
    rows = []
    for run, measured in comparison.rows.items():
        last = int(measured["step"].max())
        cells = [Cell(value_text(values[run])) for values in comparison.settings.values()]
        cells += [Cell(str(comparison.seeds[run])), Cell(str(last), str(last))]
        copied = {kind: comparison.values(run, kind, "plant_memorized") > 0.5 for kind in kinds}
        cells += [count_cell(int(copied[kind].sum()), len(copied[kind])) for kind in kinds]
        cells += [_median_cell(comparison.tables.plants, run, kind, last) for kind in kinds if kind in PLANTED]
        cells += [_mean(comparison.values(run, "local", f"auc.{name}")) for name in maps]
        cells.append(_mean(comparison.values(run, "heldout", "denoising_loss"), ".4f"))
        rows.append(Row(run, cells))
    medians = [f"{kind}: median step of emergence" for kind in kinds if kind in PLANTED]
    head = [*comparison.labels.values(), "seed", "last step", *(f"{kind} memorized" for kind in kinds), *medians]
    head += [*(f"AUC of {name}" for name in maps), "held-out loss"]
    kept = [place for place in range(len(head)) if any(row.cells[place] is not NO_VALUE for row in rows)]
    return Table(["run", *(head[place] for place in kept)], [replace(row, cells=[row.cells[place] for place in kept]) for row in rows])


def _mean(values: np.ndarray, spec: str = ".2f") -> Cell:
    return number_cell(float(values.mean()), spec) if len(values) else NO_VALUE


def _median_cell(plants: pd.DataFrame, run: str, kind: str, last: int) -> Cell:
    part = plants[(plants["run"] == run) & (plants["kind"] == kind) & (plants["within"] == "")]
    if part.empty:
        return NO_VALUE
    step = median(part)
    return Cell(f"{step:.0f}", repr(step)) if np.isfinite(step) else Cell(f"after {last}", repr(2.0 * last))


def groups_table(comparison: Comparison) -> Table:
    """One row per group of runs that differ only in the seed: memorized plants and medians of emergence, pooled."""
    rows, plants = [], comparison.tables.plants
    kinds = [kind for kind in COUNTED if any(len(comparison.values(run, kind, "plant_memorized")) for run in comparison.rows)]
    for label, runs in comparison.groups.items():
        copied = {kind: np.concatenate([comparison.values(run, kind, "plant_memorized") for run in runs]) > 0.5 for kind in kinds}
        cells = [count_cell(int(values.sum()), len(values)) for values in copied.values()]
        for kind in (kind for kind in kinds if kind in PLANTED):
            part = plants[plants["run"].isin(runs) & (plants["kind"] == kind) & (plants["within"] == "")]
            cells.append(Cell(median_text(part.assign(unit=part["plant_id"]))) if len(part) else NO_VALUE)
        rows.append(Row(label, [Cell(str(len(runs))), *cells]))
    return Table(["setting", "runs", *(f"{kind} memorized" for kind in kinds), *(f"{k}: median step" for k in kinds if k in PLANTED)], rows)


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
        cells = [Cell(str(len(both)))]
        for kind in ("global", "local"):
            delay = paired.delay(label, kind) if len(own[own["kind"] == kind]) else None
            differences = [_difference(comparison, kind, *runs) for runs in both.values()]
            gain = bootstrap_run_values(differences) if all(map(len, differences)) else None
            cells += [NO_VALUE if gain is None else Cell(gain.text("+.0%"), repr(gain.value))]
            cells += [NO_VALUE if delay is None else Cell(delay.map(np.exp).text(), repr(float(np.exp(delay.value))))]
        rows.append(Row(label, cells))
    groups_head = [("", 2), ("global plants", 2), ("local plants", 2)]
    head = ["setting", "pairs of runs", *["memorized fraction", "factor of the step of emergence"] * 2]
    return Table(head, rows, groups_head) if rows else None


def _planted(comparison: Comparison, run: str) -> set[tuple]:
    plants = comparison.tables.plants
    return set(
        plants[(plants["run"] == run) & plants["kind"].isin(PLANTED)][["plant_id", "kind", "caption"]].itertuples(index=False, name=None)
    )


def _difference(comparison: Comparison, kind: str, first: str, second: str) -> np.ndarray:
    """Memorized (1 or 0) of each plant in the second run minus in the first."""
    one, two = (comparison.last[run] for run in (first, second))
    parts = [
        table[(table["measure"] == "plant_memorized") & (table["kind"] == kind)].set_index("plant_id")["value"] for table in (one, two)
    ]
    return ((parts[1] > 0.5).astype(float) - (parts[0] > 0.5)).dropna().to_numpy()


def _maps(comparison: Comparison) -> list[str]:
    names = {
        name.removeprefix("auc.") for table in comparison.last.values() for name in table["measure"].unique() if name.startswith("auc.")
    }
    return [name for name in dict.fromkeys((*MAIN_MAPS, *MAPS_WITHOUT_TEXT, *TRIVIAL)) if name in names]


def map_table(comparison: Comparison) -> Table | None:
    """Mean AUC of the main maps on local plants in each group; None without local plants."""
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
    heads = [("", 1), ("local plants", len(groups)), ("all runs, kinds without a copy", len(COMPARED_KINDS))]
    return Table(["map", *groups, *COMPARED_KINDS], rows, heads)


def runs_text(comparison: Comparison) -> str:
    """The groups as a table for the terminal."""
    table = groups_table(comparison)
    head = [name.removesuffix(" memorized") for name in table.head]
    return text_table(head, [[row.label, *(cell.text.partition(" (")[0] for cell in row.cells)] for row in table.rows])
