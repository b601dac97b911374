"""Results of an audit: text, and a page with a gallery."""

from collections.abc import Sequence
from pathlib import Path

from afterglow import keys
from afterglow.analysis.audit import NO_COPY
from afterglow.analysis.audit_result import COPIED, AuditResult, distinct
from afterglow.cache import atomic_path
from afterglow.reports.audit_advice import advice
from afterglow.reports.audit_gallery import audit_answer, contents, count_head, count_notes, counts, where_text
from afterglow.reports.page import render
from afterglow.reports.tables import duration, text_table

MAX_COPIES = 20  # lines of the terminal


def waiting_text(captions: Sequence[str], prompts: Sequence[str], num_states: int, seconds: float) -> str:
    """What will be sampled, and how long it will take."""
    models = f" from each of {num_states} checkpoints" if num_states > 1 else ""
    how = f"with {len(set(prompts) & set(captions)):,} of {len(set(captions)):,} captions" if any(prompts) else "without captions"
    return f"Sampling {len(prompts):,} images{models} {how}, to be compared with {len(captions):,} images: about {duration(seconds)} ..."


def audit_text(result: AuditResult) -> str:
    """The answer, the counts, and the most certain copies for a terminal."""
    copied = distinct(result.last)
    copied = copied[copied["verdict"] != NO_COPY]
    head = ["file", "others alike", "caption", "verdict", "where", "distance", "generations", "since"]
    rows = [
        [
            row.file_name,
            str(row.others_alike),
            row.caption[:40],
            row.verdict,
            where_text(row),
            f"{row.calibrated_l2:.2f}",
            str(row.generations),
            row.since,
        ]
        for row in copied.head(MAX_COPIES).itertuples()
    ]
    if len(result.checkpoints) == 1:
        head, rows = head[:-1], [row[:-1] for row in rows]
    more = [f"... and {len(copied) - MAX_COPIES:,} more in audit.parquet."] if len(copied) > MAX_COPIES else []
    table = [text_table(head, rows)] if rows else []
    counted = [text_table(count_head(result), counts(result)), *count_notes(result)]
    return "\n\n".join([audit_answer(result), *counted, *table, *more, *advice(result)])


def write_audit(result: AuditResult, folder: Path) -> dict[str, float]:
    """Write the result and audit.html; return the numbers for the tracker."""
    result.save(folder)
    with atomic_path(folder / "audit.html") as path:
        model = result.facts.settings["model"]
        path.write_text(
            render("audit.html.jinja", {"title": f"Which images does {model} copy?", "gallery": contents(result)}, {}), encoding="utf-8"
        )
    return {keys.audit(verdict): result.count(verdict) / len(result.last) for verdict in COPIED}
