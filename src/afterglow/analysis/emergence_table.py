"""Emergence of a run from the rows of all its evaluations: which plant became memorized in which interval of steps."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pandas as pd

from afterglow import keys
from afterglow.analysis.emergence import (
    ASSIGNED,
    COMPLETED,
    COPIED_WHOLE,
    DEFINITION,
    NUM_CONFIRMATIONS,
    emergence_interval,
    emergence_quartiles,
    finite_or_none,
)
from afterglow.analysis.summary import with_families
from afterglow.functional.survival import Interval

IN_MASK, IN_REGION = "", ".region"  # evaluated in the plant's mask, or (a global plant) in the region that it has in the other arm
_CONFIRMED = tuple(f"confirm.{turn + 1}" for turn in range(NUM_CONFIRMATIONS))
WHOLE = ".whole"  # copies of a whole image of a family, or of a local plant that cycles through backgrounds
NEIGHBORS = "neighbor_clusters"  # number of other clusters that calibrate a distance, of the whole run
UNSEEN_MEMORIZED = "unseen.memorized"  # the test of generations without a caption on real images that the model never saw
OTHER_DEFINITIONS = {
    WHOLE: COPIED_WHOLE,
    ".outpainted": f"{COMPLETED}; known: what was trained with the region, or the other half of a whole image",
    ".outpainted_fresh": f"{COMPLETED}; known: held-out images around the region",
}


def memorized_history(rows: pd.DataFrame, within: str = IN_MASK) -> dict[int, tuple[list[int], list[bool]]]:
    """{plant_id: (steps of its evaluations, whether it was memorized at each)}.

    within: IN_MASK, IN_REGION or a key of OTHER_DEFINITIONS.
    """
    seen = rows[rows["measure"] == f"plant_memorized{within}"].sort_values("step")
    return {int(number): (part["step"].tolist(), (part["value"] > 0.5).tolist()) for number, part in seen.groupby("plant_id")}


def emergence_intervals(rows: pd.DataFrame, within: str = IN_MASK) -> dict[int, Interval]:
    """{plant_id: interval of steps in which it emerged}, from the rows of all evaluations of a run."""
    confirmed = rows[rows["measure"].isin([name + within for name in _CONFIRMED])].sort_values("measure")
    answers = {int(number): (part["value"] > 0.5).tolist() for number, part in confirmed.groupby("plant_id")}
    return {number: emergence_interval(*seen, answers.get(number, [])) for number, seen in memorized_history(rows, within).items()}


def emergence_of(rows: pd.DataFrame) -> dict[str, Any]:
    """Content of emergence.json: for each kind the plants, the number memorized at the last evaluation, intervals and quartiles.

    The same stands under whole for copies of whole images, and under outpainted and outpainted_fresh for a model without text.
    """
    rows, steps = with_families(rows), sorted(rows["step"].unique().tolist())
    names = [f"{name}{within}" for name in ("plant_memorized", *_CONFIRMED) for within in (IN_MASK, *OTHER_DEFINITIONS)]
    unseen, neighbors = rows[rows["measure"] == UNSEEN_MEMORIZED], rows[rows["measure"] == NEIGHBORS]["value"]
    rows = rows[rows["measure"].isin(["extracted", *names])]
    definition = ASSIGNED if (rows["measure"] == "extracted").any() else DEFINITION
    found: dict[str, Any] = {"definition": definition, "evaluation_steps": steps, "probe_ratio": _spacing(steps)}
    found["kinds"] = _kinds_of(rows, steps, IN_MASK)
    if len(neighbors):
        found[NEIGHBORS] = int(neighbors.iloc[-1])
    if len(unseen):
        found["unseen"] = {"images": len(unseen), "memorized": int((unseen["value"] > 0.5).sum())}
    for within, definition in OTHER_DEFINITIONS.items():
        if kinds := _kinds_of(rows, steps, within):
            found[within[1:]] = {"definition": definition, "kinds": kinds}
    return found


def _kinds_of(rows: pd.DataFrame, steps: list[int], within: str) -> dict[str, Any]:
    history, emerged, found = memorized_history(rows, within), emergence_intervals(rows, within), dict[str, Any]()
    kinds = rows.drop_duplicates("plant_id").set_index("plant_id")["kind"]
    for kind in dict.fromkeys(kinds[number] for number in history):
        numbers = [number for number in history if kinds[number] == kind]
        count = sum(history[number][1][-1] for number in numbers)
        # a kind that only the last evaluation samples (controls) has no time of emergence
        if all(len(history[number][0]) < len(steps) for number in numbers):
            found[kind] = {"plants": len(numbers), "memorized": count}
            continue
        intervals = {number: emerged[number] for number in numbers}
        found[kind] = {
            "memorized": count,
            "intervals": {str(number): [i.lower, finite_or_none(i.upper)] for number, i in intervals.items()},
            **emergence_quartiles(list(intervals.values())),
        }
    return found


def emergence_summary(found: Mapping[str, Any]) -> dict[str, Any]:
    """W&B summary: the median step of each kind, its interval, and the number of censored plants."""
    numbers: dict[str, Any] = {}
    named = {"": found["kinds"]} | {f"_{name[1:]}": found[name[1:]]["kinds"] for name in OTHER_DEFINITIONS if name[1:] in found}
    for suffix, kind, about in ((suffix, kind, about) for suffix, kinds in named.items() for kind, about in kinds.items()):
        if "median" in about:
            numbers[keys.emergence(kind + suffix, "step")] = about["median"]["step"]
            numbers[keys.emergence(kind + suffix, "interval")] = [about["median"]["low"], about["median"]["high"]]
            numbers[keys.emergence(kind + suffix, "censored")] = about["censored"]
    return numbers


def _spacing(steps: list[int]) -> float | None:
    """The largest ratio of neighboring evaluation steps after step 0."""
    return max((b / a for a, b in pairwise(step for step in steps if step > 0)), default=None)
