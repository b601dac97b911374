"""What the page of an audit or of a run shows of it: the answer, counts, and a gallery."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from afterglow.analysis.audit import NO_COPY, VERDICTS
from afterglow.analysis.audit_result import COPIED, AuditResult, distinct
from afterglow.functional.statistics import exact_interval
from afterglow.reports.audit_advice import advice
from afterglow.reports.images import inline_image

NO_RATE = (
    "No image was given that the model never saw, so the rate of false positives is not known and no interval is given: the last column "
    "counts your own images, each compared with the others. Name images of the same kind with --heldout."
)


def audit_answer(result: AuditResult) -> str:
    """What the audit found, in one or two sentences."""
    total, samples = len(result.last), result.facts.samples
    whole, part = map(result.count, COPIED)
    if whole + part:
        copied = result.last[result.last["verdict"] != NO_COPY]
        copies = len(distinct(copied))
        shared = f" (distinct copies: {copies:,})" if copies < len(copied) else ""
        return f"Of {total:,} images, {whole:,} are copied whole and {part:,} in part by {samples:,} generations{shared}."
    nothing = f"Nothing is copied: none of {samples:,} generations is a copy of one of the {total:,} images, whole or in part."
    if not result.facts.held_out:
        return nothing
    return f"{nothing} With 95 % confidence at most {exact_interval(0, samples)[1]:.1%} of the model's generations are such copies."


def count_head(result: AuditResult) -> tuple[str, ...]:
    """The columns of `counts`."""
    return "verdict", "images", "limit", "false positives (95 %)" if result.facts.held_out else "your images that pass"


def count_notes(result: AuditResult) -> list[str]:
    """What the counts rest on: the number of neighbors, and why there is no interval."""
    used = result.facts.neighbors
    known = [] if used is None else [f"Number of nearest other clusters (in a region: other images) that calibrate a distance: {used}."]
    return known if result.facts.held_out else [*known, NO_RATE]


def counts(result: AuditResult) -> list[list[str]]:
    """One row per kind of copy: images, limit, and images that are not copies and pass the same test, with an interval if held out."""
    rows = []
    for verdict in COPIED:
        limit, passed, unseen = result.facts.limits[verdict]
        false_positives = f"{passed} of {unseen}" if unseen else "no image"
        if unseen and result.facts.held_out:
            low, high = exact_interval(passed, unseen)
            false_positives += f" ({low:.1%} to {high:.1%})"
        rows.append([verdict, f"{result.count(verdict):,} of {len(result.last):,}", f"{limit:.2f}", false_positives])
    return rows


def where_text(row: Any) -> str:
    """The box of a row of the table: 'x 50 to 100 %, y 0 to 50 %'; empty without one."""
    if math.isnan(row.left):
        return ""
    return f"x {100 * row.left:.0f} to {100 * row.right:.0f} %, y {100 * row.top:.0f} to {100 * row.bottom:.0f} %"


def run_gallery(run: Path) -> dict[str, Any] | None:
    """The contents of the audit of a training; None if it has none."""
    folder = run / "audit"
    return contents(AuditResult.load(folder)) if (folder / "audit.parquet").is_file() else None


def contents(result: AuditResult) -> dict[str, Any]:
    """What the gallery of a page needs."""
    found = {name: Counter(part["verdict"]) for name, part in result.rows.groupby("checkpoint", sort=False)}
    rows = [[name, *(str(verdicts[verdict]) for verdict in COPIED)] for name, verdicts in found.items()]
    settings = {"generations": f"{result.facts.samples:,}", **result.facts.settings}
    return {
        "answer": audit_answer(result),
        "facts": [(label, str(value)) for label, value in settings.items() if value],
        "counts": counts(result),
        "count_head": count_head(result),
        "count_notes": count_notes(result),
        "held_out": result.facts.held_out,
        "advice": advice(result),
        "cards": _cards(result),
        "total": len(result.last),
        "verdicts": [(name, result.count(name)) for name in VERDICTS],
        "copied": COPIED,
        "timeline": rows if len(rows) > 1 else [],
    }


def _cards(result: AuditResult) -> list[dict[str, Any]]:
    """The shown images in the order of the verdicts, each beside its best copy or nearest generation."""
    pairs, cards = result.pairs, []
    rows = result.rows[result.rows["checkpoint"] == result.checkpoints[-1]].reset_index(drop=True)
    assert pairs.plant_id is not None and pairs.references is not None and pairs.eval_mask is not None
    for place, row in enumerate(rows.loc[pairs.plant_id.tolist()].itertuples()):
        mask = pairs.eval_mask[place, 0].numpy()
        outline = mask if mask.any() else None
        images = [
            inline_image(np.asarray(image[place]), title, mask=outline, note=note)
            for image, title, note in (
                (pairs.references, f"your image {row.file_name}", "your image"),
                (pairs.images, f"generation {row.generation}", f"generation {row.generation}"),
            )
        ]
        cards.append({"row": row, "pair": images, "where": where_text(row)})
    return cards
