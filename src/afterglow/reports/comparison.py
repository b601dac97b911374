"""Several runs on one page: emergence and localization against the settings in which they differ, and differences of paired runs."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from afterglow.analysis.emergence_table import IN_MASK
from afterglow.analysis.scaling import fit
from afterglow.cache import atomic_path
from afterglow.errors import AfterglowError
from afterglow.functional.statistics import Estimate
from afterglow.kinds import PLANTED
from afterglow.reports import comparison_charts as charts
from afterglow.reports.comparison_runs import AXIS_COLUMNS, COUNTED, Comparison, order_of, value_text
from afterglow.reports.comparison_tables import effects_table, groups_table, map_table, paired_groups_table, runs_table
from afterglow.reports.emergence import TERMS, NamedFit, keyed, model_fits, plant_fits, plants_in
from afterglow.reports.page import join, render
from afterglow.reports.paired_plants import LOCAL, PairedPlants, pair_plants, paired_text
from afterglow.reports.runs import EmergenceTables
from afterglow.reports.tables import order_text


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
    """The first sentences, one for each way: local plants against global ones, by which factor; or how many emerged."""
    tables, count, sentences = comparison.tables, _count(len(comparison.rows), "run"), []
    for within, way in tables.ways.items():
        if within == IN_MASK and paired is not None:
            factor = paired.difference.map(np.exp)
            found = f"Local plants were {order_text(factor)} the same images planted whole: {_factor(factor)}, in paired runs"
        else:
            found = _unpaired(tables, within, count)
        sentences += [f"{found}{way}."] if found else []
    if sentences:
        return " ".join(sentences)
    memorized = tables.runs["tau_mem"]
    if memorized.notna().any():
        return f"The generations came to copy training images in {int(np.isfinite(memorized).sum())} of {count} (f_mem above .1)."
    return f"Nothing was planted in {count}."


def _unpaired(tables: EmergenceTables, within: str, count: str) -> str:
    """Local against global plants of all runs, measured in one way; empty without plants. count: of the runs, in words."""
    plants = plants_in(tables.plants, within)
    table = plants[plants["kind"].isin(["global", "local"])] if len(plants) else plants
    if len(table) and table[np.isfinite(table["upper"])]["kind"].nunique() == 2:  # otherwise the factor has no bound
        table = table.assign(**{LOCAL: np.where(table["kind"] == "local", np.e, 1.0)})
        varying = [name for name in AXIS_COLUMNS if table[name].notna().all() and table[name].nunique() > 1]
        found = _try_fit(table, [LOCAL, *varying], LOCAL) or _try_fit(table, [LOCAL], LOCAL)
        if found is not None:
            return f"Local plants were {order_text(found)} global plants: {_factor(found)}, over {count}"
    emerged = {kind: part["upper"] for kind, part in table.groupby("kind")} if len(table) else {}
    parts = [f"{int(np.isfinite(upper).sum())} of {len(upper)} {kind}" for kind, upper in emerged.items()]
    return f"{join(parts)} plants emerged in {count}" if parts else ""


def _try_fit(table: pd.DataFrame, terms: list[str], term: str) -> Estimate | None:
    try:
        return fit(table, terms).slopes[term].map(np.exp)
    except AfterglowError:  # the runs do not tell the terms apart
        return None


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


def _differ(comparison: Comparison) -> str:
    parts = []
    for name, values in comparison.settings.items():
        texts = dict.fromkeys(value_text(value) for value in sorted(values.values(), key=order_of))
        parts.append(f"{comparison.labels[name]} ({', '.join(texts) if len(texts) <= 8 else f'{len(texts)} values'})")
    seeds = sorted(set(comparison.seeds.values()))
    parts += [f"seed ({', '.join(map(str, seeds))})"] if len(seeds) > 1 else []
    return f"The runs differ in {join(parts)}." if parts else ""


def _charts(comparison: Comparison) -> dict[str, tuple[str, dict[str, Any]]]:
    """{id: title and specification}."""
    found: dict[str, tuple[str, dict[str, Any] | None]] = {}
    for within, way in comparison.tables.ways.items():
        plants = plants_in(comparison.tables.plants, within)
        plants = plants[plants["kind"].isin(PLANTED)] if len(plants) else plants
        if len(plants) and np.isfinite(plants["upper"]).any():
            axes = {name: plants[name].tolist() for name in AXIS_COLUMNS if plants[name].nunique() > 1}
            others = [name for name in comparison.settings if comparison.labels[name] not in (*AXIS_COLUMNS, "arm", "max_steps")]
            axes |= {comparison.labels[name]: [value_text(comparison.settings[name][run]) for run in plants["run"]] for name in others}
            for place, (label, values) in enumerate((axes or {"kind": plants["kind"].tolist()}).items()):
                spec = charts.emergence_against(plants.assign(x=values), label)
                found[keyed(f"against-{place}", within)] = (f"Emergence against {TERMS.get(label, label)}{way}", spec)
        for kind in COUNTED:
            title = "Memorized phantoms (false positives)" if kind == "phantom" else f"Memorized {kind} plants"
            curves = charts.group_curves(_fractions(comparison, kind, within), "memorized fraction")
            found[keyed(f"memorized-{kind}", within)] = (title + way, curves)
    shares = comparison.tables.fractions
    if len(shares):
        group = {run: label for label, runs in comparison.groups.items() for run in runs}
        rows = [(group[run], int(step), value) for run, step, value in shares[["run", "step", "f_mem"]].itertuples(index=False)]
        found["f_mem"] = ("Generations that copy a training image (f_mem)", charts.group_curves(rows, "f_mem"))
    return {name: (title, spec) for name, (title, spec) in found.items() if spec}


def _fractions(comparison: Comparison, kind: str, within: str) -> Iterable[tuple[str, int, float]]:
    for label, runs in comparison.groups.items():
        for run in runs:
            rows = comparison.rows[run]
            part = rows[(rows["measure"] == f"plant_memorized{within}") & (rows["kind"] == kind)]
            yield from ((label, int(step), float(value)) for step, value in (part["value"] > 0.5).groupby(part["step"]).mean().items())
