"""Emergence over many runs: tables, fits and figures of `afterglow emergence`. Method: docs/methods.md#scaling."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from afterglow.analysis.emergence_table import IN_MASK
from afterglow.analysis.scaling import Fit, Law, bootstrap_table, compare_laws, fit
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
    "there over a factor of 2 in steps ('none': it does not; 'not yet': it still falls). Overfitting: the last step within 5 %. Differs: "
    "the interval of the slope excludes the reference; the slope of tau_mem over n differs only if the law with an offset has a lower "
    "likelihood than the power law, too, which needs three values of n ('undecided' without)."
)
TITLES = {
    "f_mem": "Fraction of the generations with d1/d2 below 1/3, and the loss on held-out images",
    "tau_mem_n": "The step at which f_mem exceeds .1, against the number of training images",
}
AXES = {"step": "in steps", "exposures": "in exposures"}
TERMS = {"n": "the number of training images", "copies": "copies", "area": "the size of the region", "width": "the width of the network"}
REFERENCE_MEM, REFERENCE_GEN = {"n": 1.0, "width": -1.0}, {"n": 0.0}  # Bonnaire et al. 2025
TAU_MEM = {"tau_mem": "tau_mem", "tau_mem, calibrated": "calibrated"}  # name in tables: column of EmergenceTables.runs
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
    """A log-log fit, the axis of its intervals, and the slopes that are expected without an effect.

    name: a kind of plants, or a time of the model. within: of the plants. way: its text (EmergenceTables.ways). laws: {term: the power law
    and the offset law of the same intervals, None with fewer than three values} where they decide whether the slope departs.
    """

    name: str
    axis: str
    fit: Fit
    reference: dict[str, float]
    within: str = IN_MASK
    way: str = ""
    laws: Mapping[str, tuple[Law, Law] | None] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Name in files and for the tracker."""
        return keyed(self.name, self.within)


def keyed(name: str, within: str) -> str:
    """A name in files and for the tracker: 'local_outpainted'."""
    return name + within.replace(".", "_")


def model_fits(tables: EmergenceTables) -> list[NamedFit]:
    """tau_mem of models without plants by both rules, and tau_gen where it exists, against n and width, if the runs vary them."""
    runs = tables.runs.assign(unit=0)
    fits: list[tuple[str, pd.DataFrame, dict[str, float], tuple[str, ...]]]  # the last: terms whose verdict needs the laws
    fits = [(name, tau_mem_intervals(runs, name), REFERENCE_MEM, ("n",)) for name in TAU_MEM]
    general = runs[runs["tau_gen"] > 0]
    lower = (general["tau_gen"] / GENERALIZATION_WIDTH).where(np.isfinite(general["tau_gen"]), general["steps"])
    fits.append(("tau_gen", general.assign(lower=lower, upper=general["tau_gen"] * GENERALIZATION_WIDTH), REFERENCE_GEN, ()))
    return [
        NamedFit(name, "step", fit(table, terms), reference, laws={term: laws_of(table, term) for term in bent if term in terms})
        for name, table, reference, bent in fits
        if (terms := varying_terms(table, ("n", "width"))) and np.isfinite(table["upper"]).any()
    ]


def tau_mem_intervals(runs: pd.DataFrame, name: str) -> pd.DataFrame:
    """The runs with a tau_mem of a name of TAU_MEM; lower, upper: the evaluations between which it lies."""
    column = TAU_MEM[name]
    known = runs[runs[column].notna()]
    return known.assign(lower=known[f"{column}_lower"], upper=known[f"{column}_upper"])


def laws_of(table: pd.DataFrame, term: str) -> tuple[Law, Law] | None:
    """The power law and the law with an offset; None with fewer than three values of the term, which both laws fit, or if none emerged."""
    fitted = table[term].nunique() > 2 and np.isfinite(table["upper"]).any()
    return compare_laws(table, term) if fitted else None


