"""What an audit found, and the files in which its folder keeps it (docs/guides/audit.md)."""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from afterglow.analysis.audit import NO_COPY, PART_COPY, VERDICTS, WHOLE_COPY, Unseen, cells_per_side, copied_mask
from afterglow.cache import atomic_path
from afterglow.errors import reading
from afterglow.files import read_json
from afterglow.generations import Generations

COPIED = (WHOLE_COPY, PART_COPY)


@dataclass(frozen=True)
class AuditFacts:
    """What was sampled and compared.

    Attributes:
        samples: number of generations of each checkpoint.
        held_out: whether the false positives are held-out images that were audited like the others; if not, they are the images themselves,
            each compared with the others.
        limits: for each kind of copy its limit, the number of unseen images below that of the other fold, and of all unseen images; at
            the last checkpoint.
        captions: number of distinct captions, and of those that were not sampled.
        settings: what else the page names.
        neighbors: number of other clusters (in a region: of other images) whose mean distance calibrates one; None: an older audit.
        caption_gain: how much the captions tell the model of the last checkpoint, and the ends of the interval; None: not measured.
    """

    samples: int
    held_out: bool
    limits: Mapping[str, tuple[float, int, int]]
    captions: tuple[int, int]
    settings: Mapping[str, Any]
    neighbors: int | None = None
    caption_gain: Sequence[float] | None = None


def audit_facts(
    unseen: Unseen, *, held_out: bool, captions: Sequence[str], prompts: Sequence[str], settings: Mapping[str, Any], neighbors: int
) -> AuditFacts:
    """The facts of an audit.

    Args:
        unseen: of the last checkpoint.
        captions: of the audited images.
        prompts: caption of each generation.
        neighbors: other clusters that calibrate a distance.
    """
    limits = {name: (unseen.limits[name], *unseen.passing(name)) for name in COPIED}
    distinct = set(captions)
    missing = len(distinct - set(prompts)) if any(prompts) else 0
    return AuditFacts(len(prompts), held_out, limits, (len(distinct), missing), settings, neighbors)


@dataclass(frozen=True)
class AuditResult:
    """What an audit found.

    Attributes:
        rows: one row per image and checkpoint, checkpoints in the order of the training, each with the images in the same order.
        pairs: the images of the last checkpoint that are shown, with the generation that is the best copy or the nearest: images are the
            generations, references the audited images, eval_mask what is copied, plant_id the row among those of the checkpoint.
    """

    rows: pd.DataFrame
    facts: AuditFacts
    pairs: Generations

    @property
    def checkpoints(self) -> list[str]:
        """Names of the checkpoints."""
        return list(dict.fromkeys(self.rows["checkpoint"]))

    @property
    def last(self) -> pd.DataFrame:
        """The rows of the last checkpoint, copies first and the most certain first."""
        return by_verdict(self.rows[self.rows["checkpoint"] == self.rows["checkpoint"].iloc[-1]].reset_index(drop=True))

    def count(self, verdict: str) -> int:
        """Number of images with a verdict at the last checkpoint."""
        return int((self.last["verdict"] == verdict).sum())

    def save(self, folder: Path) -> None:
        """Write audit.parquet, audit.json and pairs/."""
        self.pairs.save(folder / "pairs")
        for name, write in (
            ("audit.json", lambda path: path.write_text(json.dumps(asdict(self.facts), indent=1), encoding="utf-8")),
            ("audit.parquet", lambda path: self.rows.to_parquet(path, index=False)),
        ):
            with atomic_path(folder / name) as path:
                write(path)

    @classmethod
    def load(cls, folder: Path) -> "AuditResult":
        """Read a folder that `save` wrote; AfterglowError if it is broken."""
        with reading(folder, "an audit"):
            facts = AuditFacts(**read_json(folder / "audit.json"))
            return cls(pd.read_parquet(folder / "audit.parquet"), facts, Generations.load(folder / "pairs"))


def by_verdict(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of one checkpoint, copies first and the most certain first."""
    order = table["verdict"].map({name: place for place, name in enumerate(VERDICTS)})
    return table.assign(order=order).sort_values(["order", "calibrated_l2", "distance"], kind="stable").drop(columns="order")


def distinct(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of one checkpoint, of the images that share a copy only the first."""
    return rows[~(rows.duplicated(["verdict", "generation", "calibrated_l2"]) & (rows["verdict"] != NO_COPY))]


def named_rows(
    table: pd.DataFrame, names: Sequence[str], captions: Sequence[str], prompts: Sequence[str], unseen: Unseen, side: int, checkpoint: str
) -> pd.DataFrame:
    """The rows of one checkpoint as audit.parquet has them; left, top, right, bottom: box around the copied cells, from 0 to 1.

    Args:
        table: as `audit_verdicts` returns it.
        names, captions: of its images.
        prompts: caption of each generation.
        unseen: images that the model never saw, at this checkpoint.
        side: of the images, in pixels.
        checkpoint: its name.
    """
    edges = np.array([_box(cells, cells_per_side(side)) for cells in table["cells"]])
    return pd.DataFrame({"file_name": names, "caption": captions, "checkpoint": checkpoint}).assign(
        **table,
        **dict(zip(("left", "top", "right", "bottom"), edges.T, strict=True)),
        limit=table["verdict"].map({**unseen.limits, NO_COPY: np.nan}),
        unseen=np.where(table["verdict"] == NO_COPY, 0, len(unseen.part)),
        generation_caption=[prompts[number] for number in table["generation"]],
    )


def _box(cells: Sequence[int], count: int) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of the box around cells that are numbered row by row; NaN without any."""
    if not len(cells):
        return (np.nan,) * 4
    y, x = np.divmod(np.array(cells), count)
    return x.min() / count, y.min() / count, (x.max() + 1) / count, (y.max() + 1) / count


def shown_pairs(rows: pd.DataFrame, pixels: Any, generation: Callable[[int], np.ndarray], most: int) -> Generations:
    """The pairs of an AuditResult.

    Args:
        rows: of the last checkpoint.
        pixels: the audited images, uint8 [N, C, H, W].
        generation: generation of a number, uint8 [C, H, W].
        most: number of images.
    """
    shown = distinct(by_verdict(rows.reset_index(drop=True))).head(most)
    numbers = {number: generation(number) for number in sorted(set(shown["generation"]))}  # in order: a part is read once
    places = torch.tensor(shown.index.to_numpy())
    masks = np.stack([copied_mask(cells, pixels.shape[-1]) for cells in shown["cells"]])
    return Generations(
        torch.from_numpy(np.stack([numbers[number] for number in shown["generation"]])),
        tuple(shown["generation_caption"]),
        torch.tensor(shown["generation"].to_numpy()),
        torch.zeros(1, dtype=torch.int64),
        plant_id=places,
        references=torch.from_numpy(np.stack([np.asarray(pixels[np.array([row])][0]) for row in places.tolist()])),
        eval_mask=torch.from_numpy(masks)[:, None],
    )


def confirmed(rows: pd.DataFrame) -> list[list[str]]:
    """For each checkpoint but the first the names of the images that are copied at it and at the one before, the most certain first."""
    found, tables = [], [part.reset_index(drop=True) for _, part in rows.groupby("checkpoint", sort=False)]
    for before, now in itertools.pairwise(tables):
        both = (before["verdict"] != NO_COPY) & (now["verdict"] != NO_COPY)
        found.append(by_verdict(now[both])["file_name"].tolist())
    return found
