"""When memorization emerges in many runs: the tables, fits and figures of `analysis/emergence.py` and of the finding."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from afterglow.analysis.emergence import quantile
from afterglow.analysis.scaling import Estimate, Fit, fit, over_runs
from afterglow.functional.statistics import wilson_interval
from afterglow.functional.survival import Interval
from afterglow.reports.bench import text_table
from afterglow.reports.emergence_figures import against, emergence_curves, on_axis, share_curves
from afterglow.reports.figures import to_svg
from afterglow.reports.kinds import KINDS
from afterglow.reports.runs import EmergenceTables

PLANTED = ("global", "local")
ABOUT = (
    "Brackets hold 95 % intervals that resample runs first and plants within runs second; bars are the probes between which each emerged. "
    "f_mem: share of the generations with d1/d2 under 1/3; tau_mem: the step at which it passes .1; tau_gen: the first step at which the "
    "held-out loss is within 5 % of its minimum ('not yet' where that is the last probe)."
)
TITLES = {
    "f_mem": "Share of generations with d1/d2 under 1/3, and the loss of held-out images under it",
    "tau_mem_n": "The step at which f_mem passes .1, against the number of training images",
    "emerged_step": "Share of the plants that have emerged (Turnbull), over steps",
    "emerged_exposures": "The same over exposures",
}
AXES = {"step": "in steps", "exposures": "in exposures"}
TERMS = {"n": "the number of training images", "copies": "copies", "area": "the size of the region", "width": "the width of the network"}
REFERENCE_MEM, REFERENCE_GEN = {"n": 1.0, "width": -1.0}, {"n": 0.0}  # Bonnaire et al. 2025
PRINTED = 0.01  # the last decimal of slopes
LOCAL = "local"  # the term of the paired comparison: e for a local plant, 1 for a global one


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
class Fitted:
    """One log-log fit: of what, on which axis, and the slopes that would be no finding."""

    name: str
    axis: str
    fit: Fit
    reference: dict[str, float]


def model_fits(emerged: EmergenceTables) -> list[Fitted]:
    """Experiment (i): tau_mem and tau_gen against n and width, as far as the runs vary them."""
    runs = emerged.runs.assign(unit=0)
    found = []
    for name, axis, reference in (("tau_mem", "step", REFERENCE_MEM), ("tau_gen", "step", REFERENCE_GEN)):
        table = runs[runs[name].notna()]
        if name == "tau_mem":
            table = table.assign(lower=table["tau_mem_lower"], upper=table["tau_mem_upper"])
        else:  # a minimum of a curve is a step, not an interval: half a probe's distance either way
            table = table[table["tau_gen"] > 0]
            reached = np.isfinite(table["tau_gen"])
            table = table.assign(lower=(table["tau_gen"] / 1.12).where(reached, table["steps"]), upper=table["tau_gen"] * 1.12)
        terms = _varied(table, ("n", "width"))
        if terms and np.isfinite(table["upper"]).any():
            found.append(Fitted(name, axis, fit(table, terms), reference))
    return found


def plant_fits(emerged: EmergenceTables) -> list[Fitted]:
    """Experiment (ii): emergence of global and of local plants against n, copies, area and width, on steps and on exposures.

    What exposure alone would give is reckoned for these very runs: the slopes of -ln(exposures a step), of which a = 1 and b = -1 are
    the limit of n far over the sum of copies; on the exposure axis it is 0.
    """
    found = []
    for kind in PLANTED:
        table = of_kind(emerged.plants, kind)
        terms = _varied(table, ("n", "copies", "width") + (("area",) if kind == "local" else ()))
        if not terms or not np.isfinite(table["upper"]).any():
            continue  # also where there are no plants
        design = np.column_stack([*(np.log(table[name].to_numpy(float)) for name in terms), np.ones(len(table))])
        alone = np.linalg.lstsq(design, -np.log(table["rate"].to_numpy(float)), rcond=None)[0]
        reference = {name: round(float(value), 2) + 0.0 for name, value in zip(terms, alone, strict=False)}
        found.append(Fitted(kind, "step", fit(table, terms), reference))
        found.append(Fitted(kind, "exposures", fit(on_axis(table, "exposures"), terms), dict.fromkeys(terms, 0.0)))
    return found


def _varied(table: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Columns that a fit can use: numbers that take more than one value."""
    return [name for name in names if name in table and table[name].notna().all() and table[name].nunique() > 1]


def of_kind(plants: pd.DataFrame, kind: str) -> pd.DataFrame:
    """The plants of a kind, judged in their own masks; a unit is a plant."""
    table = plants[(plants["kind"] == kind) & (plants["within"] == "")] if len(plants) else plants
    return table.assign(unit=table["plant_id"]) if len(table) else table


@dataclass(frozen=True)
class Paired:
    """Templates planted whole in one run and as a region in its twin, judged in the same region.

    difference: of ln step, local less global (above 0: local later); first: how many of the pairs local emerged first in, second, or
    in the same interval (or neither did).
    """

    difference: Estimate
    pairs: int
    runs: int
    local_first: int
    global_first: int
    open: int


