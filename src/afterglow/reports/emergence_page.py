"""The finding "emergence" as a page, made from committed rows alone, and what is kept of its runs."""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score

from afterglow.analysis.scaling import Estimate, over_runs
from afterglow.analysis.summary import read_measurements
from afterglow.functional.statistics import wilson_interval
from afterglow.reports.bench import text_table
from afterglow.reports.emergence import (
    Fitted,
    departs,
    estimate,
    figures_of,
    median,
    model_fits,
    of_kind,
    paired,
    paired_text,
    plant_fits,
    sections_of,
)
from afterglow.reports.runs import EmergenceTables, read_runs

KEPT = ("config.yaml", "emergence.json", "plants/metadata.jsonl")
JUDGED = ("global", "local")
MEASURES = (
    "plant_memorized",
    "plant_memorized.region",
    "denoising_loss",
    "denoising_log_ratio.inside",
    "denoising_log_ratio.outside",
    "extracted",
    "nn_ratio",
)
SHOWN = ("f_mem", "tau_mem_n", "emerged_step", "emerged_exposures", "global_copies_step", "local_copies_step")
STOPS = {"1/2 ln 2": 0.5 * math.log(2), "ln 2": math.log(2)}  # half, and a quarter, of the squared error of held-out images
ALARM = 0.9  # AUC of the advantage, plants against phantoms, from which on the indicator is said to have fired
TITLE = "# When does memorization emerge, and does local come before global?"
INTRODUCTION = (
    "Made by `python analysis/findings.py emergence` from the rows in `docs/findings/emergence/` (`make emergence` makes the runs). "
    "OpenMoji at 16 pixels, networks trained from scratch at a constant rate; averaged weights are probed, at steps at most 1.25 times "
    "apart. Two experiments (`configs/findings/sizes.yaml`, `configs/findings/halves.yaml`), three seeds each. Brackets hold 95 % "
    "intervals that resample runs first and plants within runs second. `python analysis/emergence.py RUNS` prints the same of any runs."
)
COMMANDS = (
    "Controls of the whole chain, through the commands. `own`: a run judged against its own set; `optimal`: the closed-form optimal "
    "denoiser of what it is trained on, which copies everything; `other`: a model trained on a disjoint set of the same size "
    "(`--data.skip_first`), judged against the first one's. 256 generations each (`python analysis/extract.py --model "
    "MODEL --planted RUN`)."
)
ABOUT_SIZES = (
    "tau_mem: the step at which a tenth of the generations have d1/d2 under 1/3; tau_gen: the step at which the held-out loss comes within "
    "5 % of its minimum. Sets of 16 to 128 images are smaller than those of Bonnaire et al. (from 128 on): none of these models "
    "generalizes for long, and tau_gen is little more than the step before which the held-out loss turns. n counts images, and OpenMoji "
    "repeats itself: a set that holds more near twins than another is copied earlier than its n says."
)
ABOUT_HALVES = (
    "Steps are counted from the first one, before which nothing can be drawn: what is shown often has to wait until the network can draw "
    "at all, which these runs of some hundred steps cannot tell from a law of exposures."
)
ABOUT_ALARMS = (
    "What was never trained on, or was seen once an epoch, and looks memorized at the last probe. Plants and phantoms are images whose "
    "nearest other group is at least .10 away; controls are any images."
)
ABOUT_LEAD = (
    "Advantage: half the logarithm of the denoising error of held-out images over the plant's, in the plant's mask. It has fired at the "
    f"first probe from which on it tells plants from phantoms with an AUC of {ALARM}."
)
ABOUT_STOPS = (
    "A training that ends when the advantage of a global or local plant passes a limit (`--monitor.early_stop.monitor "
    "advantage`; its default is the "
    "first, which was chosen on nine of these runs): how many probes before the first plant is memorized, of those of the same run."
)
NOT_SHOWN = (
    "The frozen CIFAR-10 checkpoint of 35.7 M parameters, and CIFAR-10 at its own size: no weights and no GPU were at hand. What the "
    "paper states of unconditional models without a method (Bright Ending needs an end token) can be measured with the maps that need no "
    "text, on generations that copy a local plant: `early_difference`, `patch_nearness`, `self_attention`; `analysis/collect.py --source` "
    "and `analysis/extract.py --source` look for copies of a frozen model's training set. What cannot be: the planted truth of a set in "
    "which nobody planted."
)