def laws_section(runs: pd.DataFrame, terms: Mapping[str, str]) -> Section:
    """The power law and the law with an offset for tau_mem, with equal numbers of parameters. terms: {column of runs: its meaning}."""
    rows = []
    for name in TAU_MEM:
        for term, meaning in terms.items():
            for law in laws_of(tau_mem_intervals(runs, name), term) or ():
                values = ", ".join(f"{key} = {value:.3g}" for key, value in law.parameters.items())
                rows.append([name, meaning, law.formula.replace(term, "x"), values, f"{law.negative_log_likelihood:.1f}"])
    head = ["emergence of", "x", "law", "parameters", "minus log-likelihood"]
    return Section("Power law and linear law with an offset", head=head, rows=rows)


def plant_fits(tables: EmergenceTables, axes: Sequence[str] = ("step", "exposures")) -> list[NamedFit]:
    """Emergence of global and of local plants in each way against n, copies, area and width, on steps and on exposures.

    The reference on steps is what exposure alone would give for these runs: the slopes of -ln(exposures per step). On exposures it is 0.
    """
    fits = []
    for within, way, kind in ((within, way, kind) for within, way in tables.ways.items() for kind in _PLANTED):
        table = plants_of_kind(tables.plants, kind, within)
        terms = varying_terms(table, ("n", "copies", "width") + (("area",) if kind == "local" else ()))
        if not terms or not np.isfinite(table["upper"]).any():
            continue
        design = np.column_stack([*(np.log(table[name].to_numpy(float)) for name in terms), np.ones(len(table))])
        slopes = np.linalg.lstsq(design, -np.log(table["rate"].to_numpy(float)), rcond=None)[0]
        reference = {name: round(float(value), 2) + 0.0 for name, value in zip(terms, slopes, strict=False)}
        references = {"step": reference, "exposures": dict.fromkeys(terms, 0.0)}
        fits += [NamedFit(kind, axis, fit(on_axis(table, axis), terms), references[axis], within, way) for axis in axes]
    return fits


def plants_of_kind(plants: pd.DataFrame, kind: str, within: str = IN_MASK) -> pd.DataFrame:
    """The plants of a kind, measured in their own masks or in another way; each plant is a unit of the bootstrap."""
    table = plants_in(plants, within)
    return table[table["kind"] == kind] if len(table) else table


def plants_in(plants: pd.DataFrame, within: str) -> pd.DataFrame:
    """The plants measured in one way; each plant is a unit of the bootstrap."""
    return plants[plants["within"] == within].assign(unit=lambda table: table["plant_id"]) if len(plants) else plants


def slopes_section(fits: Sequence[NamedFit]) -> Section:
    """One row per slope: value with interval, the reference, whether they differ."""
    rows = []
    for named in fits:
        for term, slope in named.fit.slopes.items():
            reference = named.reference.get(term)
            verdict = ["-", "-"] if reference is None else [f"{reference:g}", _differs(named, term, slope)]
            counts = f"{named.fit.intervals} in {named.fit.runs} runs, {named.fit.censored} not emerged"
            rows.append([named.name + named.way, named.axis, f"ln {term}", interval_text(slope), *verdict, counts])
    head = ["emergence of", "axis", "slope on", "value", "reference", "differs", "intervals"]
    return Section("Slopes of ln(emergence)", head=head, rows=rows)


def _differs(named: NamedFit, term: str, slope: Estimate) -> str:
    reference = named.reference[term]
    found = growth_departs(slope, reference, named.laws[term]) if term in named.laws else departs(slope, reference)
    return "undecided" if found is None else "yes" if found else "no"


