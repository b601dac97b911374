"""Whether the ending brightens in a run: maps of the token groups on copies, on plants that are not copied yet, and on tints."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from afterglow.functional.statistics import Estimate, bootstrap, exact_at_bounds
from afterglow.kinds import NOT_MEMORIZED
from afterglow.reports.run import Run
from afterglow.reports.run_tables import TRIVIAL
from afterglow.reports.tables import Cell, Row, Table, mean_cell, number_cell

ENDING = "end_token.last.first_eos.all"  # of the last sampler step, mean of all layers
GROUP_MAPS = {  # name on the page: (map, share of the attention)
    "BOS": ("token_group.last.bos.all", "bos"),
    "words": ("token_group.last.words.all", "words"),
    "first end token": (ENDING, "first_end"),
    "padding": ("token_group.last.pads.all", "pads"),
    "end token and padding": ("end_token.last.eos_and_pads.all", "end_and_pads"),
    "sink darkness": ("sink_darkness.last.all", ""),
}
MEMORIZED, NOT_YET, TINTS = "memorized local plants", "local plants that are not memorized yet", "tints, where nothing is copied"
PHANTOMS = "phantoms, which were never trained on"


def values_by_class(run: Run, name: str) -> dict[str, pd.Series]:
    """{class: AUC of a map for each plant, mean over seeds} at the last evaluation; local plants by whether they are memorized there."""
    missing = pd.Series(dtype=float)
    classes = {MEMORIZED: "local", NOT_YET: NOT_MEMORIZED, TINTS: "tint", PHANTOMS: "phantom"}
    return {label: run.last_values.get((kind, f"auc.{name}"), missing) for label, kind in classes.items()}


def best_trivial(run: Run) -> dict[str, float]:
    """{class: the highest mean AUC of the trivial maps, their inversions and the mask prior}; a class without values is absent."""
    found: dict[str, list[float]] = {}
    for name in TRIVIAL:
        for label, values in values_by_class(run, name).items():
            if len(values):
                found.setdefault(label, []).append(float(values.mean()))
    return {label: max(values) for label, values in found.items()}


def ending_sentence(run: Run) -> str:
    """One sentence: the ending brightens, or not, on copies, on what is not copied yet and on tints; empty without its map.

    It brightens on a class if the interval of its mean AUC over plants lies above the best trivial map of this class, and does not if it
    lies below.
    """
    classes, trivial = values_by_class(run, ENDING), best_trivial(run)
    parts = [verdict(label, classes[label].to_numpy(), trivial) for label in (MEMORIZED, NOT_YET, TINTS)]
    if not any(len(values) for values in classes.values()):
        return ""
    predicts = len(classes[MEMORIZED]) and len(classes[TINTS]) and classes[TINTS].mean() >= classes[MEMORIZED].mean()
    end = ", so that it shows what the caption predicts, not what is copied" if predicts else ""
    return f"The ending (attention to the first end token, mean of all layers) {'; it '.join(parts)}{end}."


def verdict(
    label: str, values: np.ndarray, trivial: Mapping[str, float], verbs: tuple[str, str] = ("brightens", "does not brighten")
) -> str:
    """'brightens on memorized local plants (7 of them; AUC 0.91 [0.85, 0.96], best trivial map 0.62)'.

    Args:
        label: a class of `values_by_class`.
        values: AUC of a map for each plant of the class.
        trivial: see `best_trivial`.
        verbs: what the map does if the interval of its mean lies above the best trivial map, and if it lies below.
    """
    if not len(values):
        return f"cannot be decided on {label} (0 of them)"
    mean, rival = float(values.mean()), trivial.get(label)
    beside = f", best trivial map {rival:.2f}" if rival is not None else ", no trivial map measured"
    if len(values) < 2 or rival is None:
        return f"cannot be decided on {label} ({len(values)} of them; AUC {mean:.2f}{beside})"
    interval = bootstrap(values)
    interval = exact_at_bounds(Estimate(mean, interval.low, interval.high), len(values))
    above, below = interval.low > rival, interval.high < rival
    verb = verbs[0] if above else verbs[1] if below else "is not distinguishable from the best trivial map"
    return f"{verb} on {label} ({len(values)} of them; AUC {interval}{beside})"


def token_group_table(run: Run) -> Table:
    """AUC of the map of each token group on each class with intervals, and the group's share of the attention on local plants."""
    rows, counts = [], {label: len(values) for label, values in values_by_class(run, ENDING).items()}
    for group, (name, mass) in GROUP_MAPS.items():
        classes = values_by_class(run, name)
        if any(len(values) for values in classes.values()):
            share = run.numbers[run.last].get(f"measure/local/attention_mass.{mass}.all")
            cells = [mean_cell(of.to_numpy()) if len(of) > 1 else number_cell(next(iter(of), None), ".2f") for of in classes.values()]
            rows.append(Row(group, [*cells, number_cell(share, ".2f")]))
    trivial = best_trivial(run)
    if rows:
        cells = [number_cell(trivial.get(label), ".2f") for label in counts]
        rows.append(Row("best trivial map", [*cells, Cell("")], remark="trivial", shaded=True))
    head = ["attention to", *(f"{label} ({count})" for label, count in counts.items()), "share of the attention, local plants"]
    return Table(head, rows)
