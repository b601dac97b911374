"""How well scores tell copies, and maps find planted regions, at the last probe."""

from afterglow.analysis.summary import NEGATIVES, POSITIVES
from afterglow.measures.registry import TRIVIAL_MAPS, is_detector
from afterglow.reports.cells import NO_PLANTS, Row, Table, averaged, decimal, difference
from afterglow.reports.grids import FIXED_MAPS, MAPS_WITHOUT_TEXT
from afterglow.reports.run import Run

TRIVIAL = tuple(measure.name for measure in TRIVIAL_MAPS)
COUNTERPARTS = ("phantom", "tint", "decoy")


def map_names(run: Run) -> list[str]:
    """Maps that were judged on local plants at the last probe, best mean AUC first; equal ones by name."""
    prefix, numbers = "auc.", run.numbers[run.last]
    names = [name.removeprefix(prefix) for kind, name in run.last_values if kind == "local" and name.startswith(prefix)]
    return sorted(names, key=lambda name: (-numbers[f"localization/{name}/auc"], name))


def best_end_token_map(run: Run) -> str | None:
    """Chosen after the fact, and shown as such."""
    return next((name for name in map_names(run) if name.startswith("end_token.")), None)


def localization_tables(run: Run) -> tuple[Table, Table] | None:
    """The trivial maps over those that were named in advance (and the best of the others); and all. None without local plants."""
    names = map_names(run)
    if not names:
        return None
    trivial, others = [name for name in names if name in TRIVIAL], [name for name in names if name not in TRIVIAL]
    best = best_end_token_map(run)
    named = [name for name in others if name in FIXED_MAPS or name.startswith("score_difference.") or name == best]
    named = named or [name for name in others if name in MAPS_WITHOUT_TEXT]
    rival = trivial[0] if trivial else None  # a run that measures no trivial map has nothing to compare with
    return _table(run, trivial + named, rival), _table(run, others, rival)


def _table(run: Run, names: list[str], rival: str | None) -> Table:
    counts = {kind: len(run.last_values.get((kind, f"auc.{map_names(run)[0]}"), ())) for kind in ("local", *COUNTERPARTS)}
    kinds = [kind for kind in COUNTERPARTS if counts[kind]]
    best = best_end_token_map(run)
    rows = [_row(run, name, rival, kinds, "chosen after the fact" if name == best else "") for name in names]
    groups = [("", 1), (f"local plants ({counts['local']})", 3), *([("AUC on what is not a copy", len(kinds))] if kinds else [])]
    head = ["map", "AUC", "over the best trivial map", "IoU, held-out threshold", *(f"{kind} ({counts[kind]})" for kind in kinds)]
    return Table(head, rows, groups)


def _row(run: Run, name: str, rival: str | None, kinds: list[str], mark: str) -> Row:
    values, numbers = run.last_values, run.numbers[run.last]
    area, share = values["local", f"auc.{name}"], values.get(("local", f"iou.{name}"))
    over = NO_PLANTS if rival is None or name in TRIVIAL else difference((area - values["local", f"auc.{rival}"]).to_numpy())
    overlap = NO_PLANTS if share is None else averaged(share.to_numpy(), numbers[f"localization/{name}/iou"])
    others = [decimal(numbers.get(f"localization/{name}/auc_{kind}"), digits=2) for kind in kinds]
    mark = "trivial" if name in TRIVIAL else mark
    return Row(name, [averaged(area.to_numpy(), numbers[f"localization/{name}/auc"]), over, overlap, *others], mark=mark)


def detection_tables(run: Run) -> tuple[Table, Table] | None:
    """Scores over all layers, and those of single layers; None where there is nothing to be told apart."""
    names = [name for name in dict.fromkeys(run.last_rows["measure"]) if is_detector(name)]
    pairs = [
        (positive, negative)
        for positive in POSITIVES
        for negative in NEGATIVES
        if any(f"detection/{name}.{positive}_vs_{negative}/auc" in run.numbers[run.last] for name in names)
    ]
    if not pairs:
        return None
    single = [name for name in names if "block" in name]
    return _detections(run, [name for name in names if name not in single], pairs), _detections(run, single, pairs)


def _detections(run: Run, names: list[str], pairs: list[tuple[str, str]]) -> Table:
    numbers = run.numbers[run.last]
    keys = [*(f"{positive}_vs_{negative}" for positive, negative in pairs), "memorized_vs_rest"]
    rows = [Row(name, [decimal(numbers.get(f"detection/{name}.{key}/auc")) for key in keys]) for name in names]
    positives = [positive for positive, _ in pairs]
    groups = [(f"{kind} ({_count(run, kind)}) against", positives.count(kind)) for kind in dict.fromkeys(positives)]
    head = ["score", *(f"{negative} ({_count(run, negative)})" for _, negative in pairs), "memorized against all others"]
    return Table(head, rows, [("", 1), *groups, ("generations", 1)])


def _count(run: Run, kind: str) -> int:
    return len(run.last_values[kind, "plant_memorized"])
