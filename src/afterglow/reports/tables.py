"""What was planted, what was memorized and when, as tables."""

from collections.abc import Sequence

import pandas as pd

from afterglow.reports.cells import NO_PLANTS, Cell, Row, Table, counted, decimal, percent, when
from afterglow.reports.kinds import KINDS
from afterglow.reports.run import Run

EMPTY = pd.Series(dtype=float)  # of a measure that the run did not ask for


def planted_table(run: Run) -> Table:
    """Counts, copies and shapes of each kind."""
    rows = []
    for kind in KINDS.values():
        plants = [about for about in run.plants.values() if about["kind"] == kind.name]
        if plants:
            copies, shapes = (list(dict.fromkeys(about[name] for about in plants)) for name in ("copies", "shape"))
            cells = [str(len(plants)), ", ".join(map(str, sorted(copies))), ", ".join(shapes), kind.meaning]
            rows.append(Row(kind.name, [Cell(text) for text in cells], kind.name))
    return Table(["kind", "plants", "copies an epoch", "mask shapes", "what it is"], rows)


def emergence_rows(run: Run) -> Table:
    """Quartiles of the step of emergence for each kind; the definition and the spacing stand beside it on the page."""
    rows = []
    for kind in [kind for kind in KINDS if kind in run.emergence["kinds"]]:
        about = run.emergence["kinds"][kind]
        cells = [Cell(str(about["plants"])), Cell(str(about["memorized"]))]
        if "median" in about:
            quartiles = [when(about[name], run.last) for name in ("first_quartile", "median", "third_quartile")]
            cells += [Cell(str(about["censored"])), *quartiles]
        else:
            cells += [Cell("only the last probe looked"), *[NO_PLANTS] * 3]
        rows.append(Row(kind, cells, kind))
    return Table(
        ["kind", "plants", "memorized at the end", "censored", "a quarter by step", "half by step", "three quarters by step"], rows
    )


def confirmations(run: Run) -> Table:
    """Plants that the last two probes left open, asked again with fresh seeds on the final weights."""
    rows = []
    for kind in run.kinds:
        asked = [run.last_values.get((kind, f"confirm.{turn}")) for turn in (1, 2)]
        if asked[0] is not None:
            cells = [NO_PLANTS if values is None else counted(int((values > 0.5).sum()), len(values)) for values in asked]
            rows.append(Row(kind, cells, kind))
    return Table(["kind", "memorized again at the first set of seeds", "at the second"], rows)


def raw_weights(run: Run) -> Table:
    """The last probe on the raw weights beside the same on their average."""
    rows = []
    for kind in run.kinds:
        raw = run.last_values.get((kind, "ema_off.plant_memorized"))
        if raw is not None:
            average = run.last_values[kind, "plant_memorized"]
            counts = [counted(int((values > 0.5).sum()), len(values)) for values in (average, raw)]
            numbers = run.numbers[run.last]
            distances = [decimal(numbers.get(f"measure/{kind}/{name}")) for name in ("calibrated_l2", "ema_off.calibrated_l2")]
            rows.append(Row(kind, [*counts, *distances], kind))
    head = ["kind", "averaged weights", "raw weights", "averaged", "raw"]
    return Table(head, rows, [("", 1), ("memorized plants", 2), ("mean calibrated distance", 2)])


def local_to_global(run: Run) -> Table:
    """Local plants whose outside is copied too."""
    rows = []
    for kind in ("local", "natural"):
        copied = run.last_values.get((kind, "local_to_global"))
        if copied is not None:
            diversity = decimal(run.numbers[run.last].get(f"measure/{kind}/outside_diversity"))
            rows.append(Row(kind, [counted(int((copied > 0.5).sum()), len(copied)), diversity], kind))
    return Table(["kind", "copied outside the mask too", "mean outside diversity"], rows)


def in_shapes(run: Run) -> Table:
    """Controls judged in the masks of local plants, and phantoms in their own, at each probe that looked."""
    shapes = [name.removeprefix("memorized_in.") for name in run.rows["measure"].unique() if name.startswith("memorized_in.")]
    steps = [step for step in run.steps if any(f"measure/control/memorized_in.{shape}" in run.numbers[step] for shape in shapes)]
    rows = []
    for shape in shapes:
        values = [run.numbers[step].get(f"measure/control/memorized_in.{shape}") for step in steps]
        rows.append(Row(shape, [*map(percent, values), _phantoms(run, shape)]))
    return Table(["mask", *(f"controls, step {step}" for step in steps), "phantoms of this shape, last probe"], rows)


def _phantoms(run: Run, shape: str) -> Cell:
    values = run.last_values.get(("phantom", "plant_memorized"))
    if values is None:
        return NO_PLANTS
    chosen = values[[run.plants.get(number, {}).get("shape") == shape for number in values.index]]
    return counted(int((chosen > 0.5).sum()), len(chosen))


def every_plant(run: Run) -> Table:
    """One row a plant: the last probe, and when it emerged."""
    rows = [_plant(run, number) for number, about in run.plants.items() if about["kind"] in run.kinds]
    head = ["caption", "plant", "shape", "copies", "memorized", "calibrated distance", "correlation", "emerged after step", "by step"]
    return Table(head, rows)


def _plant(run: Run, number: int) -> Row:
    about = run.plants[number]
    values = [run.last_values.get((about["kind"], name), EMPTY).get(number) for name in ("plant_memorized", "calibrated_l2", "correlation")]
    text = [Cell(str(about[name])) for name in ("plant_id", "shape", "copies")]
    between = run.emergence["kinds"].get(about["kind"], {}).get("intervals", {}).get(str(number))
    yes = NO_PLANTS if values[0] is None else Cell("yes" if values[0] > 0.5 else "no", repr(float(values[0])))
    return Row(about["text"], [*text, yes, *map(decimal, values[1:]), *_between(between)], about["kind"])


def _between(interval: Sequence[float | None] | None) -> list[Cell]:
    if interval is None:
        return [NO_PLANTS, NO_PLANTS]
    low, high = interval
    return [Cell(f"{low:.0f}"), Cell("censored" if high is None else f"{high:.0f}")]
