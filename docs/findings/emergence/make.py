"""Write docs/findings/emergence.md and its figures from the rows committed beside this file.

  python docs/findings/emergence/make.py

`python scripts/reproduce.py emergence` trains the runs and copies their rows here.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score

from afterglow.analysis.scaling import bootstrap_table
from afterglow.analysis.summary import read_measurements
from afterglow.functional.statistics import Estimate
from afterglow.reports.emergence import (
    NamedFit,
    departs,
    emergence_figures,
    emergence_sections,
    median_text,
    model_fits,
    pair_plants,
    paired_text,
    plant_fits,
    plants_of_kind,
)
from afterglow.reports.runs import EmergenceTables, read_runs
from afterglow.reports.tables import count_text, interval_text, text_table

HERE = Path(__file__).parent
COPIED_KINDS = ("global", "local")
INDICATOR = "denoising_log_ratio.inside"
FIGURES = ("f_mem", "tau_mem_n", "emerged_step", "emerged_exposures", "global_copies_step", "local_copies_step")
THRESHOLDS = {"1/2 ln 2": 0.5 * math.log(2), "ln 2": math.log(2)}  # half, and a quarter, of the squared error on held-out images
ALARM_AUC = 0.9  # AUC of the indicator, plants against phantoms, from which on it detects them

INTRODUCTION = """# When does memorization emerge, and does local come before global?

`python docs/findings/emergence/make.py` writes this page from the rows in `docs/findings/emergence/`. `python scripts/reproduce.py emergence` trains the runs again. `afterglow emergence RUN RUN ...` prints the same tables for any runs.

Setup: OpenMoji at 16 pixels; networks trained from scratch at a constant learning rate. Averaged weights are evaluated at steps at most a factor of 1.25 apart. There are two experiments (`configs/findings/sizes.yaml` and `configs/findings/paired_arms.yaml`) with three seeds each. Brackets hold 95 % intervals; the bootstrap resamples seeds, then runs, then plants."""

SIZES = """tau_mem: the step at which a tenth of the generations have d1/d2 below 1/3. tau_gen: the first step at which the held-out loss is within 5 % of its minimum.

Sets of 16 to 128 images are smaller than those of Bonnaire et al., which start at 128. None of these models generalizes for long, and tau_gen is little more than the step before the held-out loss rises again. n counts images. OpenMoji holds near-duplicates: a set with more of them is copied earlier than its n suggests."""

PAIRS = """Steps are counted from the first one. A network has to learn to draw before it can copy: plants with many exposures wait for that. Runs of a few hundred steps cannot separate this delay from a law of exposures."""

FALSE_POSITIVES = """Items that were never trained on, or seen once per epoch, and that count as memorized at the last evaluation. Plants and phantoms are images whose nearest other cluster is at least .10 away; controls are any images."""

INDICATOR_NOTES = f"""The denoising log ratio is half the logarithm of the denoising error on held-out images over that on the plant, inside the plant's mask. It detects a kind from the first evaluation on at which, and at all later ones, it separates plants from phantoms with an AUC of at least {ALARM_AUC}."""

STOP_NOTES = """Early stopping ends a training when the ratio of a global or local plant exceeds a threshold (`--monitor.early_stop.monitor denoising_log_ratio`). The default threshold is the first row; it was chosen on nine of these runs. The table counts how many evaluations before the first memorized plant the first ratio exceeds the threshold."""

CONTROLS = """Controls of the whole pipeline, run through the commands with 256 generations each (`afterglow extract --model MODEL --run RUN --out OUT`). `own`: a run compared with its own training set. `optimal`: the closed-form optimal denoiser of that set, which copies everything. `other`: a model trained on a disjoint set of the same size (`--data.skip_first`), compared with the first set. `planted-optimal`: the optimal denoiser of a set with plants."""

NOT_MEASURED = """- The public CIFAR-10 checkpoint of 35.7 million parameters and CIFAR-10 at full size: no weights and no GPU were available.
- Bright Ending on unconditional models: it needs an end token. On generations that copy a local plant, the maps `early_difference`, `patch_nearness` and `self_attention` need no text. `afterglow collect` and `afterglow extract` find copies of the training set of a frozen model. Without plants, the true region of a copy remains unknown."""


