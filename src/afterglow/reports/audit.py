"""Results of `afterglow audit`: text, a table and a page with a gallery."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from afterglow import keys
from afterglow.analysis.audit import NO_COPY, PART_COPY, VERDICTS, WHOLE_COPY, Unseen
from afterglow.cache import atomic_path
from afterglow.functional.statistics import exact_interval
from afterglow.generations import Generations
from afterglow.reports.images import inline_image
from afterglow.reports.page import render
from afterglow.reports.tables import text_table

MAX_CARDS, MAX_COPIES = 400, 20  # images of the page, lines of the terminal
COPIED = (WHOLE_COPY, PART_COPY)
NO_JUDGE = "no image"


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        tables: what `judge_images` returns for each checkpoint, in the order of the training, with a column checkpoint; the last one has
            a column since.
        names: names of the N images.
        captions: their captions.
        pixels: the images, uint8 [N, C, H, W].
        grid: tiles per side.
        unseen: images that the model never saw, at the last checkpoint.
        held_out: whether these are held-out images that were audited like the others; if not, they are the images themselves, each
            compared with the others.
        prompts: caption of each generation.
        parts: generations of the last checkpoint, `part_size` in each part.
        facts: settings for the page.
    """

    tables: Sequence[pd.DataFrame]
    names: Sequence[str]
    captions: Sequence[str]
    pixels: Any
    grid: int
    unseen: Unseen
    held_out: bool
    prompts: Sequence[str]
    parts: Sequence[Path]
    part_size: int
    facts: Mapping[str, object]

    @cached_property
    def last(self) -> pd.DataFrame:
        """The rows of the last checkpoint with names and captions, copies first and the most certain first."""
        return self.named(self.tables[-1]).assign(row=np.arange(len(self.names))).pipe(_by_verdict)

    @cached_property
    def distinct(self) -> pd.DataFrame:
        """`last`, of the images that share a copy only the first."""
        repeated = self.last.duplicated(["verdict", "generation", "calibrated_l2"]) & (self.last["verdict"] != NO_COPY)
        return self.last[~repeated]

    def named(self, table: pd.DataFrame) -> pd.DataFrame:
        """The rows of one checkpoint as audit.parquet has them; left, top, right, bottom: box around the copied tiles, from 0 to 1."""
        edges = np.array([_box(tiles, self.grid) for tiles in table["tiles"]])
        boxes = dict(zip(("left", "top", "right", "bottom"), edges.T, strict=True))
        judging = {WHOLE_COPY: len(self.unseen.judging(WHOLE_COPY)), PART_COPY: len(self.unseen.judging(PART_COPY))}
        prompts = [self.prompts[number] for number in table["generation"]]
        limits = table["verdict"].map({**self.unseen.limits, NO_COPY: np.nan})
        return pd.DataFrame({"file_name": self.names, "caption": self.captions}).assign(
            **table, **boxes, limit=limits, unseen=table["verdict"].map(judging).fillna(0).astype(int), generation_caption=prompts
        )

    def count(self, verdict: str) -> int:
        """Number of images with a verdict at the last checkpoint."""
        return int((self.last["verdict"] == verdict).sum())

    @cached_property
    def answer(self) -> str:
        """What the audit found, in one or two sentences."""
        total, samples = len(self.names), len(self.prompts)
        whole, part = self.count(WHOLE_COPY), self.count(PART_COPY)
        if whole + part:
            return f"Of {total:,} images, {whole:,} are copied whole and {part:,} in part by {samples:,} generations."
        return (
            f"Nothing is copied: none of {samples:,} generations is a copy of one of the {total:,} images, whole or in part. With 95 % "
            f"confidence at most {exact_interval(0, samples)[1]:.1%} of the model's generations are such copies."
        )

    @cached_property
    def notes(self) -> list[str]:
        """What limits the answer, and what the copied images have in common."""
        notes = []
        for verdict, limit in self.unseen.limits.items():
            if limit < 0.5:
                advice = "." if self.held_out else ": name images that the model never saw with --heldout."
                notes.append(
                    f"The limit for '{verdict}' is {limit:.2f} instead of 1, since images of this kind resemble each other, and most such "
                    f"copies are not told from resemblance{advice}"
                )
            passed, judging = self.unseen.passing(verdict)
            if passed > 0.05 * judging:
                notes.append(f"{passed} of {judging} images that are no copies pass the test for '{verdict}': try fewer tiles (--grid).")
        missing = len(set(self.captions) - set(self.prompts)) if any(self.prompts) else 0
        if missing:
            notes.append(f"{missing:,} of {len(set(self.captions)):,} captions were not sampled: raise --num-images.")
        copied = self.last["verdict"] != NO_COPY
        shared = self.last["duplicates"] > 0
        if copied.any() and shared.any():
            notes.append(
                f"{int((shared & copied).sum()):,} of {int(copied.sum()):,} copied images have near-duplicates in the set, and "
                f"{int((shared & ~copied).sum()):,} of {int((~copied).sum()):,} others: `afterglow near-duplicates` lists them."
            )
        return notes

    def counts(self) -> list[list[str]]:
        """One row per kind of copy: images, generations, and images that the model never saw that pass the same test."""
        rows = []
        for verdict in COPIED:
            passed, judging = self.unseen.passing(verdict)
            low, high = exact_interval(passed, judging)
            floor = f"{passed} of {judging} ({low:.1%} to {high:.1%})" if judging else NO_JUDGE
            images = f"{self.count(verdict):,} of {len(self.names):,}"
            rows.append([verdict, images, f"{self.unseen.limits[verdict]:.2f}", floor])
        return rows


