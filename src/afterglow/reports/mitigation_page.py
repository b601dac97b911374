"""The finding "mitigation" as a page, made from committed rows alone, and what is kept of its comparisons and runs."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from afterglow.analysis.mitigation_effect import BASELINE
from afterglow.analysis.scaling import Estimate
from afterglow.reports.emergence_page import keep_emergence
from afterglow.reports.paired_runs import JUDGED as TWIN_KINDS
from afterglow.reports.paired_runs import PairedRuns, named, read_twins, twins_figure, twins_text
from afterglow.reports.remaining_copies import (
    HELD_OUT,
    JUDGED,
    LEVELS,
    OPTIMIZED,
    RemainingCopies,
    copies_left,
    cost_ratios,
    difference,
    left_figure,
    levels,
    mean_change,
    paired_changes,
    plain,
    remedies_text,
    signed,
    tradeoff_figure,
    trigger_auc,
    trigger_text,
)

HALF = 0.5  # of the copies: the interval of what is left lies under it, or over it
RECOGNIZED = 0.5  # of the correlation inside the mask
TITLE = "# What removes memorization, and what does it cost?"
INTRODUCTION = (
    "Made by `python analysis/findings.py mitigation` from the rows in `docs/findings/mitigation/` (`make mitigation` makes them). Four "
    "models (two recipes, two training seeds: `runs/demo`, `runs/seed1`, `runs/shapes-0`, `runs/shapes-1`), the same captions and first "
    "noises without and with each mitigation at its default strength (`python analysis/mitigate.py --list`), at "
    "guidance 1 with the probes' "
    "sampler (DDIM, 12 steps), 4 generations a caption; a plant counts as memorized when half of them are. Thresholds are the 99th "
    "percentile of each model's controls. Brackets hold 95 % intervals (Wilson for counts; else runs are resampled first and plants "
    "second). Captions' agreement and SSCD are absent: no weights were at hand."
)
ABOUT_LEFT = (
    "Copies left: of the plants that are memorized without a mitigation. Memorized is a distance in colors: a faded copy no longer is, "
    "and its correlation with the planted image (means inside and outside the mask, of the same plants) says whether it is still there. "
    "Held-out captions: change of the distance to the nearest training image. Costs over those of no mitigation: "
    "evaluations of the network an image, a mean over all captions, of which a trigger chooses some; and FLOPs of one image of the first "
    "plant's caption, gradients included (both counted, median over models). `python benchmarks/mitigations.py` compares seconds "
    "([mitigation](../guides/mitigation.md))."
)
ABOUT_LOCAL = (
    "Chen et al. weight the loss of Wen et al. with the Bright-Ending map, for its trigger and for its gradient. The trigger: the loss at "
    "the first step, plants that are memorized without a mitigation against controls. The gradient: what is left, and what happens outside."
)
ABOUT_TWINS = (
    "`configs/findings/mitigations.yaml`, every run beside its twin of the same seed without a mitigation, with the same plants (and "
    "the same order and noises, but where duplicates were removed: such a set is smaller, and its epochs are shorter). "
    "Delay: the factor by which the step of emergence moves (censored fit, paired by plant; - where none emerged, or where the mitigation "
    "ended the training). Held-out loss: at the last probe, over the twin's; `stop` ends at the first probe at which a plant is memorized, "
    "`advantage` at the first at which a plant's leading indicator passes its limit; their loss is that of an unfinished training."
)
NOT_SHOWN = (
    "A sampler of 12 steps has no timestep 500, so that `stp.finer` is `stp` here, and few generations have a minimum of guidance before "
    "half of the steps, so that `dtp` hardly differs from it. Not at hand: Stable Diffusion itself (no weights, no GPU), and with it the "
    "published strengths; guidance 7.5: models trained here are judged at guidance 1, where opposite guidance and a late beginning still "
    "act, but where `dtp.scale_1` changes nothing by definition and PRSS has less to push with; PRSS's paraphrases, for which random words "
    "stand. Trained with a mitigation: 4 global and 4 local plants a run, so that only large effects can be told; `several` "
    "and de-duplication by SSCD were not run (no paraphrases, no weights)."
)


def keep_mitigation(folder: Path, target: Path) -> int:
    """Copy what the page needs of a comparison (a folder of `mitigate.py`) or of a finished run; returns its bytes.

    Raises ValueError where the folder holds neither.
    """
    if (folder / "measurements.parquet").is_file():
        return keep_emergence(folder, target)
    table = folder / "plants.parquet"
    if not table.is_file():
        raise ValueError(f"'{folder}' holds neither a comparison (plants.parquet) nor a run (measurements.parquet).")
    name = target / folder.name
    name.mkdir(parents=True, exist_ok=True)
    shutil.copy(table, name / "plants.parquet")
    return (name / "plants.parquet").stat().st_size


def mitigation_page(folder: Path) -> tuple[str, dict[str, Figure]]:
    """Markdown, every number reckoned from the kept rows, and the figures that it shows. ValueError where nothing was kept."""
    rows, grids = (_read(folder, name) for name in ("mitigation", "strengths"))
    if rows.empty:
        raise ValueError(f"No comparisons were kept in '{folder}': `make mitigation` makes them.")
    runs = sorted(path.parent for path in folder.glob("mitigations-*/measurements.parquet"))
    twins = read_twins(named(runs)) if runs else None
    left = copies_left(rows)
    figures = {"copies_left": left_figure(left)}
    parts = [TITLE, INTRODUCTION, "## What follows", conclusions(rows, left, twins)]
    parts += ["## At inference", ABOUT_LEFT, remedies_text(rows), _shown("copies_left")]
    if not grids.empty:
        figures["strengths"] = tradeoff_figure(grids)
        parts += ["## Strengths", _models(grids), remedies_text(grids), _shown("strengths")]
    parts += ["## Does the local loss help?", ABOUT_LOCAL, trigger_text(rows), local_text(rows)]
    if twins is not None:
        figures["training"] = twins_figure(twins)
        parts += ["## At training time", ABOUT_TWINS, twins_text(twins), _shown("training")]
    parts += ["## Not shown here", NOT_SHOWN]
    return "\n\n".join(parts) + "\n", figures


def _read(folder: Path, kind: str) -> pd.DataFrame:
    """The rows of all comparisons KIND-RUN, with their run."""
    files = sorted(folder.glob(f"{kind}-*/plants.parquet"))
    tables = [pd.read_parquet(file).assign(run=file.parent.name.removeprefix(f"{kind}-")) for file in files]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _shown(name: str) -> str:
    return f"![{name.replace('_', ' ')}](mitigation/{name}.png)"


def _models(rows: pd.DataFrame) -> str:
    return f"Some mitigations over their strengths, on {', '.join(f'`runs/{name}`' for name in sorted(set(rows['run'])))}."


def conclusions(rows: pd.DataFrame, left: Sequence[RemainingCopies], twins: PairedRuns | None) -> str:
    """Numbered lines; which mitigation stands in which is decided by intervals."""
    before = {one.kind: one.total for one in left if one.mitigation == BASELINE}
    lines = ["Without a mitigation " + " and ".join(f"{count} {kind}" for kind, count in before.items()) + " plants are memorized."]
    for kind in JUDGED:
        mine = [one for one in left if one.kind == kind and one.mitigation != BASELINE]
        lines.append(f"Fewer than half of the {kind} copies are left with {_names(mine, lambda one: one.interval[1] < HALF)}.")
        lines.append(f"More than half are left with {_names(mine, lambda one: one.interval[0] > HALF)}.")
    lines.append(_faded(rows, left))
    lines.append(_drifting(rows))
    lines.append(_cheap(rows, left))
    if all((rows["mitigation"] == name).any() for name in OPTIMIZED):
        lines.append(_local(rows))
    if twins is not None:
        lines += _training(twins)
    return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, start=1))


def _names(lefts: Sequence[RemainingCopies], wanted: Callable[[RemainingCopies], bool]) -> str:
    """Those that are wanted, fewest copies first."""
    found = sorted((one for one in lefts if wanted(one)), key=lambda one: one.count / one.total)
    return ", ".join(f"`{one.label}` ({one.count} of {one.total})" for one in found) or "none"


def _faded(rows: pd.DataFrame, left: Sequence[RemainingCopies]) -> str:
    """Whose removed copies can still be recognized."""
    found = []
    for kind in JUDGED:
        table = levels(rows, kind, "correlation.inside")
        for one in left:
            if one.kind == kind and one.mitigation != BASELINE and one.interval[1] < HALF:
                mean = mean_change(table[(table["mitigation"] == one.mitigation) & (table["strength"] == one.strength)])
                if mean.low > RECOGNIZED:
                    found.append(f"`{one.label}` ({kind}, {plain(mean)})")
    said = ", ".join(found) or "none"
    return f"Faded rather than gone: of these, generations still correlate over {RECOGNIZED:g} with the planted image with {said}."


def _drifting(rows: pd.DataFrame) -> str:
    """Who moves images that were no copies."""
    table = paired_changes(rows, *HELD_OUT)
    moved = []
    for (mitigation, strength), some in table.groupby(["mitigation", "strength"], sort=False):
        one = mean_change(some)
        if one.low > 0 or one.high < 0:
            moved.append(f"`{mitigation} {strength:g}` ({signed(one)})")
    return f"Images for held-out captions move from (+) or towards (-) the training set with {', '.join(moved) or 'none'}."


def _cheap(rows: pd.DataFrame, left: Sequence[RemainingCopies]) -> str:
    """Of those that remove most of both kinds, what each costs in operations."""
    costs = cost_ratios(rows)
    costs = costs[costs["measure"] == "cost.gflops"].groupby(["mitigation", "strength"])["ratio"].median()
    both = {(one.mitigation, one.strength) for one in left if one.mitigation != BASELINE}
    both = {key for key in both if all(one.interval[1] < HALF for one in left if (one.mitigation, one.strength) == key)}
    shown = [
        f"`{name} {strength:g}` {costs[name, strength]:.2f}x"
        for name, strength in sorted(both, key=lambda key: (round(float(costs[key]), 2), key))
    ]
    return f"A plant's FLOPs over plain sampling, with those that remove more than half of both: {', '.join(shown) or 'there are none'}."


def _local(rows: pd.DataFrame) -> str:
    first, second = OPTIMIZED
    aucs = [trigger_auc(rows, name, "local") for name in (first, second)]
    copies = difference(rows, second, first, "local", "memorized")
    return (
        f"For local plants the trigger by LD has an AUC of {plain(aucs[1])}, by magnitude {plain(aucs[0])}; LD's gradient leaves "
        f"{signed(copies)} of the local copies more (+) or less (-) than guidance_norm's: {_verdict(copies)}."
    )


def _verdict(one: Estimate) -> str:
    return "more are left" if one.low > 0 else "fewer are left" if one.high < 0 else "the two are not told apart"


def local_text(rows: pd.DataFrame) -> str:
    """LD's mitigation less guidance_norm's on the same local plants."""
    first, second = OPTIMIZED
    if not all((rows["mitigation"] == name).any() for name in OPTIMIZED):
        return ""
    measures = ("memorized", *(name for kind, name, _ in LEVELS if kind == "local"))
    said = ", ".join(f"{name} {signed(difference(rows, second, first, 'local', name))}" for name in measures)
    return f"`{second}` less `{first}`, memorized local plants: {said}."


def _training(twins: PairedRuns) -> list[str]:
    """What training-time mitigations leave, and what they cost."""
    lines = []
    for mitigation in twins.mitigations[1:]:
        counts = [
            f"{kind} {count} of {total} (twin {before})"
            for kind in TWIN_KINDS
            for (count, total), (before, _) in [(twins.last(mitigation, kind), twins.last(BASELINE, kind, mitigation))]
        ]
        one = twins.heldout(mitigation)
        cost = "higher" if one.low > 1 else "lower" if one.high < 1 else "not told apart"
        lines.append(f"Trained with `{mitigation}`: {', '.join(counts)}; held-out loss {plain(one)} of the twin's ({cost}).")
    return lines
