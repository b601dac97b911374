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

from afterglow.cache import atomic_path
from afterglow.errors import AfterglowError
from afterglow.functional.localization import map_auc, permuted_auc, prior_auc, shape_class
from afterglow.generations import Generations, check_complete, check_finite, parts_of
from afterglow.measures.registry import available_maps, available_scores, compute_measures, filter_measures
from afterglow.measures.update_norm import ordinary_norms, with_update_region

log = logging.getLogger(__name__)

SAME_SETTINGS = ("model", "scheduler", "steps", "guidance_scale", "scheduler_options", "dtype", "end_token", "pads_masked")


def plant_ids(generations: Generations) -> Tensor:
    """plant_id of each sample, int64 [B]; generations with measurements always have it."""
    assert generations.plant_id is not None
    return generations.plant_id


def value_rows(generations: Generations, rows: Tensor, values: Mapping[str, Tensor]) -> pd.DataFrame:
    """Tidy rows of measures, one measure after the other: plant_id, kind, caption, seed, measure, value.

    Args:
        generations: B samples.
        rows: indices of the samples that have a value, int64 [N].
        values: {name of the measure: float [N]}.
    """
    numbers, seeds = plant_ids(generations).numpy(), generations.seed.numpy()
    about = pd.DataFrame({"plant_id": numbers, "kind": generations.kind, "caption": generations.caption, "seed": seeds})
    return (
        about.iloc[np.tile(rows.numpy(), len(values))]
        .reset_index(drop=True)
        .assign(
            measure=np.repeat(np.array(list(values), dtype=str), len(rows)),
            value=np.concatenate([np.empty(0), *(np.asarray(of_each, dtype=np.float64) for of_each in values.values())]),
        )
    )


def rows_with_region(generations: Generations) -> Tensor:
    """Indices of the samples whose region is neither empty nor the whole image, int64 [N]; none where regions are unknown."""
    if generations.region is None:
        return torch.arange(0)
    share = generations.region.flatten(1).float().mean(1)
    return ((share > 0) & (share < 1)).nonzero()[:, 0]


def map_auc_rows(generations: Generations, maps: Mapping[str, Tensor]) -> pd.DataFrame:
    """auc.<map> of the samples whose region is neither empty nor the whole image. maps: {name: [B, h, w]}."""
    rows = rows_with_region(generations)
    regions = generations.region[rows] if len(rows) and generations.region is not None else None
    values = {} if regions is None else {f"auc.{name}": map_auc(of_each[rows], regions) for name, of_each in maps.items()}
    return value_rows(generations, rows, values)


def map_control_rows(generations: Generations, maps: Mapping[str, Tensor]) -> pd.DataFrame:
    """Controls of the maps of local plants: permuted_auc.<map>, and auc.mask_prior; none with fewer than two plants."""
    local = torch.tensor([row for row, kind in enumerate(generations.kind) if kind == "local"], dtype=torch.long)
    numbers = plant_ids(generations)[local].tolist()
    if generations.region is None or len(set(numbers)) < 2:
        return value_rows(generations, local, {})
    regions = generations.region[local]
    shapes = [shape_class((generations.shape or ("",) * len(generations))[row]) for row in local.tolist()]
    values = {f"permuted_auc.{name}": permuted_auc(of_each[local], regions, numbers, shapes) for name, of_each in maps.items()}
    return value_rows(generations, local, values | {"auc.mask_prior": prior_auc(regions, numbers)})


def measurement_rows(generations: Generations, patterns: Sequence[str] = ("*",)) -> pd.DataFrame:
    """One row per sample and score, and the AUC of each map where there is a region; undefined values have no row."""
    everything = torch.arange(len(generations))
    scores = compute_measures(generations, filter_measures(available_scores(generations), patterns))
    frames = [value_rows(generations, everything, scores)]
    if generations.region is not None:
        maps = compute_measures(generations, filter_measures(available_maps(generations), patterns))
        frames.append(map_auc_rows(generations, maps))
    keys = zip(plant_ids(generations).tolist(), generations.seed.tolist(), strict=True)
    shapes = dict(zip(keys, generations.shape or ("whole",) * len(generations), strict=True))
    rows = pd.concat(frames, ignore_index=True).dropna(subset="value")
    return rows.assign(shape=[shapes[key] for key in zip(rows["plant_id"], rows["seed"], strict=True)])


def read_parts(folders: Sequence[Path], *, mixed: bool = False) -> Iterator[tuple[Path, Generations]]:
    """Yield (collection, generations) for each part of the collections, one in memory at a time.

    Raises:
        AfterglowError: a collection is incomplete; parts come from different samplers or models and `mixed` is False, or contain NaN.
    """
    first: tuple[Path, Mapping[str, Any]] | None = None
    for folder in folders:
        check_complete(folder)
        for part in parts_of(folder):
            generations = Generations.load(part)
            first = first or (part, generations.provenance)
            differ = [name for name in SAME_SETTINGS if generations.provenance.get(name) != first[1].get(name)]
            if differ and not mixed:
                raise AfterglowError(f"'{part}' and '{first[0]}' differ in {', '.join(differ)}: measure them apart, or use --allow-mixed.")
            check_finite(generations)
            yield folder, generations


def write_measurements(folders: Sequence[Path], file: Path, patterns: Sequence[str] = ("*",), *, mixed: bool = False) -> int:
    """Measure collections into one parquet file with the columns of `measurement_rows` and run; log the patterns that gave no row.

    run: the unit within which kinds are compared: a collection of one run's plants, or all prompt lists of one model, whose entries
    are numbered consecutively.

    Returns:
        Number of rows.
    """
    writer, count, names = None, 0, set()
    sizes: dict[Path, int] = {}  # entries of each prompt list
    first: dict[Path, int] = {}  # number of its first entry
    ordinary: dict[Path, Tensor] = {}
    with atomic_path(file) as path:
        for folder, generations in read_parts(folders, mixed=mixed):
            if folder not in ordinary:  # the region of a whole collection, whose parts are measured one by one
                ordinary[folder] = ordinary_norms(map(Generations.load, parts_of(folder)) if "update_norms" in generations.extras else ())
            generations = with_update_region(generations, ordinary[folder])
            rows = measurement_rows(generations, patterns).assign(run=folder.name).astype({"value": np.float32})
            if "prompts" in generations.provenance:
                start = first.setdefault(folder, sum(sizes.values()))
                sizes[folder] = generations.provenance["prompts"]
                model = generations.provenance["origin"] or generations.provenance["model"]
                rows = rows.assign(run=model, plant_id=rows["plant_id"] + start)
            table = pa.Table.from_pandas(rows, preserve_index=False)
            writer = writer or _writer(path, table)
            writer.write_table(table)
            count += len(rows)
            names |= set(rows["measure"])
        if writer is not None:
            writer.close()
    names |= {name.removeprefix("auc.") for name in names}
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            log.warning("No rows for '%s': the generations do not contain the input of this measure.", pattern)
    return count


def _writer(file: Path, table: pa.Table) -> pq.ParquetWriter:
    named = [name for name in table.column_names if name != "value"]
    return pq.ParquetWriter(file, table.schema, compression="zstd", use_dictionary=named, column_encoding={"value": "BYTE_STREAM_SPLIT"})