COUNT_HEAD = ("verdict", "images", "limit", "false positives (95 %, exact)")


def _by_verdict(table: pd.DataFrame) -> pd.DataFrame:
    order = table["verdict"].map({name: place for place, name in enumerate(VERDICTS)})
    return table.assign(order=order).sort_values(["order", "calibrated_l2", "distance"], kind="stable").drop(columns="order")


def _box(tiles: Sequence[int], grid: int) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of the box around tiles that are numbered row by row; NaN without any."""
    if not len(tiles):
        return (np.nan,) * 4
    y, x = np.divmod(np.array(tiles), grid)
    return x.min() / grid, y.min() / grid, (x.max() + 1) / grid, (y.max() + 1) / grid


def where_text(row: Any) -> str:
    """The box of a row of the table: 'x 50 to 100 %, y 0 to 50 %'; empty without one."""
    if np.isnan(row.left):
        return ""
    return f"x {100 * row.left:.0f} to {100 * row.right:.0f} %, y {100 * row.top:.0f} to {100 * row.bottom:.0f} %"


def waiting_text(captions: Sequence[str], prompts: Sequence[str], num_states: int, seconds: float) -> str:
    """What will be sampled, and how long it will take."""
    models = f" from each of {num_states} checkpoints" if num_states > 1 else ""
    how = f"with {len(set(prompts) & set(captions)):,} of {len(set(captions)):,} captions" if any(prompts) else "without captions"
    time = f"{seconds:.0f} seconds" if seconds < 100 else f"{seconds / 60:.0f} minutes" if seconds < 6000 else f"{seconds / 3600:.1f} hours"
    return f"Sampling {len(prompts):,} images{models} {how}, to be compared with {len(captions):,} images: about {time} ..."


def audit_text(audit: Audit) -> str:
    """The answer, the counts, and the most certain copies for a terminal."""
    copied = audit.distinct[audit.distinct["verdict"] != NO_COPY]
    several = len(audit.tables) > 1
    head = ["file", "others alike", "caption", "verdict", "where", "distance", "generations", *(["since"] if several else [])]
    rows = [
        [
            row.file_name,
            str(row.shared_with),
            row.caption[:40],
            row.verdict,
            where_text(row),
            f"{row.calibrated_l2:.2f}",
            str(row.generations),
        ]
        + ([row.since] if several else [])
        for row in copied.head(MAX_COPIES).itertuples()
    ]
    more = [f"... and {len(copied) - MAX_COPIES:,} more in audit.parquet."] if len(copied) > MAX_COPIES else []
    parts = [audit.answer, text_table(COUNT_HEAD, audit.counts()), *([text_table(head, rows)] if rows else []), *more, *audit.notes]
    return "\n\n".join(parts)


def write_audit(audit: Audit, folder: Path) -> dict[str, float]:
    """Write audit.parquet and audit.html; return the numbers for the tracker."""
    rows = pd.concat([audit.named(table) for table in audit.tables], ignore_index=True)
    for name, write in (
        ("audit.parquet", lambda path: rows.to_parquet(path, index=False)),
        ("audit.html", lambda path: path.write_text(_page(audit), encoding="utf-8")),
    ):
        with atomic_path(folder / name) as path:
            write(path)
    return {keys.audit(verdict): audit.count(verdict) / len(audit.names) for verdict in COPIED}


def _page(audit: Audit) -> str:
    @lru_cache(maxsize=8)
    def part(number: int) -> np.ndarray:
        return Generations.load(audit.parts[number]).images.numpy()

    shown = audit.distinct.head(MAX_CARDS)
    drawn = {}
    for number in sorted(set(shown["generation"])):
        drawn[number] = part(number // audit.part_size)[number % audit.part_size]
    cards = []
    for row in shown.itertuples():
        image = np.asarray(audit.pixels[np.array([row.row])][0])
        tiles = np.isin(np.arange(audit.grid**2), row.tiles).reshape(audit.grid, audit.grid)
        mask = np.kron(tiles, np.ones((image.shape[-1] // audit.grid,) * 2, bool)) if row.tiles else None
        pair = [
            inline_image(image, f"your image {row.file_name}", mask=mask, note="your image"),
            inline_image(drawn[row.generation], f"generation {row.generation}", mask=mask, note=f"generation {row.generation}"),
        ]
        cards.append({"row": row, "pair": pair, "where": where_text(row)})
    facts = {**audit.facts, "Generations": f"{len(audit.prompts):,}", "Checkpoints": len(audit.tables) if len(audit.tables) > 1 else None}
    timeline = [[table["checkpoint"].iloc[0], *(str(Counter(table["verdict"])[verdict]) for verdict in COPIED)] for table in audit.tables]
    contents = {
        "title": f"Which images does {audit.facts['Model']} copy?",
        "audit": audit,
        "facts": [(label, str(value)) for label, value in facts.items() if value is not None],
        "cards": cards,
        "head": COUNT_HEAD,
        "verdicts": [(name, audit.count(name)) for name in VERDICTS],
        "copied": COPIED,
        "timeline": timeline if len(timeline) > 1 else [],
    }
    return render("audit.html.jinja", contents, {})
