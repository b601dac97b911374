"""Extraction from unconditional models: calibrated distances, whole and in tiles, and distinct clusters (docs/methods.md#extraction)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from afterglow.cache import atomic_path
from afterglow.functional.distances import ONE_LEVEL, calibrated_l2, mean_finite
from afterglow.functional.statistics import wilson_interval
from afterglow.generations import Generations
from afterglow.measures import memorized

LIMITS = {"extracted": 1.0, "loosely (AMG)": 1.4}  # of calibrated distances: Carlini et al. 2023, Chen et al. 2024
SIMILARITY_QUANTILE = 0.95  # of training-to-training similarity: Somepalli et al. 2023


@dataclass(frozen=True)
class Fraction:
    """`count` of `total` with Wilson's 95 % interval, and the number of distinct training clusters among them where it is defined."""

    name: str
    count: int
    total: int
    distinct: int | None = None

    @property
    def interval(self) -> tuple[float, float]:
        return wilson_interval(self.count, self.total)


def tile_calibrated_l2(distances: Tensor) -> Tensor:
    """Calibrated distance of each tile to its nearest cluster, [...] (docs/methods.md#extraction).

    Infinite, so that nothing is extracted, where the other clusters lie within one gray level: a blank tile belongs to no image.
    distances: to the nearest clusters, nearest first, float [..., K]; infinite where there is none.
    """
    others = distances[..., 1:]
    return torch.where(mean_finite(others) >= ONE_LEVEL, calibrated_l2(distances[..., 0], others), torch.inf)


def generation_rows(generations: Generations, first: int = 0) -> pd.DataFrame:
    """One row per sample of a part with ground truth. first: number of its first sample."""
    extras, near = generations.extras, generations.neighbors
    assert near is not None
    local, tile = tile_calibrated_l2(extras["tile_distances"]).min(dim=1)
    chosen = tile[:, None]
    columns = {
        "generation": torch.arange(first, first + len(generations)),
        "seed": generations.seed,
        "cluster": near.clusters[:, 0],
        "row": extras["nearest_row"],
        "distance": memorized.reference_distance(generations),
        "calibrated_l2": memorized.calibrated_l2(generations),
        "nn_ratio": memorized.nn_ratio(generations),
        "tile": tile,
        "tile_calibrated_l2": local,
        "tile_cluster": extras["tile_clusters"].gather(1, chosen)[:, 0],
        "tile_row": extras["tile_rows"].gather(1, chosen)[:, 0],
        "similarity": extras["similarity"],
        "similar_row": extras["similar_row"],
    }
    columns |= {name: extras[name] for name in ("plant", "plant_distance") if name in extras}
    return pd.DataFrame({"caption": list(generations.caption), **{name: values.numpy() for name, values in columns.items()}})


def write_generations(parts: Iterable[Path], file: Path) -> pd.DataFrame:
    """extract.parquet: the rows of all parts, in order; one part is in memory at a time. Returns them without the captions."""
    count, writer = 0, None
    with atomic_path(file) as path:
        for part in parts:
            rows = generation_rows(Generations.load(part), count)
            count += len(rows)
            table = pa.Table.from_pandas(rows, preserve_index=False)
            writer = writer or pq.ParquetWriter(path, table.schema)
            writer.write_table(table)
        assert writer is not None
        writer.close()
    return pd.read_parquet(file, columns=[name for name in table.column_names if name != "caption"])


def distinct_curve(clusters: np.ndarray, extracted: np.ndarray) -> np.ndarray:
    """Number of distinct clusters among the extractions of the first 1, 2, ... N samples, int64 [N].

    clusters: nearest cluster of each sample, int64 [N]; extracted: bool [N].
    """
    new = pd.Series(clusters).where(extracted, -1)
    return (extracted & ~new.duplicated().to_numpy()).cumsum()


def fractions(table: pd.DataFrame, training: np.ndarray, kinds: Mapping[int, str] = MappingProxyType({})) -> list[Fraction]:
    """Numbers of samples that are extracted, whole or in a tile, and that are more similar to training than 95 % of the training images.

    Args:
        table: rows of all samples, as `write_generations` returns them.
        training: similarity of each training image to the nearest other cluster.
        kinds: {plant_id: kind} of the planted images; adds the copies of each kind, in the plant's mask.
    """
    total, found = len(table), []
    for where, column, cluster in (("whole image", "calibrated_l2", "cluster"), ("best tile", "tile_calibrated_l2", "tile_cluster")):
        for name, limit in LIMITS.items():
            under = table[column] < limit
            found.append(Fraction(f"{where}, {name}: under {limit:g}", int(under.sum()), total, int(table[cluster][under].nunique())))
    limit = float(np.quantile(training, SIMILARITY_QUANTILE))
    above = int((table["similarity"] > limit).sum())
    for kind in dict.fromkeys(kinds.values()):
        mine = {number for number, one in kinds.items() if one == kind}
        copies = table["plant"][table["plant"].isin(mine)]
        found.append(Fraction(f"copies of one of {len(mine)} {kind} plants, in its mask", len(copies), total, int(copies.nunique())))
    return [*found, Fraction(f"similarity over {limit:.3f}, the 95th percentile of training to training", above, total)]