def growth_departs(slope: Estimate, reference: float, laws: tuple[Law, Law] | None) -> bool | None:
    """Whether a slope of tau_mem over n departs from its reference (docs/methods.md#scaling); None, undecided, without laws.

    The interval excludes the reference, and the offset law has a lower likelihood than the power law: an offset bends a log-log line, so
    that the slope alone does not show a departure.
    """
    if laws is None:
        return None
    power, offset = laws
    return offset.negative_log_likelihood > power.negative_log_likelihood and departs(slope, reference)


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
    """One row per kind, way, set size and copies: how many distinct plants emerged, and the median with that of each seed."""
    rows, plants = [], tables.plants
    kinds = [kind for kind in KINDS if len(plants) and kind in set(plants["kind"])]
    for within, way, kind in ((within, way, kind) for within, way in tables.ways.items() for kind in kinds):
        for (n, copies), part in plants_of_kind(plants, kind, within).groupby(["n", "copies"]):
            medians = [median_text(table) if len(table) else "-" for table in (on_axis(part, axis) for axis in AXES)]
            distinct = np.isfinite(part["upper"]).groupby([part["seed"], part["caption"]]).any()  # the two arms share their phantoms
            emerged = count_text(int(distinct.sum()), len(distinct))
            rows.append([kind + way, f"{n:g}", f"{copies:g}", emerged, *medians])
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
    """The step by which half of the plants have emerged, by Turnbull's estimate; infinite if the runs end earlier."""
    return interval_quantile([Interval(a, b) for a, b in zip(table["lower"].tolist(), table["upper"].tolist(), strict=True)], 0.5)


def emergence_figures(tables: EmergenceTables, fits: Sequence[NamedFit]) -> dict[str, tuple[str, Figure]]:
    """{name: title and figure} of everything that the runs vary; each title says when something counts as memorized."""
    figures: dict[str, tuple[str, Figure]] = {}
    if len(tables.fractions):
        figures["f_mem"] = TITLES["f_mem"], f_mem_curves(tables.fractions, tables.losses)
    runs = tables.runs[tables.runs["tau_mem"].notna()]
    tau = next((named for named in fits if named.name == "tau_mem"), None)
    if tau and "n" in tau.fit.slopes:
        intervals = runs.assign(lower=runs["tau_mem_lower"], upper=runs["tau_mem_upper"], kind="unprompted")
        figures["tau_mem_n"] = TITLES["tau_mem_n"], interval_plot(intervals, "n", tau.fit, slope=1.0, axis="step")
    for within, way in tables.ways.items() if len(tables.plants) else ():
        rule = tables.definition_of(within)
        for axis, unit in AXES.items():
            title = f"Fraction of the plants that have emerged{way} (Turnbull, {unit}); {rule}"
            figures[keyed(f"emerged_{axis}", within)] = title, emergence_curves(plants_in(tables.plants, within), axis=axis)
            for named in (named for named in fits if named.name in _PLANTED and (named.within, named.axis) == (within, axis)):
                table = on_axis(plants_of_kind(tables.plants, named.name, within), axis)
                for term in named.fit.slopes:
                    title = f"When {named.name} plants emerge{way} ({unit}), against {TERMS[term]}; {rule}"
                    figure = interval_plot(table, term, named.fit, slope=named.reference.get(term), axis=axis)
                    figures[keyed(f"{named.name}_{term}_{axis}", within)] = title, figure
    return figures


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
    drawn = [(name, title, Markup(to_svg(figure, name))) for name, (title, figure) in figures.items()]
    contents = {"title": "Emergence of memorization", "sections": sections, "notes": tables.notes, "figures": drawn, "about": NOTES}
    page = render("emergence.html.jinja", contents, {})
    (out / "emergence.html").write_text(page, encoding="utf-8")
    for name, (_, figure) in figures.items():
        figure.savefig(out / f"{name}.png", dpi=150, facecolor="white")
    numbers = {f"emergence/{named.key}/{named.axis}/{term}": slope.value for named in fits for term, slope in named.fit.slopes.items()}
    text = "\n\n".join([*tables.notes, *(f"{section.title}\n\n{section.text()}" for section in sections)])
    return text, numbers, {f"media/{name}": out / f"{name}.png" for name in figures}
