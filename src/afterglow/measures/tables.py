"""Measured values => tidy rows, and measured collections => a parquet file, part by part."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from afterglow.generations import Generations, check_finite, parts_of
from afterglow.measures.localization import map_auc
from afterglow.measures.registry import chosen, maps, measure, scores

log = logging.getLogger(__name__)

MUST_AGREE = ("model", "scheduler", "steps", "guidance_scale", "scheduler_options", "dtype", "end_token", "pads_masked")


def frame(generations: Generations, rows: Tensor, name: str, values: Tensor) -> pd.DataFrame:
    """Tidy rows of some generations: plant_id, kind, caption, seed, measure, value."""
    chosen = rows.tolist()
    return pd.DataFrame(
        {
            "plant_id": ids(generations, rows),
            "kind": [generations.kind[i] for i in chosen],
            "caption": [generations.caption[i] for i in chosen],
            "seed": generations.seed[rows].tolist(),
            "measure": name,
            "value": np.asarray(values, dtype=np.float64),
        }
    )


def localization_rows(generations: Generations, soft: Mapping[str, Tensor]) -> list[pd.DataFrame]:
    """auc.<map> wherever there is a region to be found and an outside to be told from it."""
    assert generations.region is not None
    share = generations.region.flatten(1).float().mean(1)
    rows = ((share > 0) & (share < 1)).nonzero()[:, 0]
    if not len(rows):
        return []
    return [frame(generations, rows, f"auc.{name}", map_auc(values[rows], generations.region[rows])) for name, values in soft.items()]


def ids(generations: Generations, rows: Tensor) -> list[int]:
    """plant_id of some generations."""
    assert generations.plant_id is not None
    return generations.plant_id[rows].tolist()


def rows_of(generations: Generations, patterns: Sequence[str] = ("*",)) -> pd.DataFrame:
    """One row for each generation and score, and the AUC of each map wherever there is a region; absent values have no row."""
    found = measure(generations, chosen(scores(generations), patterns))
    frames = [frame(generations, torch.arange(len(generations)), name, values) for name, values in found.items()]
    if generations.region is not None:
        frames += localization_rows(generations, measure(generations, chosen(maps(generations), patterns)))
    shapes = generations.shape or ("whole",) * len(generations)
    shape = dict(zip(zip(ids(generations, torch.arange(len(generations))), generations.seed.tolist(), strict=True), shapes, strict=True))
    rows = pd.concat(frames, ignore_index=True).dropna(subset="value")
    return rows.assign(shape=[shape[key] for key in zip(rows["plant_id"], rows["seed"], strict=True)])


def read_parts(folders: Sequence[Path], *, mixed: bool = False) -> Iterator[tuple[Path, Generations]]:
    """(collection, generations) of every part, one in memory at a time.

    Raises ValueError where parts were made by different samplers or models and that was not asked for, or hold NaN.
    """
    first: tuple[Path, Mapping[str, Any]] | None = None
    for folder in folders:
        for part in parts_of(folder):
            generations = Generations.load(part)
            first = first or (part, generations.provenance)
            differ = [name for name in MUST_AGREE if generations.provenance.get(name) != first[1].get(name)]
            if differ and not mixed:
                raise ValueError(f"'{part}' and '{first[0]}' differ in {', '.join(differ)}: measure them apart, or say --mixed.")
            check_finite(generations)
            yield folder, generations


def write_rows(folders: Sequence[Path], file: Path, patterns: Sequence[str] = ("*",), *, mixed: bool = False) -> int:
    """Measure collections into one parquet file (columns of rows_of, and run); returns the number of rows.

    run: within which kinds are told apart: a collection of what a run planted, or all lists of captions that one model was asked
    for, whose entries are then numbered through. Names that nothing was measured for are said: their input is absent, which is not zero.
    """
    writer, count, seen = None, 0, set()
    lists: dict[Path, int] = {}  # entries of each list of captions
    first: dict[Path, int] = {}  # number of its first entry
    unfinished = file.with_name(f"{file.name}.unfinished")
    try:
        for folder, generations in read_parts(folders, mixed=mixed):
            rows = rows_of(generations, patterns).assign(run=folder.name).astype({"value": np.float32})
            if "prompts" in generations.provenance:
                before = first.setdefault(folder, sum(lists.values()))
                lists[folder] = generations.provenance["prompts"]
                rows = rows.assign(
                    run=generations.provenance["origin"] or generations.provenance["model"], plant_id=rows["plant_id"] + before
                )
            table = pa.Table.from_pandas(rows, preserve_index=False)
            if writer is None:
                named = [name for name in table.column_names if name != "value"]
                writer = pq.ParquetWriter(
                    unfinished, table.schema, compression="zstd", use_dictionary=named, column_encoding={"value": "BYTE_STREAM_SPLIT"}
                )
            writer.write_table(table)
            count += len(rows)
            seen |= set(rows["measure"])
    finally:
        if writer is not None:
            writer.close()
    unfinished.replace(file)
    names = seen | {name.partition(".")[2] for name in seen if name.startswith("auc.")}
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            log.warning("Absent: '%s' reads what this generations does not hold; it has no rows.", pattern)
    return count