def page(folder: Path = HERE) -> tuple[str, dict[str, Figure]]:
    """Markdown of the finding, every number computed from the committed rows, and its figures by name."""
    folders = sorted(path.parent for path in folder.glob("*/measurements.parquet"))
    sizes, pairs = ([path for path in folders if path.name.startswith(prefix)] for prefix in ("sizes-", "paired_arms-"))
    models, plants = read_runs(sizes), read_runs(pairs)
    fits = model_fits(models), plant_fits(plants)
    figures = emergence_figures(models, fits[0]) | emergence_figures(plants, fits[1])
    shown = {name: figures[name] for name in FIGURES if name in figures}
    parts = [
        INTRODUCTION,
        "## Conclusions",
        "\n".join(f"{number}. {line}" for number, line in enumerate(conclusions(models, plants, *fits, pairs), start=1)),
        "## Experiment 1: models without plants",
        SIZES,
        *sections(models, fits[0]),
        "## Experiment 2: each template whole in one run, as a region in its paired run",
        PAIRS,
        *sections(plants, fits[1]),
        "## False positives",
        FALSE_POSITIVES,
        text_table(["kind", "memorized (95 %, Wilson)"], [[kind, count_text(*c, digits=1)] for kind, c in false_positives(pairs).items()]),
        "## Leading indicator",
        INDICATOR_NOTES,
        indicator_text(plants, pairs),
        STOP_NOTES,
        thresholds_text(pairs),
        "## Controls",
        CONTROLS,
        controls_text(folder / "controls"),
        "## Figures",
        *(f"![{name.replace('_', ' ')}](emergence/{name}.png)" for name in shown),
        "## Not measured",
        NOT_MEASURED,
    ]
    return "\n\n".join(parts) + "\n", shown


def sections(tables: EmergenceTables, fits: Sequence[NamedFit]) -> Iterator[str]:
    """The tables of `afterglow emergence` under headings."""
    for section in emergence_sections(tables, fits):
        yield f"### {section.title}"
        yield section.text()


def conclusions(
    models: EmergenceTables, plants: EmergenceTables, model: Sequence[NamedFit], plant: Sequence[NamedFit], folders: Sequence[Path]
) -> Iterator[str]:
    """One or two sentences per conclusion. Verdicts depend on the intervals."""

    def verdict(slope: Estimate, reference: float) -> str:
        return "differs from" if departs(slope, reference) else "is not significantly different from"

    for named, event in zip(model, ("memorization begins", "generalization is reached"), strict=False):
        slope, reference = named.fit.slopes["n"], named.reference["n"]
        yield (
            f"In models without captions, the step at which {event} grows as n^a with a = {interval_text(slope)}. This "
            f"{verdict(slope, reference)} {reference:g}, the value of Bonnaire et al."
        )
    ratio = bootstrap_table(models.runs.assign(unit=0, upper=models.runs["tau_mem_upper"]), mean_ratio)
    yield f"tau_mem is {interval_text(ratio)} times tau_gen (geometric mean over the runs that reach both)."
    yield paired_text(pair_plants(plants))
    for named in plant:
        for term in ("n", "copies") if named.axis == "exposures" else ():
            slope = named.fit.slopes[term]
            yield (
                f"The number of exposures after which {named.name} plants emerge grows as {term}^a with a = {interval_text(slope)}. This "
                f"{verdict(slope, 0.0)} 0, the value if exposure alone decides."
            )
    counts = (f"{count} of {total} {kind} items" for kind, (count, total) in false_positives(folders).items())
    yield f"False positives at the last evaluation: {', '.join(counts)}."


def mean_ratio(runs: pd.DataFrame) -> float:
    """Geometric mean of tau_mem / tau_gen over the runs that reach both."""
    both = runs[np.isfinite(runs["tau_mem"]) & np.isfinite(runs["tau_gen"]) & (runs["tau_gen"] > 0)]
    return float(np.exp(np.log(both["tau_mem"] / both["tau_gen"]).mean())) if len(both) else float("nan")


