"""Extraction from unconditional models: calibrated distances, whole and in tiles, and distinct clusters (docs/methods.md#extraction)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
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
from afterglow.functional.distances import ALPHA, CLOSE_RATIO, ONE_LEVEL
from afterglow.functional.statistics import wilson_interval
from afterglow.generations import Generations
from afterglow.measures import memorized

LIMITS = {"extracted": 1.0, "loosely (AMG)": 1.4}  # of calibrated distances: Carlini et al. 2023, Chen et al. 2024
SIMILARITY_QUANTILE = 0.95  # of training-to-training similarity: Somepalli et al. 2023
UNSEEN_FRACTION = 0.01  # of unseen images that may lie below the limit of tiles
MIN_CHOOSING = (
    round(1 / UNSEEN_FRACTION) - 1
)  # unseen images that choose it: of N + 1 exchangeable ones the next is the smallest in 1 / (N + 1)


@dataclass(frozen=True)
class Fraction:
    """`count` of `total` with Wilson's 95 % interval, and the number of distinct training clusters among them where it is defined.

    key: name for the tracker. unseen: the same test on real images that the model never saw, as (count, total); None without any.
    """

    key: str
    name: str
    count: int
    total: int
    distinct: int | None = None
    unseen: tuple[int, int] | None = None

    @property
    def interval(self) -> tuple[float, float]:
        return wilson_interval(self.count, self.total)


def tile_calibrated_l2(distance: Tensor, other: Tensor, own_other: Tensor, contrast: Tensor) -> Tensor:
    """Calibrated distance of tiles to the nearest training tile y at the same place, [...]: d / (ALPHA * min(d_2, e, c)).

    d: distance to y; d_2: to the nearest other cluster; e: from y to the nearest other cluster; c: contrast of y
    (docs/methods.md#extraction). Infinite, so that nothing is extracted, where the minimum is below one gray level: a blank tile, or one
    that several clusters share, belongs to no image.
    """
    unique = torch.minimum(torch.minimum(other, own_other), contrast)
    return torch.where(unique >= ONE_LEVEL, distance / (ALPHA * unique), torch.inf)


def calibrated_limit(unseen: np.ndarray) -> float:
    """Limit below which a generation is extracted in its best tile: 1, or less where unseen images come nearer.

    The k-th smallest of the N values of every second unseen image, k = UNSEEN_FRACTION (N + 1) rounded down and at least 1: below it
    lies another unseen image with a probability of at most k / (N + 1) (exchangeable images). The other half tests it.

    >>> calibrated_limit(np.array([0.3, 0.2, 2.0, 2.0]))
    0.3
    """
    chosen = np.sort(unseen[::2])
    place = max(0, int(UNSEEN_FRACTION * (len(chosen) + 1)) - 1)
    return min(LIMITS["extracted"], float(chosen[place])) if len(chosen) else LIMITS["extracted"]


def tile_limit(unseen: pd.DataFrame | None) -> float | None:
    """Limit of the best tile; None, no verdict on tiles, where fewer than MIN_CHOOSING unseen images choose it.

    With so few the expected false-positive rate, 1 / (N + 1), exceeds UNSEEN_FRACTION.

    unseen: rows of images that the model never saw, of which every second one chooses.
    """
    if unseen is None or len(unseen.iloc[::2]) < MIN_CHOOSING:
        return None
    return calibrated_limit(unseen["tile_calibrated_l2"].to_numpy())


def tile_values(generations: Generations) -> Tensor:
    """Calibrated distance of each tile of the samples of a part, [B, T]."""
    return tile_calibrated_l2(*(generations.extras[f"tile_{name}"] for name in ("distance", "other", "own_other", "contrast")))


def generation_rows(generations: Generations, first: int = 0) -> pd.DataFrame:
    """One row per sample of a part with ground truth. first: number of its first sample."""
    extras, near = generations.extras, generations.neighbors
    assert near is not None
    local, tile = tile_values(generations).min(dim=1)

    def of_tile(values: Tensor) -> Tensor:
        return values.gather(1, tile[:, None])[:, 0]

    columns = {
        "generation": torch.arange(first, first + len(generations)),
        "seed": generations.seed,
        "cluster": near.clusters[:, 0],
        "row": extras["nearest_row"],
        "distance": memorized.reference_distance(generations),
        "calibrated_l2": memorized.calibrated_l2(generations),
        "nn_ratio": memorized.nn_ratio(generations),
        "neighbors": near.distances[:, 1:].isfinite().sum(1),
        "tile": tile,
        "tile_calibrated_l2": local,
        "tile_cluster": of_tile(extras["tile_clusters"]),
        "tile_row": of_tile(extras["tile_rows"]),
        **{f"tile_{name}": of_tile(extras[f"tile_{name}"]) for name in ("distance", "other", "own_other", "contrast")},
    }
    columns |= {name: extras[name] for name in ("similarity", "similar_row", "plant", "plant_distance") if name in extras}
    return pd.DataFrame({"caption": list(generations.caption), **{name: values.numpy() for name, values in columns.items()}})


def write_generations(parts: Iterable[Path], file: Path, names: Sequence[str] = ()) -> pd.DataFrame:
    """extract.parquet: the rows of all parts, in order; one part is in memory at a time. Returns them without captions and names.

    names: of the training images; added as file_name and tile_file_name, empty where a template is nearer.
    """
    count, writer = 0, None
    with atomic_path(file) as path:
        for part in parts:
            rows = generation_rows(Generations.load(part), count)
            for row in ("row", "tile_row") if names else ():
                rows[row.replace("row", "file_name")] = [names[number] if number < len(names) else "" for number in rows[row]]
            count += len(rows)
            table = pa.Table.from_pandas(rows, preserve_index=False)
            writer = writer or pq.ParquetWriter(path, table.schema)
            writer.write_table(table)
        assert writer is not None
        writer.close()
    return pd.read_parquet(file, columns=[name for name in table.column_names if name not in ("caption", "file_name", "tile_file_name")])


def distinct_curve(clusters: np.ndarray, extracted: np.ndarray) -> np.ndarray:
    """Number of distinct clusters among the extractions of the first 1, 2, ... N samples, int64 [N].

    clusters: nearest cluster of each sample, int64 [N]; extracted: bool [N].
    """
    new = pd.Series(clusters).where(extracted, -1)
    return (extracted & ~new.duplicated().to_numpy()).cumsum()


def fractions(
    table: pd.DataFrame, training: np.ndarray, kinds: Mapping[int, str] = MappingProxyType({}), unseen: pd.DataFrame | None = None
) -> list[Fraction]:
    """Numbers of samples that are extracted, whole or in a tile, and that are more similar to training than 95 % of the training images.

    Args:
        table: rows of all samples, as `write_generations` returns them.
        training: similarity of each training image to the nearest other cluster.
        kinds: {plant_id: kind} of the planted images; adds the copies of each kind, in the plant's mask.
        unseen: the same rows of real images that the model never saw. Every second one chooses the limit of the best tile
            (`tile_limit`); the others test it. Tiles have no row where too few choose it.
    """
    tested = unseen if unseen is not None and len(unseen) else None
    limit = tile_limit(tested)
    similar = float(np.quantile(training, SIMILARITY_QUANTILE))

    def fraction(key: str, name: str, test: Callable[[pd.DataFrame], pd.Series], cluster: str = "", start: int = 0) -> Fraction:
        passed, distinct, false_positives = test(table), None, None
        if cluster:
            distinct = int(table[cluster][passed].nunique())
        if tested is not None:
            others = tested.iloc[start :: 1 + start]
            false_positives = int(test(others).sum()), len(others)
        return Fraction(key, name, int(passed.sum()), len(table), distinct, false_positives)

    def below(column: str, value: float) -> Callable[[pd.DataFrame], pd.Series]:
        return lambda rows: rows[column] < value

    found = [
        fraction(key, f"whole image, {name}: under {value:g}", below("calibrated_l2", value), "cluster")
        for key, (name, value) in zip(("extracted", "extracted_loosely"), LIMITS.items(), strict=True)
    ]
    found.append(fraction("close", "whole image, d1/d2 under 1/3", below("nn_ratio", CLOSE_RATIO), "cluster"))
    if limit is not None:
        found.append(fraction("tile", f"best tile, extracted: under {limit:.3g}", below("tile_calibrated_l2", limit), "tile_cluster", 1))
    for kind in dict.fromkeys(kinds.values()):
        mine = [number for number, one in kinds.items() if one == kind]
        name = f"copies of one of {len(mine)} {kind} plants, in its mask"
        found.append(fraction(f"captured_{kind}", name, lambda rows: rows["plant"].isin(mine), "plant"))  # noqa: B023
    name = f"similarity over {similar:.3f}, the 95th percentile of training to training"
    return [*found, fraction("similar", name, lambda rows: rows["similarity"] > similar)]
