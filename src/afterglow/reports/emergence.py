"""Emergence over many runs: tables, fits and figures of `afterglow emergence`. Method: docs/methods.md#scaling."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from afterglow.analysis.scaling import Fit, bootstrap_table, compare_laws, fit
from afterglow.functional.statistics import Estimate, is_few
from afterglow.functional.survival import Interval, interval_quantile
from afterglow.kinds import KINDS
from afterglow.reports.emergence_figures import emergence_curves, f_mem_curves, interval_plot, on_axis
from afterglow.reports.figures import to_svg
from afterglow.reports.page import render
from afterglow.reports.paired_plants import pair_plants, paired_text, varying_terms
from afterglow.reports.runs import EmergenceTables
from afterglow.reports.tables import count_text, interval_text, text_table

_PLANTED = ("global", "local")
NOTES = (
    "Brackets hold 95 % intervals: t intervals over two to four seeds, otherwise a bootstrap that resamples seeds, then runs, then plants. "
    "Bars are the evaluations between which each plant emerged. f_mem: fraction of the generations with d1/d2 below 1/3. tau_mem: the "
    "step at which f_mem exceeds .1. tau_gen: the first step at which the held-out loss is within 5 % of its minimum, only where it stays "
    "there over a factor of 2 in steps ('none': it does not; 'not yet': it still falls). Overfitting: the last step within 5 %."
)
TITLES = {
    "f_mem": "Fraction of the generations with d1/d2 below 1/3, and the loss on held-out images",
    "tau_mem_n": "The step at which f_mem exceeds .1, against the number of training images",
    "emerged_step": "Fraction of the plants that have emerged (Turnbull), over steps",
    "emerged_exposures": "Fraction of the plants that have emerged (Turnbull), over exposures",
}
AXES = {"step": "in steps", "exposures": "in exposures"}
TERMS = {"n": "the number of training images", "copies": "copies", "area": "the size of the region", "width": "the width of the network"}
REFERENCE_MEM, REFERENCE_GEN = {"n": 1.0, "width": -1.0}, {"n": 0.0}  # Bonnaire et al. 2025
PRINTED_PRECISION = 0.01  # of slopes
GENERALIZATION_WIDTH = 1.12  # tau_gen is a step of a curve, not an interval: half the distance of two evaluations to both sides


@dataclass(frozen=True)
class Section:
    """A title with a sentence, a table, or both."""

    title: str
    sentence: str = ""
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()

    def text(self) -> str:
        """Markdown."""
        return "\n\n".join(part for part in (self.sentence, text_table(self.head, self.rows) if self.rows else "") if part)


@dataclass(frozen=True)
class NamedFit:
    """A log-log fit, the axis of its intervals, and the slopes that are expected without an effect."""

    name: str
    axis: str
    fit: Fit
    reference: dict[str, float]


def model_fits(tables: EmergenceTables) -> list[NamedFit]:
    """tau_mem of models without plants by both rules, and tau_gen where it exists, against n and width, if the runs vary them."""
    runs, fits = tables.runs.assign(unit=0), []
    for name, column in (("tau_mem", "tau_mem"), ("tau_mem, calibrated", "calibrated")):
        known = runs[runs[column].notna()]
        known = known.assign(lower=known[f"{column}_lower"], upper=known[f"{column}_upper"])
        fits.append((name, known, REFERENCE_MEM))
    general = runs[runs["tau_gen"] > 0]
    lower = (general["tau_gen"] / GENERALIZATION_WIDTH).where(np.isfinite(general["tau_gen"]), general["steps"])
    fits.append(("tau_gen", general.assign(lower=lower, upper=general["tau_gen"] * GENERALIZATION_WIDTH), REFERENCE_GEN))
    return [
        NamedFit(name, "step", fit(table, terms), reference)
        for name, table, reference in fits
        if (terms := varying_terms(table, ("n", "width"))) and np.isfinite(table["upper"]).any()
    ]


def laws_section(runs: pd.DataFrame, terms: Mapping[str, str]) -> Section:
    """The power law and the law with an offset for tau_mem, with equal numbers of parameters. terms: {column of runs: its meaning}."""
    rows = []
    for name, column in (("tau_mem", "tau_mem"), ("tau_mem, calibrated", "calibrated")):
        known = runs[runs[column].notna()]
        known = known.assign(lower=known[f"{column}_lower"], upper=known[f"{column}_upper"])
        for term, meaning in terms.items():
            if known[term].nunique() > 2 and np.isfinite(known["upper"]).any():
                for law in compare_laws(known, term):
                    values = ", ".join(f"{key} = {value:.3g}" for key, value in law.parameters.items())
                    rows.append([name, meaning, law.formula.replace(term, "x"), values, f"{law.negative_log_likelihood:.1f}"])
    head = ["emergence of", "x", "law", "parameters", "minus log-likelihood"]
    return Section("Power law and linear law with an offset", head=head, rows=rows)


def plant_fits(tables: EmergenceTables, axes: Sequence[str] = ("step", "exposures")) -> list[NamedFit]:
    """Emergence of global and of local plants against n, copies, area and width, on steps and on exposures.

    The reference on steps is what exposure alone would give for these runs: the slopes of -ln(exposures per step). On exposures it is 0.
    """
    fits = []
    for kind in _PLANTED:
        table = plants_of_kind(tables.plants, kind)
        terms = varying_terms(table, ("n", "copies", "width") + (("area",) if kind == "local" else ()))
        if not terms or not np.isfinite(table["upper"]).any():
            continue
        design = np.column_stack([*(np.log(table[name].to_numpy(float)) for name in terms), np.ones(len(table))])
        slopes = np.linalg.lstsq(design, -np.log(table["rate"].to_numpy(float)), rcond=None)[0]
        reference = {name: round(float(value), 2) + 0.0 for name, value in zip(terms, slopes, strict=False)}
        references = {"step": reference, "exposures": dict.fromkeys(terms, 0.0)}
        fits += [NamedFit(kind, axis, fit(on_axis(table, axis), terms), references[axis]) for axis in axes]
    return fits


def plants_of_kind(plants: pd.DataFrame, kind: str) -> pd.DataFrame:
    """The plants of a kind, measured in their own masks; each plant is a unit of the bootstrap."""
    table = plants[(plants["kind"] == kind) & (plants["within"] == "")] if len(plants) else plants
    return table.assign(unit=table["plant_id"]) if len(table) else table


def slopes_section(fits: Sequence[NamedFit]) -> Section:
    """One row per slope: value with interval, the reference, whether they differ."""
    rows = []
    for named in fits:
        for term, slope in named.fit.slopes.items():
            reference = named.reference.get(term)
            verdict = ["-", "-"] if reference is None else [f"{reference:g}", "yes" if departs(slope, reference) else "no"]
            counts = f"{named.fit.intervals} in {named.fit.runs} runs, {named.fit.censored} not emerged"
            rows.append([named.name, named.axis, f"ln {term}", interval_text(slope), *verdict, counts])
    head = ["emergence of", "axis", "slope on", "value", "reference", "differs", "intervals"]
    return Section("Slopes of ln(emergence)", head=head, rows=rows)


def departs(slope: Estimate, reference: float) -> bool:
    """Whether the reference lies outside the interval, to the printed precision."""
    return not slope.low - PRINTED_PRECISION / 2 <= reference <= slope.high + PRINTED_PRECISION / 2


def runs_section(tables: EmergenceTables) -> Section:
    """One row per set size and width: tau_mem and tau_gen of its runs."""
    rows = []
    for (n, width), part in tables.runs[tables.runs["tau_mem"].notna()].groupby(["n", "width"]):
        names = ("tau_mem", "calibrated", "tau_gen", "overfitting")
        times = [
            _times(part[name], "not yet" if name == "tau_gen" else f"after {part['steps'].max()}", "none" if name == "tau_gen" else "-")
            for name in names
        ]
        exposures = ", ".join("-" if np.isinf(v) else f"{v:.0f}" for v in sorted(part["tau_mem"] * part["batch"] / part["n"]))
        rows.append([f"{n:g}", f"{width:g}", str(len(part)), *times, exposures])
    rules = ["tau_mem by d1/d2 (steps)", "by the calibrated distance", "tau_gen", "onset of overfitting"]
    head = ["n", "width", "runs", *rules, "tau_mem by d1/d2 (exposures of an image)"]
    return Section("Memorization and generalization of models without captions", head=head, rows=rows)


def _times(values: pd.Series, later: str, missing: str) -> str:
    """Steps in rising order; `later` for infinite ones, `missing` for those that a run does not have."""
    return (
        missing
        if values.isna().all()
        else ", ".join(missing if np.isnan(value) else later if np.isinf(value) else f"{value:.0f}" for value in sorted(values))
    )


def medians_section(tables: EmergenceTables) -> Section:
    """One row per kind, set size and number of copies: how many distinct plants emerged, and the median with that of each seed."""
    rows = []
    plants = tables.plants[tables.plants["within"] == ""] if len(tables.plants) else tables.plants
    for kind in [kind for kind in KINDS if len(plants) and kind in set(plants["kind"])]:
        for (n, copies), part in plants[plants["kind"] == kind].groupby(["n", "copies"]):
            part = part.assign(unit=part["plant_id"])
            medians = [median_text(table) if len(table) else "-" for table in (on_axis(part, axis) for axis in AXES)]
            distinct = np.isfinite(part["upper"]).groupby([part["seed"], part["caption"]]).any()  # the two arms share their phantoms
            emerged = count_text(int(distinct.sum()), len(distinct))
            rows.append([kind, f"{n:g}", f"{copies:g}", emerged, *medians])
    head = ["kind", "n", "copies", "distinct plants emerged (95 %, Wilson)", "median step", "median exposures"]
    return Section("Emergence of plants", head=head, rows=rows)


def median_text(table: pd.DataFrame) -> str:
    """Median emergence with the medians of two to four seeds, or else its interval; 'later' if it lies after the end of the runs."""
    if is_few(table["seed"].tolist()):
        values = [median(table), *(median(part) for _, part in table.groupby("seed"))]
        first, *seeds = ("later" if not np.isfinite(v) else f"{v:.0f}" for v in values)
        return f"{first} (seeds: {', '.join(seeds)})"
    estimate = bootstrap_table(table, median)
    value, low, high = ("later" if not np.isfinite(v) else f"{v:.0f}" for v in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]"


def median(table: pd.DataFrame) -> float:
    """The step by which half of the plants have emerged, by Turnbull's estimate; infinite if the runs end before."""
    return interval_quantile([Interval(a, b) for a, b in zip(table["lower"].tolist(), table["upper"].tolist(), strict=True)], 0.5)