def false_positives(folders: Sequence[Path]) -> dict[str, tuple[int, int]]:
    """{kind: (memorized at the last evaluation, all)} over runs, for phantoms, controls and held-out captions."""
    counts = dict.fromkeys(("phantom", "control", "heldout"), (0, 0))
    for folder in folders:
        rows = read_measurements(folder / "measurements.parquet")
        last = rows[(rows["step"] == rows["step"].max()) & (rows["measure"] == "plant_memorized")]
        for kind, (count, total) in counts.items():
            memorized = last[last["kind"] == kind]["value"] > 0.5
            counts[kind] = (count + int(memorized.sum()), total + len(memorized))
    return counts


def indicator_text(tables: EmergenceTables, folders: Sequence[Path]) -> str:
    """For each kind, the step from which on the indicator detects it in each run, and the median step of emergence."""
    lines = []
    for kind in COPIED_KINDS:
        steps = []
        for folder in folders:
            rows = read_measurements(folder / "measurements.parquet")
            steps.append(detected_from(rows[rows["measure"] == INDICATOR], kind))
        steps_text = ", ".join("never" if np.isinf(step) else f"{step:.0f}" for step in sorted(steps))
        lines.append([kind, steps_text, median_text(plants_of_kind(tables.plants, kind))])
    return text_table(["kind", "detected from step (one number per run)", "median step of emergence"], lines)


def detected_from(rows: pd.DataFrame, kind: str) -> float:
    """The first step from which on the indicator separates a kind from phantoms with ALARM_AUC; infinite if it never does."""
    first = float("inf")
    for step in sorted(rows["step"].unique(), reverse=True):
        part = rows[(rows["step"] == step) & rows["kind"].isin((kind, "phantom"))]
        if roc_auc_score(part["kind"] == kind, part["value"]) < ALARM_AUC:
            break
        first = float(step)
    return first


def thresholds_text(folders: Sequence[Path]) -> str:
    """For each threshold, how many evaluations before the first memorized plant a plant or a phantom exceeds it."""
    lines = []
    for name, threshold in THRESHOLDS.items():
        leads, alarms = [], 0
        for folder in folders:
            rows = read_measurements(folder / "measurements.parquet")
            rows = rows[rows["step"] > 0]
            above = rows[(rows["measure"] == INDICATOR) & (rows["value"] > threshold)]
            memorized = rows[(rows["measure"] == "plant_memorized") & rows["kind"].isin(COPIED_KINDS) & (rows["value"] > 0.5)]["step"].min()
            place = {step: number for number, step in enumerate(sorted(rows["step"].unique()))}
            plants, phantoms = (above[above["kind"].isin(kinds)]["step"].min() for kinds in (COPIED_KINDS, ["phantom"]))
            if plants in place and memorized in place:
                leads.append(place[memorized] - place[plants])
            alarms += phantoms < memorized
        spread = f"{min(leads)} to {max(leads)}" if leads else "-"
        lines.append([name, f"{sum(lead > 0 for lead in leads)} of {len(folders)}", spread, f"{alarms} of {len(folders)}"])
    head = ["threshold", "runs in which a plant exceeds it before", "evaluations before (negative: after)", "a phantom exceeds it before"]
    return text_table(head, lines)


def controls_text(folder: Path) -> str:
    """One row per committed extraction: copied whole images by Carlini's criterion, and extracted plants and phantoms."""
    rows = []
    for path in sorted(folder.glob("*/extract.parquet")):
        table, file = pd.read_parquet(path), path.parent / "plants.parquet"
        plants = pd.read_parquet(file) if file.is_file() else pd.DataFrame({"kind": [], "generations": []})
        extracted = [plants[plants["kind"] == kind]["generations"] > 0 for kind in ("global", "local", "phantom")]
        copies, close = int((table["calibrated_l2"] < 1).sum()), int((table["nn_ratio"] < 1 / 3).sum())
        counts = [f"{int(part.sum())} of {len(part)}" if len(part) else "-" for part in extracted]
        rows.append([path.parent.name, count_text(copies, len(table)), f"{close} of {len(table)}", *counts])
    return text_table(["control", "calibrated distance below 1", "d1/d2 below 1/3", "global extracted", "local", "phantoms"], rows)


if __name__ == "__main__":
    text, drawn = page()
    for figure_name, figure in drawn.items():
        figure.savefig(HERE / f"{figure_name}.png", dpi=110, facecolor="white")
    HERE.with_suffix(".md").write_text(text, encoding="utf-8")
    print(HERE.with_suffix(".md"))
