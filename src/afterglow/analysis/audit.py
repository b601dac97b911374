"""Which training images are copied by the generations of a model, whole or in part, and since which checkpoint (docs/guides/audit.md)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from afterglow.analysis.extraction import calibrated_limit
from afterglow.errors import AfterglowError

CELLS = 8  # per side
ENOUGH, LIMIT_OF_FEW = 16, 0.5
WHOLE_COPY, PART_COPY, NO_COPY = VERDICTS = ("copied whole", "copied in part", "not copied")


@dataclass(frozen=True)
class AuditMatches:
    """What G generations of one model have in common with N images.

    Attributes:
        whole: calibrated distance of each generation to the nearest image, [G].
        cluster: cluster of this image, int64 [G].
        parts: one row for each image that has the content which a generation shows in a region: region, number of the row of `cells`;
            generation; image; value, the calibrated distance, below 1.
        cells: the regions, bool [P, cells^2].
        coverage: number of windows that contain each cell, int64 [cells^2].
        nearest: the generation nearest to each image, int64 [N].
        distance: root mean square distance to it in [0, 1] pixels, [N].
    """

    whole: np.ndarray
    cluster: np.ndarray
    parts: pd.DataFrame
    cells: np.ndarray
    coverage: np.ndarray
    nearest: np.ndarray
    distance: np.ndarray


def cells_per_side(side: int) -> int:
    """Number of cells per side on whose lattice regions lie: at most CELLS, and as many as divide the side of an image.

    Raises:
        AfterglowError: if the side is odd.
    """
    if side % 2:
        raise AfterglowError(f"An audit compares parts of images, and a side of {side} pixels is odd.")
    return math.gcd(side, CELLS)


def copied_mask(cells: Sequence[int], side: int) -> np.ndarray:
    """The mask of numbered cells, bool [side, side]; empty without any."""
    count = cells_per_side(side)
    lattice = np.isin(np.arange(count**2), cells).reshape(count, count)
    return np.kron(lattice, np.ones((side // count,) * 2, bool))


@dataclass(frozen=True)
class Unseen:
    """The smallest calibrated distances of M images that the model never saw: whole, and in a region, [M].

    They form two folds, every second image in each. Each fold sets a limit (`calibrated_limit`); the smaller one is used, and each fold is
    tested with the limit of the other. With fewer than ENOUGH images in a fold the limit in regions is at most LIMIT_OF_FEW: many regions
    are compared, and few images do not show how near chance comes.
    """

    whole: np.ndarray
    part: np.ndarray

    @property
    def limits(self) -> dict[str, float]:
        """Limit of each verdict, below which a generation is a copy."""
        return {name: min(self._limits_of_folds(name)) for name in (WHOLE_COPY, PART_COPY)}

    def values(self, verdict: str) -> np.ndarray:
        """Values of all images, [M]."""
        return self.whole if verdict == WHOLE_COPY else self.part

    def passing(self, verdict: str) -> tuple[int, int]:
        """Number of images below the limit of the other fold, and M."""
        values, (even, odd) = self.values(verdict), self._limits_of_folds(verdict)
        return int((values[1::2] < even).sum() + (values[::2] < odd).sum()), len(values)

    def _limits_of_folds(self, verdict: str) -> tuple[float, float]:
        values = self.values(verdict)
        few = verdict == PART_COPY and len(values[1::2]) < ENOUGH
        even, odd = (min(calibrated_limit(values[start:]), LIMIT_OF_FEW if few else 1) for start in (0, 1))
        return even, odd


def audit_verdicts(evidence: AuditMatches, clusters: np.ndarray, unseen: Unseen) -> pd.DataFrame:
    """The verdict on each training image.

    An image is copied whole if a generation is extracted whole and the image belongs to its cluster. It is copied in part if another
    generation shows in a region what the image has there, alone or with others.

    Args:
        evidence: of the model's generations.
        clusters: int64 [N], clusters of the training images.
        unseen: real images that the model never saw.

    Returns:
        One row per training image: verdict; calibrated_l2, the smallest of its copies (NaN without); generations, the number of its
        copies; generation, the best of them, or the nearest; distance to the nearest generation; duplicates, the number of its
        near-duplicates; others_alike, the number of images that cannot be told from it, whole or in the copied part; unseen_as_close,
        the number of unseen images that come as close to any image; cells, the numbers of those that the best generation copies: those
        of its best region, and those of which at least half of the windows around them are copies.
    """
    limits, count = unseen.limits, len(clusters)
    whole_copy = evidence.whole < limits[WHOLE_COPY]
    found = _best(np.where(whole_copy, evidence.whole, np.inf), evidence.cluster, clusters)
    parts = evidence.parts
    parts = parts[(parts["value"] < limits[PART_COPY]) & ~whole_copy[parts["generation"]] & (parts["image"] < count)]
    parts = parts.sort_values(["value", "region"], kind="stable")
    best, own = parts.drop_duplicates("image").set_index("image"), parts.groupby("image")
    members = best["region"].map(parts.groupby("region")["image"].nunique())
    part = pd.DataFrame(best[["value", "generation"]]).assign(generations=own["generation"].nunique(), members=members)
    part = part.reindex(range(count)).fillna({"value": np.inf, "generation": 0, "generations": 0, "members": 1})
    verdict = np.where(np.isfinite(found["value"]), WHOLE_COPY, np.where(np.isfinite(part["value"]), PART_COPY, NO_COPY))
    table = pd.DataFrame({name: np.where(verdict == PART_COPY, part[name], found[name]) for name in found}).assign(verdict=verdict)
    copied = verdict != NO_COPY
    of_best = parts[parts["generation"].to_numpy() == best["generation"].reindex(parts["image"]).to_numpy()]
    regions = {image: evidence.cells[rows] for image, rows in of_best.groupby("image")["region"]}  # the best one first
    parts_of = {image: np.flatnonzero(found[0] | (2 * found.sum(0) >= evidence.coverage)).tolist() for image, found in regions.items()}
    table["cells"] = [parts_of[image] if verdict[image] == PART_COPY else [] for image in range(count)]
    table["generation"] = np.where(copied, table["generation"], evidence.nearest)
    table["distance"] = evidence.distance
    table["calibrated_l2"] = table["value"].where(copied)
    table["others_alike"] = np.where(copied, table["members"] - 1, 0).astype(int)
    table["duplicates"] = pd.Series(clusters).map(pd.Series(clusters).value_counts()) - 1
    whole, part = (np.searchsorted(np.sort(unseen.values(name)), table["value"], side="right") for name in (WHOLE_COPY, PART_COPY))
    table["unseen_as_close"] = np.where(verdict == WHOLE_COPY, whole, np.where(verdict == PART_COPY, part, 0))
    return table.drop(columns=["value", "members"]).astype({"generation": int, "generations": int, "calibrated_l2": float})


def heldout_evidence(evidence: AuditMatches, clusters: np.ndarray, count: int) -> tuple[AuditMatches, Unseen]:
    """The evidence against held-out images among the audited ones, as if they had been trained on.

    What a held-out image has in a region belongs to this kind of images, and is no evidence for a copy of any other image, audited or held
    out. The rule is the same for all of them, so that an audited image that is not a copy is as likely to come near as those that set the
    limits.

    Args:
        evidence: of the generations, about N + M images of which the last M are held out.
        clusters: int64 [N + M].
        count: N.

    Returns:
        The evidence without such regions, about the first N, and that about the others.
    """
    parts = evidence.parts
    held_out = parts["image"] >= count
    parts = parts[held_out.groupby(parts["region"]).transform("sum") == held_out]
    whole = _best(evidence.whole, evidence.cluster, clusters[count:])["value"]
    part = parts.groupby("image")["value"].min().reindex(range(count, len(clusters))).fillna(np.inf).to_numpy()
    kept = replace(evidence, parts=parts, nearest=evidence.nearest[:count], distance=evidence.distance[:count])
    return kept, Unseen(whole, part)


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
