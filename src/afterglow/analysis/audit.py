"""Which training images are copied by the generations of a model, whole or in part, and since which checkpoint (docs/guides/audit.md)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from afterglow.analysis.extraction import calibrated_limit

WHOLE_COPY, PART_COPY, NO_COPY = VERDICTS = ("copied whole", "copied in part", "not copied")


@dataclass(frozen=True)
class Evidence:
    """What G generations of one model have in common with N training images, in T tiles.

    Attributes:
        whole: calibrated distance of each generation to the nearest training image, [G].
        cluster: cluster of this image, int64 [G].
        tiles: calibrated distance to the nearest training tile, [G, T].
        tile_cluster: cluster of this tile, int64 [G, T].
        nearest: the generation nearest to each training image, int64 [N].
        distance: root mean square distance to it in [0, 1] pixels, [N].
    """

    whole: np.ndarray
    cluster: np.ndarray
    tiles: np.ndarray
    tile_cluster: np.ndarray
    nearest: np.ndarray
    distance: np.ndarray


@dataclass(frozen=True)
class Unseen:
    """The smallest calibrated distances of M images that the model never saw: whole, and in a tile, [M].

    Every second one chooses the limits of both rules (`calibrated_limit`), the others judge them.
    """

    whole: np.ndarray
    tile: np.ndarray

    @property
    def limits(self) -> dict[str, float]:
        """Limit of each verdict, below which a generation is a copy."""
        return {WHOLE_COPY: calibrated_limit(self.whole), PART_COPY: calibrated_limit(self.tile)}

    def judging(self, verdict: str) -> np.ndarray:
        """Values of the images that judge the limit of a verdict, smallest first."""
        return np.sort((self.whole if verdict == WHOLE_COPY else self.tile)[1::2])

    def passing(self, verdict: str) -> tuple[int, int]:
        """Number of judging images below the limit, and of all judging images."""
        values = self.judging(verdict)
        return int((values < self.limits[verdict]).sum()), len(values)


def judge_images(evidence: Evidence, clusters: np.ndarray, tile_clusters: np.ndarray, unseen: Unseen) -> pd.DataFrame:
    """The verdict on each training image.

    An image is copied whole if a generation is extracted whole and the image belongs to its cluster. It is copied in part if a tile of
    another generation is extracted that the image has, alone or with others.

    Args:
        evidence: of the model's generations.
        clusters: int64 [N], clusters of the training images.
        tile_clusters: int64 [T, N], their clusters in each tile.
        unseen: real images that the model never saw.

    Returns:
        One row per training image: verdict; calibrated_l2, the smallest of its copies (NaN without); generations, the number of its
        copies; generation, the best of them, or the nearest; distance to the nearest generation; duplicates, the number of its
        near-duplicates; shared_with, the number of images that cannot be told from it, whole or in the copied part; unseen_as_close,
        the number of judging images that come as close to any image; tiles, the numbers of those that are copied.
    """
    limits, count = unseen.limits, len(clusters)
    whole_copy = evidence.whole < limits[WHOLE_COPY]
    found = _best(np.where(whole_copy, evidence.whole, np.inf), evidence.cluster, clusters)
    passed = (evidence.tiles < limits[PART_COPY]) & ~whole_copy[:, None]
    parts = [
        _best(np.where(passed[:, tile], evidence.tiles[:, tile], np.inf), evidence.tile_cluster[:, tile], own)
        for tile, own in enumerate(tile_clusters)
    ]
    values = np.stack([part["value"] for part in parts])
    best, rows = values.argmin(0), np.arange(count)
    verdict = np.where(np.isfinite(found["value"]), WHOLE_COPY, np.where(np.isfinite(values.min(0)), PART_COPY, NO_COPY))
    choices = {name: np.stack([part[name] for part in parts])[best, rows] for name in ("value", "generation", "generations", "members")}
    table = pd.DataFrame({name: np.where(verdict == PART_COPY, choices[name], found[name]) for name in choices})
    same = np.where(passed, evidence.tile_cluster, -1)[choices["generation"]] == tile_clusters.T  # tiles of the best generation, [N, T]
    table["verdict"] = verdict
    table["tiles"] = [np.flatnonzero(row).tolist() if part else [] for row, part in zip(same, verdict == PART_COPY, strict=True)]
    copied = verdict != NO_COPY
    table["generation"] = np.where(copied, table["generation"], evidence.nearest)
    table["distance"] = evidence.distance
    table["calibrated_l2"] = table["value"].where(copied)
    table["shared_with"] = np.where(copied, table["members"] - 1, 0).astype(int)
    table["duplicates"] = pd.Series(clusters).map(pd.Series(clusters).value_counts()) - 1
    ranks = {name: np.searchsorted(unseen.judging(name), table["value"], side="right") for name in (WHOLE_COPY, PART_COPY)}
    table["unseen_as_close"] = np.where(verdict == WHOLE_COPY, ranks[WHOLE_COPY], np.where(verdict == PART_COPY, ranks[PART_COPY], 0))
    return table.drop(columns=["value", "members"]).astype({"generation": int, "generations": int})


def heldout_evidence(evidence: Evidence, clusters: np.ndarray, tile_clusters: np.ndarray, count: int) -> tuple[Evidence, Unseen]:
    """The evidence against held-out images among the audited ones, as if they had been trained on.

    A tile that a held-out image which chooses the limits shares with an audited image belongs to this kind of images, and is no evidence.

    Args:
        evidence: of the generations, about N + M images of which the last M are held out.
        clusters: int64 [N + M].
        tile_clusters: int64 [T, N + M].
        count: N.

    Returns:
        The evidence without such tiles, about the first N, and that about the others.
    """
    tiles = evidence.tiles.copy()
    for tile, own in enumerate(tile_clusters):
        common = np.intersect1d(own[:count], own[count::2])
        tiles[np.isin(evidence.tile_cluster[:, tile], common), tile] = np.inf
    whole = _best(evidence.whole, evidence.cluster, clusters[count:])["value"]
    parts = [_best(tiles[:, tile], evidence.tile_cluster[:, tile], own[count:])["value"] for tile, own in enumerate(tile_clusters)]
    kept = replace(evidence, tiles=tiles, nearest=evidence.nearest[:count], distance=evidence.distance[:count])
    return kept, Unseen(whole, np.min(parts, axis=0))


def _best(values: np.ndarray, clusters: np.ndarray, own: np.ndarray) -> dict[str, np.ndarray]:
    """For each image the best generation of its cluster, its value (infinite: none), their number and that of the cluster's images.

    Args:
        values: [G], infinite where a generation is no copy.
        clusters: of the generations, int64 [G].
        own: cluster of each image, int64 [N].
    """
    frame = pd.DataFrame({"value": values, "cluster": clusters, "generation": np.arange(len(values))})
    copies = frame[np.isfinite(frame["value"])].sort_values("value", kind="stable")
    first = copies.drop_duplicates("cluster").set_index("cluster").reindex(own)
    counts, members = copies["cluster"].value_counts().reindex(own, fill_value=0), pd.Series(own).value_counts().reindex(own)
    return {
        "value": first["value"].fillna(np.inf).to_numpy(),
        "generation": first["generation"].fillna(0).astype(int).to_numpy(),
        "generations": counts.to_numpy(),
        "members": members.to_numpy(),
    }


def since(names: Sequence[str], verdicts: Sequence[pd.Series]) -> list[str]:
    """The checkpoint from which on each image is copied at all later ones; empty for an image that is not copied at the last one.

    Args:
        names: of the checkpoints, in the order of the training.
        verdicts: one series over the images per checkpoint.
    """
    copied = np.stack([series.to_numpy() != NO_COPY for series in verdicts])[::-1]
    length = np.logical_and.accumulate(copied).sum(0)  # checkpoints at the end at which an image is copied
    return [names[-number] if number else "" for number in length.tolist()]