def pairs_of(emerged: EmergenceTables) -> pd.DataFrame:
    """A row for each of the two intervals of a pair: run (the two runs), unit (the template), local (e or 1), n, copies, lower, upper."""
    plants = emerged.plants
    if not len(plants) or plants["arm"].isna().all():
        return pd.DataFrame()
    chosen = plants[
        ((plants["kind"] == "local") & (plants["within"] == "")) | ((plants["kind"] == "global") & (plants["within"] == ".region"))
    ]
    table = chosen.assign(run=[f"{n:g}-{seed}" for n, seed in zip(chosen["n"], chosen["seed"], strict=True)], unit=chosen["plant_id"])
    table[LOCAL] = np.where(table["kind"] == "local", np.e, 1.0)
    both = table.groupby(["run", "unit"])["kind"].transform("nunique") == 2
    return table[both].sort_values(["run", "unit", "kind"])


def paired(emerged: EmergenceTables) -> Paired | None:
    """The difference of log emergence at equal n and copies, by the censored fit with templates of twin runs resampled together."""
    table = pairs_of(emerged)
    if not len(table) or not np.isfinite(table["upper"]).any():
        return None
    found = fit(table, [LOCAL, *_varied(table, ("n", "copies"))])
    wide = table.set_index(["run", "unit", "kind"])[["lower", "upper"]].unstack("kind")
    local = (wide["upper", "local"] <= wide["lower", "global"]).sum()
    whole = (wide["upper", "global"] <= wide["lower", "local"]).sum()
    return Paired(found.slopes[LOCAL], len(wide), table["run"].nunique(), int(local), int(whole), int(len(wide) - local - whole))


def slopes_section(fits: Sequence[Fitted]) -> Section:
    """A row a slope: value with interval, the reference, whether the interval holds it."""
    rows = []
    for fitted in fits:
        for term, slope in fitted.fit.slopes.items():
            reference = fitted.reference.get(term)
            verdict = "-" if reference is None else "departs from it" if departs(slope, reference) else "as the reference"
            counts = f"{fitted.fit.intervals} in {fitted.fit.runs} runs, {fitted.fit.censored} censored"
            shown = "-" if reference is None else f"{reference:g}"
            rows.append([fitted.name, fitted.axis, f"ln {term}", estimate(slope), shown, verdict, counts])
    head = ["of", "axis", "slope on", "value", "reference", "", "intervals"]
    return Section("Slopes of ln(emergence)", head=head, rows=rows)


def departs(slope: Estimate, reference: float) -> bool:
    """Whether the reference lies outside the interval, as far as the two decimals show that are printed."""
    return not slope.low - PRINTED / 2 <= reference <= slope.high + PRINTED / 2


def estimate(one: Estimate) -> str:
    """'0.98 [0.91, 1.05]'."""
    return f"{one.value:.2f} [{one.low:.2f}, {one.high:.2f}]"


def runs_section(emerged: EmergenceTables) -> Section:
    """A row for each set size (and width): tau_mem and tau_gen of its runs."""
    rows = []
    for (n, width), part in emerged.runs.groupby(["n", "width"]):
        seen = part[part["tau_mem"].notna()]
        if not len(seen):
            continue
        values = [", ".join("not yet" if np.isinf(v) else f"{v:.0f}" for v in sorted(seen[name])) for name in ("tau_mem", "tau_gen")]
        exposures = ", ".join("-" if np.isinf(v) else f"{v:.0f}" for v in sorted(seen["tau_mem"] * seen["batch"] / seen["n"]))
        rows.append([f"{n:g}", f"{width:g}", str(len(seen)), *values, exposures])
    head = ["n", "width", "runs", "tau_mem (steps)", "tau_gen (steps)", "tau_mem (exposures of an image)"]
    return Section("When a model without captions memorizes, and when it generalizes", head=head, rows=rows)


def medians_section(emerged: EmergenceTables) -> Section:
    """A row for each kind, set size and number of copies: how many emerged, and the median with its interval over runs."""
    rows = []
    plants = emerged.plants[emerged.plants["within"] == ""] if len(emerged.plants) else emerged.plants
    for kind in [kind for kind in KINDS if len(plants) and kind in set(plants["kind"])]:
        for (n, copies), part in plants[plants["kind"] == kind].groupby(["n", "copies"]):
            part = part.assign(unit=part["plant_id"])
            out = int(np.isfinite(part["upper"]).sum())
            low, high = wilson_interval(out, len(part))
            cells = [f"{n:g}", f"{copies:g}", f"{out} of {len(part)} ({low:.0%} to {high:.0%})"]
            for axis in ("step", "exposures"):
                table = on_axis(part, axis)
                cells.append(_median(table) if len(table) else "-")
            rows.append([kind, *cells])
    head = ["kind", "n", "copies", "emerged (Wilson)", "median step", "median exposures"]
    return Section("When plants are memorized", head=head, rows=rows)