def keep_emergence(run: Path, folder: Path) -> int:
    """Copy what the page needs of a finished run; returns its bytes. ValueError where the run has not ended."""
    if not (run / "emergence.json").is_file():
        raise ValueError(f"'{run}' is no finished run: emergence.json is missing.")
    target = folder / run.name
    for name in KEPT:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(run / name, target / name)
    rows = read_measurements(run / "measurements.parquet")
    wanted = rows["measure"].isin(MEASURES) | rows["measure"].str.startswith("confirm.")
    rows = rows[wanted & ((rows["kind"] != "unprompted") | (rows["measure"] == "nn_ratio"))]
    table = rows.astype({"value": np.float32}).assign(caption="")
    table.to_parquet(target / "measurements.parquet", compression="zstd", index=False)
    return sum(file.stat().st_size for file in target.rglob("*") if file.is_file())


def emergence_page(folder: Path) -> tuple[str, dict[str, Figure]]:
    """Markdown, every number reckoned from the kept rows, and the figures that it shows. ValueError where no run was kept."""
    names = sorted(path.parent for path in folder.glob("*/measurements.parquet"))
    sizes, halves = ([path for path in names if path.name.startswith(prefix)] for prefix in ("sizes-", "halves-"))
    if not sizes or not halves:
        raise ValueError(f"No runs were kept in '{folder}': `make emergence` makes them.")
    first, second = read_runs(sizes), read_runs(halves)
    fits = [model_fits(first), plant_fits(second)]
    figures = figures_of(first, fits[0]) | figures_of(second, fits[1])
    shown = {name: figures[name] for name in SHOWN if name in figures}
    lead = lead_of(second, halves)
    parts = [
        TITLE,
        INTRODUCTION,
        "## What follows",
        conclusions(first, second, fits[0], fits[1], lead, halves),
        "## Experiment (i): without plants",
        ABOUT_SIZES,
        *_sections(first, fits[0]),
        "## Experiment (ii): every template whole in one run, a region in its twin",
        ABOUT_HALVES,
        *_sections(second, fits[1]),
        "## False alarms",
        ABOUT_ALARMS,
        alarms_text(halves),
        "## A leading indicator",
        ABOUT_LEAD,
        lead,
        ABOUT_STOPS,
        stops_text(halves),
        "## Controls",
        COMMANDS,
        controls_text(folder / "controls"),
        "## Figures",
        "\n\n".join(f"![{name.replace('_', ' ')}](emergence/{name}.png)" for name in shown),
        "## Not shown here",
        NOT_SHOWN,
    ]
    return "\n\n".join(parts) + "\n", shown


def _sections(emerged: EmergenceTables, fits: Sequence[Fitted]) -> list[str]:
    return [part for section in sections_of(emerged, fits) for part in (f"### {section.title}", section.text())]


def conclusions(
    first: EmergenceTables, second: EmergenceTables, models: Sequence[Fitted], plants: Sequence[Fitted], lead: str, halves: Sequence[Path]
) -> str:
    """Numbered lines; words are decided by intervals."""
    lines = []
    for fitted, what in zip(models, ("A model without captions begins to copy", "It generalizes"), strict=False):
        slope, reference = fitted.fit.slopes["n"], fitted.reference["n"]
        lines.append(
            f"{what} at a step that grows with n as n^{estimate(slope)}: {_verdict(slope, reference)} (Bonnaire et al.: {reference:g})."
        )
    gap = over_runs(first.runs.assign(unit=0, upper=first.runs["tau_mem_upper"]), _gap)
    lines.append(f"Memorization comes later than generalization by a factor of {estimate(gap)} (geometric mean over runs that reach both).")
    lines.append(paired_text(paired(second)))
    for fitted in plants:
        for term, slope in fitted.fit.slopes.items():
            if fitted.axis == "exposures" and term in ("n", "copies"):
                lines.append(
                    f"At equal exposures, {fitted.name} plants emerge after {term}^{estimate(slope)} exposures: {_verdict(slope, 0.0)} "
                    "(0: exposure alone decides)."
                )
    counts = alarm_counts(halves)
    said = ", ".join(f"{kind} {count} of {total}" for kind, (count, total) in counts.items())
    lines.append(f"False alarms at the last probe: {said}.")
    return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, start=1))


def _verdict(slope: Estimate, reference: float) -> str:
    return "it departs from the reference" if departs(slope, reference) else "not distinguishable from the reference"


def _gap(runs: pd.DataFrame) -> float:
    """Geometric mean of tau_mem / tau_gen over the runs that reach both."""
    both = runs[np.isfinite(runs["tau_mem"]) & np.isfinite(runs["tau_gen"]) & (runs["tau_gen"] > 0)]
    return float(np.exp(np.log(both["tau_mem"] / both["tau_gen"]).mean())) if len(both) else float("nan")