def emergence_figures(tables: EmergenceTables, fits: Sequence[NamedFit]) -> dict[str, Figure]:
    """{name: figure} of everything that the runs vary."""
    figures: dict[str, Figure] = {}
    if len(tables.fractions):
        figures["f_mem"] = f_mem_curves(tables.fractions, tables.losses)
    by_name = {(named.name, named.axis): named for named in fits}
    runs, tau = tables.runs[tables.runs["tau_mem"].notna()], by_name.get(("tau_mem", "step"))
    if tau and "n" in tau.fit.slopes:
        intervals = runs.assign(lower=runs["tau_mem_lower"], upper=runs["tau_mem_upper"], kind="unprompted")
        figures["tau_mem_n"] = interval_plot(intervals, "n", tau.fit, slope=1.0, axis="step")
    plants = tables.plants[tables.plants["within"] == ""] if len(tables.plants) else tables.plants
    for axis in AXES if len(plants) else ():
        figures[f"emerged_{axis}"] = emergence_curves(plants.assign(unit=plants["plant_id"]), axis=axis)
        for named in (named for (name, where), named in by_name.items() if where == axis and name in _PLANTED):
            table = on_axis(plants_of_kind(tables.plants, named.name), axis)
            for term in named.fit.slopes:
                slope = named.reference.get(term)
                figures[f"{named.name}_{term}_{axis}"] = interval_plot(table, term, named.fit, slope=slope, axis=axis)
    return figures