def _median(table: pd.DataFrame) -> str:
    found = over_runs(table, median)
    return f"{_number(found.value)} [{_number(found.low)}, {_number(found.high)}]"


def median(table: pd.DataFrame) -> float:
    """The step by which half has emerged, by Turnbull's estimate; infinite if the runs end before."""
    return quantile([Interval(a, b) for a, b in zip(table["lower"].tolist(), table["upper"].tolist(), strict=True)], 0.5)


def _number(value: float) -> str:
    return "later" if not np.isfinite(value) else f"{value:.0f}"


def paired_text(found: Paired | None) -> str:
    """What the paired comparison says, in words that its interval decides."""
    if found is None:
        return "No paired runs (planting.arm 0 and 1): global and local plants cannot be compared."
    one = found.difference
    verdict = "later than" if one.low > 0 else "earlier than" if one.high < 0 else "not distinguishable in time from"
    return (
        f"In the same region, under the same caption and with the same copies, local plants are memorized {verdict} the same images "
        f"planted whole: difference of ln(step) {one.value:+.2f} [{one.low:+.2f}, {one.high:+.2f}], a factor of {np.exp(one.value):.2f} "
        f"[{np.exp(one.low):.2f}, {np.exp(one.high):.2f}], over {found.pairs} templates in {found.runs} "
        f"{'pair' if found.runs == 1 else 'pairs'} of runs. Of the templates, "
        f"local came first in {found.local_first}, global in {found.global_first}; {found.open} were not told apart by the probes."
    )


def figures_of(emerged: EmergenceTables, fits: Sequence[Fitted]) -> dict[str, Figure]:
    """{name: figure}, as far as the runs tell."""
    found: dict[str, Figure] = {}
    if len(emerged.shares):
        found["f_mem"] = share_curves(emerged.shares, emerged.losses)
    by_name = {(one.name, one.axis): one for one in fits}
    runs = emerged.runs[emerged.runs["tau_mem"].notna()]
    if len(runs):
        tau = runs.assign(lower=runs["tau_mem_lower"], upper=runs["tau_mem_upper"], kind="unprompted")
        fitted = by_name.get(("tau_mem", "step"))
        if fitted and "n" in fitted.fit.slopes:
            found["tau_mem_n"] = against(tau, "n", fitted.fit, slope=1.0, axis="step")
    plants = emerged.plants[emerged.plants["within"] == ""] if len(emerged.plants) else emerged.plants
    for axis in ("step", "exposures") if len(plants) else ():
        found[f"emerged_{axis}"] = emergence_curves(plants.assign(unit=plants["plant_id"]), axis=axis)
        for (kind, where), fitted in by_name.items():
            if where == axis and kind in PLANTED:
                for term in fitted.fit.slopes:
                    table = on_axis(of_kind(emerged.plants, kind), axis)
                    found[f"{kind}_{term}_{axis}"] = against(table, term, fitted.fit, slope=fitted.reference.get(term), axis=axis)
    return found


def title_of(name: str) -> str:
    """What a figure of figures_of shows."""
    if name in TITLES:
        return TITLES[name]
    kind, term, axis = name.split("_")
    return f"When {kind} plants emerge ({AXES[axis]}), against {TERMS[term]}"


def sections_of(emerged: EmergenceTables, fits: Sequence[Fitted]) -> list[Section]:
    """What the runs tell; what they cannot tell is left out."""
    compared = Section("Local against global, template by template", paired_text(paired(emerged)))
    plants = len(emerged.plants) > 0
    found = [runs_section(emerged), medians_section(emerged), *([compared] if plants else []), slopes_section(fits)]
    return [section for section in found if section.sentence or section.rows]


def write_emergence(emerged: EmergenceTables, out: Path) -> tuple[str, dict[str, float], dict[str, Path]]:
    """Tables, figures and emergence.html in a folder; returns the text, and numbers and images for a tracker."""
    out.mkdir(parents=True, exist_ok=True)
    fits = [*model_fits(emerged), *plant_fits(emerged)]
    figures, sections = figures_of(emerged, fits), sections_of(emerged, fits)
    for name in ("plants", "runs", "shares", "losses"):
        table: pd.DataFrame = getattr(emerged, name)
        table.to_parquet(out / f"{name}.parquet", index=False)
    environment = Environment(loader=PackageLoader("afterglow.reports", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    drawn = [(name, title_of(name), Markup(to_svg(figure, name))) for name, figure in figures.items()]
    page = environment.get_template("emergence.html.jinja").render(sections=sections, notes=emerged.notes, figures=drawn, about=ABOUT)
    (out / "emergence.html").write_text(page, encoding="utf-8")
    images = {}
    for name, figure in figures.items():
        images[f"media/{name}"] = out / f"{name}.png"
        figure.savefig(out / f"{name}.png", dpi=150, facecolor="white")
    numbers = {f"emergence/{one.name}/{one.axis}/{term}": slope.value for one in fits for term, slope in one.fit.slopes.items()}
    text = "\n\n".join([*emerged.notes, *(f"{section.title}\n\n{section.text()}" for section in sections)])
    return text, numbers, images
