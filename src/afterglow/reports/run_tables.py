"""Tables of a run's page: what was planted, what was memorized and when, how well maps localize and scores detect."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from afterglow.analysis.emergence_table import NEIGHBORS
from afterglow.analysis.summary import INVERTED, INVERTIBLE
from afterglow.errors import AfterglowError, reading
from afterglow.files import read_json
from afterglow.kinds import CONTROL_FAMILY, KINDS, NEGATIVES, NOT_MEMORIZED, PLANTED
from afterglow.measures.registry import TRIVIAL_MAPS, is_detector
from afterglow.reports.run import Run
from afterglow.reports.tables import NO_VALUE, Cell, Row, Table, count_cell, count_text, mean_cell, number_cell, step_text, text_table

TRIVIAL = (*(measure.name for measure in TRIVIAL_MAPS), *(name + INVERTED for name in INVERTIBLE), "mask_prior")
MAIN_MAPS = ("score_difference.summed", "end_token.last.first_eos.be", "end_token.last.first_eos.all")
MAPS_WITHOUT_TEXT = ("early_difference.summed", "early_difference.last", "patch_nearness", "self_attention")
COMPARED_KINDS = (NOT_MEMORIZED, "phantom", "tint", "decoy")  # a map that finds their regions does not find copies
OTHER_EMERGENCE = {  # parts of emergence.json: title on the page
    "whole": "As a whole image",
    "outpainted": "By outpainting",
    "outpainted_fresh": "By outpainting, among held-out images",
}
CONFIRMED = "Emerged: confirmed by the next two evaluations, after the last one by generations of fresh seeds."
NO_HELDOUT = "False positives are not known without held-out images, so no interval is given (data.planting.num_heldout)."
_MEMORIZED = 0.5  # a plant is memorized if its value of plant_memorized is above


def planted_table(run: Run) -> Table:
    """Number, copies and mask shapes of each kind."""
    rows = []
    for kind in KINDS.values():
        plants = [plant for plant in run.plants.values() if plant["kind"] == kind.name]
        if plants:
            copies, shapes = (list(dict.fromkeys(plant[name] for plant in plants)) for name in ("copies", "shape"))
            cells = [str(len(plants)), ", ".join(map(str, sorted(copies))), ", ".join(shapes), kind.meaning]
            rows.append(Row(kind.name, [Cell(text) for text in cells], kind.name))
    return Table(["kind", "plants", "copies per epoch", "mask shapes", "meaning"], rows)


def emergence_table(run: Run, found: Mapping[str, Any] | None = None) -> Table:
    """Quartiles of the step of emergence for each kind. found: a part of emergence.json (outpainted); default: the whole."""
    rows, found = [], run.emergence if found is None else found
    for kind in emerging_kinds(found):
        summary = found["kinds"][kind]
        cells = [Cell(str(summary["plants"])), Cell(str(summary["memorized"]))]
        if "median" in summary:
            quartiles = [Cell(step_text(summary[name], run.last)) for name in ("first_quartile", "median", "third_quartile")]
            cells += [Cell(str(summary["censored"])), *quartiles]
        else:
            cells += [*[NO_VALUE] * 4]
        rows.append(Row(kind, cells, kind))
    quartile_heads = ["step by which 25 % emerged", "50 %", "75 %"]
    return Table(["kind", "plants", "memorized at the last evaluation", "not emerged", *quartile_heads], rows)


def confirmation_table(run: Run) -> Table:
    """Plants memorized only at the last evaluations, generated again from the final weights with fresh seeds."""
    rows = []
    for kind in run.kinds:
        confirmations = [run.last_values.get((kind, f"confirm.{number}")) for number in (1, 2)]
        if confirmations[0] is not None:
            rows.append(Row(kind, list(map(_memorized_count, confirmations)), kind))
    return Table(["kind", "memorized again with the first set of seeds", "with the second set"], rows)


def _memorized_count(values: pd.Series | None) -> Cell:
    return NO_VALUE if values is None else count_cell(int((values > _MEMORIZED).sum()), len(values))


def ema_table(run: Run) -> Table:
    """The last evaluation on averaged weights, beside the raw weights with the number of seeds of the earlier evaluations."""
    rows, numbers = [], run.numbers[run.last]
    for kind in run.kinds:
        raw = run.last_values.get((kind, "ema_off.plant_memorized"))
        if raw is not None:
            counts = [_memorized_count(values) for values in (run.last_values[kind, "plant_memorized"], raw)]
            distances = [number_cell(numbers.get(f"measure/{kind}/{name}")) for name in ("calibrated_l2", "ema_off.calibrated_l2")]
            rows.append(Row(kind, [*counts, *distances], kind))
    head = ["kind", "averaged weights", "raw weights", "averaged", "raw"]
    return Table(head, rows, [("", 1), ("memorized plants", 2), ("mean calibrated distance", 2)])


def local_to_global_table(run: Run) -> Table:
    """Local plants that are copied outside their mask as well."""
    rows = []
    for kind in ("local", "natural"):
        copied = run.last_values.get((kind, "local_to_global"))
        if copied is not None:
            diversity = number_cell(run.numbers[run.last].get(f"measure/{kind}/outside_diversity"))
            rows.append(Row(kind, [_memorized_count(copied), diversity], kind))
    return Table(["kind", "also copied outside the mask", "mean outside diversity"], rows)


def shape_table(run: Run) -> Table:
    """Controls measured in the masks of local plants, and phantoms in their own masks, at each evaluation that measured them."""
    prefix, key = "memorized_in.", "measure/control/memorized_in."
    shapes = [name.removeprefix(prefix) for name in run.measures[1] if name.startswith(prefix)]
    steps = [step for step in run.steps if any(key + shape in run.numbers[step] for shape in shapes)]
    rows = []
    for shape in shapes:
        controls = [number_cell(run.numbers[step].get(key + shape), ".0%") for step in steps]
        rows.append(Row(shape, [*controls, _memorized_count(phantoms_of_shape(run, [shape]))]))
    return Table(["mask", *(f"controls, step {step}" for step in steps), "phantoms with this mask, last evaluation"], rows)


def phantoms_of_shape(run: Run, shapes: Sequence[str]) -> pd.Series | None:
    """plant_memorized of the phantoms whose mask has one of the shapes; None if the run has none."""
    values = run.last_values.get(("phantom", "plant_memorized"))
    chosen = [run.plants.get(number, {}).get("shape") in shapes for number in ([] if values is None else values.index)]
    return values[chosen] if values is not None and any(chosen) else None


def phantom_text(run: Run) -> str:
    """False positives among the phantoms of global plants and among those of local plants."""
    local_shapes = sorted({plant["shape"] for plant in run.plants.values()} - {"whole"})
    groups = {"global": phantoms_of_shape(run, ["whole"]), "local": phantoms_of_shape(run, local_shapes)}
    parts = [f"phantoms of {kind} plants: {int((v > _MEMORIZED).sum())} of {len(v)}" for kind, v in groups.items() if v is not None]
    return "; ".join(parts)


def plant_table(run: Run) -> Table:
    """One row per plant: the last evaluation, and when it emerged."""
    rows = [_plant_row(run, number) for number, plant in run.plants.items() if plant["kind"] in run.kinds]
    head = ["caption", "plant", "shape", "copies", "memorized", "calibrated distance", "correlation", "emerged after step", "by step"]
    return Table(head, rows)


def _plant_row(run: Run, number: int) -> Row:
    plant = run.plants[number]
    kind, missing = plant["kind"], pd.Series(dtype=float)
    memorized, *values = (
        run.last_values.get((kind, name), missing).get(number) for name in ("plant_memorized", "calibrated_l2", "correlation")
    )
    text = [Cell(str(plant[name])) for name in ("plant_id", "shape", "copies")]
    verdict = NO_VALUE if memorized is None else Cell("yes" if memorized > _MEMORIZED else "no", repr(float(memorized)))
    low, high = run.emergence["kinds"].get(kind, {}).get("intervals", {}).get(str(number), (None, None))
    emerged = [NO_VALUE] * 2 if low is None else [Cell(f"{low:.0f}"), Cell("not emerged" if high is None else f"{high:.0f}")]
    return Row(plant["text"], [*text, verdict, *map(number_cell, values), *emerged], kind)


def best_end_token_map(run: Run) -> str | None:
    """The end-token map with the best mean AUC of this run: selected after seeing the results, and marked as such on the page."""
    return next((name for name in run.map_names if name.startswith("end_token.")), None)


def localization_tables(run: Run) -> tuple[Table, Table] | None:
    """The main maps below the trivial ones, and all maps. None without local plants."""
    names = run.map_names
    if not names:
        return None
    trivial, others = [name for name in names if name in TRIVIAL], [name for name in names if name not in TRIVIAL]
    best = best_end_token_map(run)
    main = [name for name in others if name in MAIN_MAPS or name.startswith("score_difference.") or name == best]
    main = main or [name for name in others if name in MAPS_WITHOUT_TEXT]
    rival = trivial[0] if trivial else None
    return _localization_table(run, trivial + main, rival), _localization_table(run, others, rival)


def _localization_table(run: Run, names: Sequence[str], rival: str | None) -> Table:
    counts = {kind: len(run.last_values.get((kind, f"auc.{run.map_names[0]}"), ())) for kind in ("local", *COMPARED_KINDS)}
    kinds = [kind for kind in COMPARED_KINDS if counts[kind]]
    without = [("AUC on kinds without a copy", len(kinds))] if kinds else []
    groups = [("", 1), (f"memorized local plants ({counts['local']})", 3), *without]
    head = ["map", "AUC", "minus the best trivial map", "IoU, threshold from other plants", *(f"{kind} ({counts[kind]})" for kind in kinds)]
    return Table(head, [_map_row(run, name, rival, kinds) for name in names], groups)


def _map_row(run: Run, name: str, rival: str | None, kinds: Sequence[str]) -> Row:
    values, numbers, trivial = run.last_values, run.numbers[run.last], name in TRIVIAL
    auc, iou, best = (values.get(("local", key)) for key in (f"auc.{name}", f"iou.{name}", f"auc.{rival}"))
    gain = NO_VALUE if auc is None or best is None or trivial else mean_cell((auc - best).to_numpy(), spec="+.2f")
    overlap = NO_VALUE if iou is None else mean_cell(iou.to_numpy(), numbers[f"localization/{name}/iou"])
    found = NO_VALUE if auc is None else mean_cell(auc.to_numpy())
    without = [values.get((kind, f"auc.{name}")) for kind in kinds]
    others = [NO_VALUE if aucs is None else number_cell(aucs.mean(), ".2f") for aucs in without]
    remark = "trivial" if trivial else "selected after seeing the results" if name == best_end_token_map(run) else ""
    return Row(name, [found, gain, overlap, *others], remark=remark, shaded=trivial)


def detection_tables(run: Run) -> tuple[Table, Table] | None:
    """Scores over all layers, and scores of single layers. None if there are no two kinds to separate."""
    names, numbers = [name for name in dict.fromkeys(run.last_rows["measure"]) if is_detector(name)], run.numbers[run.last]
    pairs = [
        (positive, negative)
        for positive in PLANTED
        for negative in NEGATIVES
        if any(f"detection/{name}/{positive}_vs_{negative}/auc" in numbers for name in names)
    ]
    if not pairs:
        return None
    single = [name for name in names if "block" in name]
    return _detection_table(run, [name for name in names if name not in single], pairs), _detection_table(run, single, pairs)


def _detection_table(run: Run, names: Sequence[str], pairs: Sequence[tuple[str, str]]) -> Table:
    numbers = run.numbers[run.last]
    keys = [*(f"{positive}_vs_{negative}" for positive, negative in pairs), "memorized_vs_rest"]
    rows = [Row(name, [number_cell(numbers.get(f"detection/{name}/{key}/auc")) for key in keys]) for name in names]
    positives = [positive for positive, _ in pairs]
    count = {kind: len(_evaluated(run, kind)) for pair in pairs for kind in pair}
    groups = [(f"{kind} ({count[kind]}) against", positives.count(kind)) for kind in dict.fromkeys(positives)]
    head = ["score", *(f"{negative} ({count[negative]})" for _, negative in pairs), "memorized against all others"]
    return Table(head, rows, [("", 1), *groups, ("generations", 1)])


def _evaluated(run: Run, kind: str) -> set[int]:
    """Plants of a kind at the last evaluation; as negatives of a detector, controls are of one kind."""
    kinds = (kind, CONTROL_FAMILY) if kind == "control" else (kind,)
    return {int(number) for name in kinds for number in run.last_values.get((name, "plant_memorized"), pd.Series(dtype=float)).index}


def emergence_text(folder: Path) -> str:
    """emergence.json of a finished run as a table for the terminal.

    Raises:
        AfterglowError: the run has not ended.
    """
    path = Path(folder) / "emergence.json"
    if not path.is_file():
        raise AfterglowError(f"There is no emergence.json in '{folder}': the run has not ended.")
    emergence = read_json(path)
    with reading(path, "emergence of a run"):
        return _emergence_text(emergence)


def _emergence_text(emergence: Mapping[str, Any]) -> str:
    rows, last = [], emergence["evaluation_steps"][-1]
    parts = {"": emergence} | {f", {name}": emergence[name] for name in OTHER_EMERGENCE if name in emergence}
    for name, kind in ((name, kind) for name, part in parts.items() for kind in emerging_kinds(part)):
        summary = parts[name]["kinds"][kind]
        emerged = [step_text(summary["median"], last), str(summary["censored"])] if "median" in summary else ["-", "-"]
        rows.append([kind + name, count_text(summary["memorized"], summary["plants"]), *emerged])
    text = [text_table(["kind", "memorized (95 %)", "median step of emergence (95 %)", "not emerged"], rows), CONFIRMED] if rows else []
    if "unprompted" in emergence["kinds"]:
        summary = emergence["kinds"]["unprompted"]
        text.append(f"Generations without a caption, memorized: {unprompted_text(emergence, summary['memorized'], summary['plants'])}.")
        text.append(false_positive_text(emergence))
    return "\n".join(filter(None, [*text, neighbors_text(emergence), evaluations_text(emergence)]))


def neighbors_text(emergence: Mapping[str, Any]) -> str:
    """The number of other clusters that were really used; empty before the end, and for a run that did not keep it."""
    return f"Other clusters that calibrate a distance: {emergence[NEIGHBORS]}." if NEIGHBORS in emergence else ""


def unprompted_text(emergence: Mapping[str, Any], memorized: float, count: int) -> str:
    """The count of generations without a caption that are copies, with an interval if false positives were counted."""
    return count_text(memorized, count) if "unseen" in emergence else f"{memorized:g} of {count}"


def false_positive_text(emergence: Mapping[str, Any]) -> str:
    """How many real images that the model never saw pass the test of generations without a caption; emergence: empty before the end."""
    if "unseen" not in emergence:
        return NO_HELDOUT if emergence else "False positives are counted at the last evaluation."
    unseen = emergence["unseen"]
    passed = count_text(unseen["memorized"], unseen["images"])
    return f"Real images that the model never saw and that pass the same test (false positives): {passed}."


def emerging_kinds(emergence: Mapping[str, Any]) -> list[str]:
    """Kinds whose items are followed over the evaluations, unlike generations without a caption, which are new images each time."""
    return [kind for kind in KINDS if kind in emergence["kinds"] and kind != "unprompted"]


def evaluations_text(emergence: Mapping[str, Any]) -> str:
    """Number and spacing of the evaluations."""
    steps, ratio = emergence["evaluation_steps"], emergence["probe_ratio"]
    spacing = f"; neighboring ones differ by at most a factor of {ratio:.2f}" if ratio else ""
    return f"{len(steps)} evaluations between steps {steps[0]} and {steps[-1]}{spacing}."