def _title(name: str) -> str:
    if name in TITLES:
        return TITLES[name]
    kind, term, axis = name.split("_")
    return f"When {kind} plants emerge ({AXES[axis]}), against {TERMS[term]}"


def emergence_sections(tables: EmergenceTables, fits: Sequence[NamedFit]) -> list[Section]:
    """All tables and sentences; a section that the runs cannot fill is absent."""
    paired = [Section("Local against global, template by template", paired_text(pair_plants(tables)))] if len(tables.plants) else []
    laws = laws_section(tables.runs, {"n": "training images"})
    sections = [runs_section(tables), laws, medians_section(tables), *paired, slopes_section(fits)]
    return [section for section in sections if section.sentence or section.rows]


def write_emergence(tables: EmergenceTables, out: Path) -> tuple[str, dict[str, float], dict[str, Path]]:
    """Write tables, figures and emergence.html into a folder.

    Returns:
        The text for the terminal, and numbers and images for the tracker, by key.
    """
    out.mkdir(parents=True, exist_ok=True)
    fits = [*model_fits(tables), *plant_fits(tables)]
    figures, sections = emergence_figures(tables, fits), emergence_sections(tables, fits)
    for name in ("plants", "runs", "fractions", "losses"):
        table: pd.DataFrame = getattr(tables, name)
        table.to_parquet(out / f"{name}.parquet", index=False)
    drawn = [(name, _title(name), Markup(to_svg(figure, name))) for name, figure in figures.items()]
    contents = {"title": "Emergence of memorization", "sections": sections, "notes": tables.notes, "figures": drawn, "about": NOTES}
    page = render("emergence.html.jinja", contents, {})
    (out / "emergence.html").write_text(page, encoding="utf-8")
    for name, figure in figures.items():
        figure.savefig(out / f"{name}.png", dpi=150, facecolor="white")
    numbers = {f"emergence/{named.name}/{named.axis}/{term}": slope.value for named in fits for term, slope in named.fit.slopes.items()}
    text = "\n\n".join([*tables.notes, *(f"{section.title}\n\n{section.text()}" for section in sections)])
    return text, numbers, {f"media/{name}": out / f"{name}.png" for name in figures}