def alarm_counts(folders: Sequence[Path]) -> dict[str, tuple[int, int]]:
    """{kind: (memorized at the last probe, all)} of phantoms, controls and held-out captions over runs."""
    counts: dict[str, tuple[int, int]] = {}
    for kind in ("phantom", "control", "heldout"):
        values = []
        for folder in folders:
            rows = read_measurements(folder / "measurements.parquet")
            last = rows[(rows["step"] == rows["step"].max()) & (rows["measure"] == "plant_memorized") & (rows["kind"] == kind)]
            values += last["value"].tolist()
        counts[kind] = (int(sum(value > 0.5 for value in values)), len(values))
    return counts


def alarms_text(folders: Sequence[Path]) -> str:
    """The same as a table, with Wilson's intervals."""
    rows = []
    for kind, (count, total) in alarm_counts(folders).items():
        low, high = wilson_interval(count, total)
        rows.append([kind, f"{count} of {total}", f"{low:.1%} to {high:.1%}"])
    return text_table(["kind", "look memorized", "95 % interval (Wilson)"], rows)


def lead_of(emerged: EmergenceTables, folders: Sequence[Path]) -> str:
    """A row a kind: the step at which the advantage has fired in each run, and the median step of emergence."""
    lines = []
    for kind in JUDGED:
        fired = []
        for folder in folders:
            rows = read_measurements(folder / "measurements.parquet")
            fired.append(fired_at(rows[rows["measure"] == "denoising_log_ratio.inside"], kind))
        table = of_kind(emerged.plants, kind)
        emerges = over_runs(table, median)
        shown = ", ".join("never" if np.isinf(step) else f"{step:.0f}" for step in sorted(fired))
        ends = " to ".join("later" if np.isinf(end) else f"{end:.0f}" for end in (emerges.low, emerges.high))
        lines.append([kind, shown, f"{emerges.value:.0f} [{ends}]"])
    return text_table(["kind", "indicator fires at step (a number a run)", "median step of emergence"], lines)


def stops_text(folders: Sequence[Path]) -> str:
    """A row a limit: by how many probes the first plant passes it before the first is memorized, and how often a phantom does."""
    lines = []
    for name, limit in STOPS.items():
        ahead, alarms = [], 0
        for folder in folders:
            rows = read_measurements(folder / "measurements.parquet")
            rows = rows[rows["step"] > 0]
            passed, seen = (
                rows[(rows["measure"] == "denoising_log_ratio.inside") & (rows["value"] > limit)],
                rows["measure"] == "plant_memorized",
            )
            memorized = rows[seen & rows["kind"].isin(JUDGED) & (rows["value"] > 0.5)]["step"].min()
            place = {step: number for number, step in enumerate(sorted(rows["step"].unique()))}
            plants, phantoms = passed[passed["kind"].isin(JUDGED)]["step"].min(), passed[passed["kind"] == "phantom"]["step"].min()
            if plants in place and memorized in place:
                ahead.append(place[memorized] - place[plants])
            alarms += phantoms < memorized
        early = sum(probes > 0 for probes in ahead)
        spread = f"{min(ahead)} to {max(ahead)}" if ahead else "-"
        lines.append([name, f"{early} of {len(folders)}", spread, f"{alarms} of {len(folders)}"])
    return text_table(
        ["limit", "runs in which a plant passes before", "probes before (less than 0: after)", "a phantom passes before"], lines
    )


def fired_at(rows: pd.DataFrame, kind: str) -> float:
    """The first step from which on the advantage tells plants of a kind from phantoms with an AUC of at least .9; infinite: never."""
    found = float("inf")
    for step in sorted(rows["step"].unique(), reverse=True):
        some = rows[(rows["step"] == step) & rows["kind"].isin((kind, "phantom"))]
        if roc_auc_score(some["kind"] == kind, some["value"]) < ALARM:
            break
        found = float(step)
    return found


def controls_text(folder: Path) -> str:
    """A row for each extraction that was kept: copies whole, by Carlini's rule; plants captured; phantoms that look captured."""
    rows = []
    for path in sorted(folder.glob("*/extract.parquet")):
        table = pd.read_parquet(path)
        count, total = int((table["calibrated_l2"] < 1).sum()), len(table)
        close = int((table["nn_ratio"] < 1 / 3).sum())
        low, high = wilson_interval(count, total)
        file, shown = path.parent / "plants.parquet", ["-"] * 3
        if file.is_file():
            plants = pd.read_parquet(file)
            parts = [plants[plants["kind"] == kind]["generations"] for kind in ("global", "local", "phantom")]
            shown = [f"{int((part > 0).sum())} of {len(part)}" for part in parts]
        rows.append([path.parent.name, f"{count} of {total} ({low:.0%} to {high:.0%})", f"{close} of {total}", *shown])
    return text_table(["", "calibrated under 1, whole", "d1/d2 under 1/3", "global extracted", "local", "phantoms"], rows)
