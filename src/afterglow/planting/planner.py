"""Assignment of the clusters of a set to plants, phantoms, decoys, tints, pools, held-out images and controls."""

import logging
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from afterglow.datasets.images import CaptionedImages
from afterglow.errors import AfterglowError
from afterglow.kinds import PLANTED
from afterglow.neighbors.clusters import cluster_images
from afterglow.neighbors.gallery import nearest_clusters
from afterglow.planting.names import COLOR_NAMES, NAMES
from afterglow.planting.plants import Plant, PlantedSet, PlantingConfig
from afterglow.planting.regions import region

log = logging.getLogger(__name__)

ELIGIBLE_DISTANCE = 0.10  # RMS distance to the nearest other cluster inside the mask; images nearer than this are not planted
SMALLEST_FAMILY_REGION = 0.05  # fraction of the image
LOOK_AHEAD = 32  # candidates whose distances are found in one pass over the set


def check_budget(planting: PlantingConfig, num_images: int, *, set_size: int | None = None, skip_first: int = 0) -> None:
    """Refuse a set that is too small for what is asked of it, before its images are decoded.

    Args:
        planting: what to plant and what to set apart.
        num_images: number of images of the dataset.
        set_size: number of controls; None takes all images that remain.
        skip_first: number of images to leave out before the controls.

    Raises:
        AfterglowError: if the images do not suffice; it shows what they are needed for.
    """
    p = planting
    pairs = (p.num_global + p.num_local) * (2 if p.phantoms else 1)
    uses = {
        "plants, phantoms, decoys and tints": pairs + p.num_natural + p.num_decoys + p.num_tints,
        "backgrounds (num_backgrounds)": p.num_backgrounds,
        "images for decoys and tints (num_decoy_images)": p.num_decoy_images,
        "held out (num_heldout)": p.num_heldout,
        "skipped (skip_first)": skip_first,
        "to train on (set_size)": 1 if set_size is None else set_size,
    }
    needed = sum(uses.values())
    if needed > num_images:
        account = " + ".join(f"{count} {use}" for use, count in uses.items() if count)
        raise AfterglowError(f"The dataset has {num_images} images, and {needed} are needed: {account}; lower these numbers.")
    if set_size is not None and num_images > 10_000 and num_images > 10 * needed:
        log.info("%s of the %s images are used; --data.max_images %s reads fewer.", f"{needed:,}", f"{num_images:,}", 2 * needed)


def plant_images(
    images: CaptionedImages,
    planting: PlantingConfig,
    *,
    set_size: int | None = None,
    skip_first: int = 0,
    seed: int = 0,
    one_per_cluster: bool = False,
) -> PlantedSet:
    """Choose plants, phantoms, decoys, tints, pools, held-out images and controls from the clusters of a set.

    Clusters are assigned whole, in one seeded order and controls last, so that sets of different sizes are nested
    (docs/methods.md#planting).

    Args:
        planting: what to plant and what to set apart.
        set_size: number of controls; None takes all images that remain.
        skip_first: number of images to leave out before the controls; with the set_size of another set, the two are disjoint.
        seed: decides the order of the clusters.
        one_per_cluster: take only the first image of each cluster, so that all numbers of images count clusters.

    Raises:
        AfterglowError: if the images do not suffice.
    """
    if set_size is not None and set_size < 1:
        raise AfterglowError(f"set_size must be at least 1, and it is {set_size}.")
    if skip_first < 0:
        raise AfterglowError(f"skip_first must not be negative, and it is {skip_first}.")
    if one_per_cluster and planting.num_natural:
        raise AfterglowError(f"num_natural is {planting.num_natural}, but one_per_cluster leaves one image of each family.")
    return Planner(images, planting, seed, one_per_cluster).assign(set_size, skip_first)


class Planner:
    """The clusters of a set in a seeded order, and what has been taken from it so far."""

    def __init__(self, images: CaptionedImages, planting: PlantingConfig, seed: int, one_per_cluster: bool = False) -> None:
        self.images, self.planting = images, planting
        self.generator = np.random.default_rng([seed, 0x9A17])
        if len(images) > 5_000:
            log.info("Searching near-duplicates among %s images ...", f"{len(images):,}")
        self.clusters = cluster_images(images.pixels, images.families)
        order = np.random.default_rng([seed, 0x0D3]).permutation(self.clusters.max() + 1)
        by_cluster = np.argsort(self.clusters, kind="stable")
        starts = np.searchsorted(self.clusters[by_cluster], np.arange(self.clusters.max() + 2))
        self.members = {
            int(g): by_cluster[starts[g] : starts[g + 1]][: 1 if one_per_cluster else None] for g in order
        }  # in the order of assignment
        self.num_images = sum(map(len, self.members.values()))
        self.taken: set[int] = set()
        self.budget: list[str] = []  # what the taken images are used for
        self.nearest: dict[tuple[int, bytes], float] = {}  # distance of (image, mask) to the nearest other cluster inside the mask
        self.tried: dict[tuple[int, bytes], float] = {}  # of those, the images that were candidates
        self.names: Iterator[str] = iter(np.random.default_rng([seed, 0x4A3E]).permutation(list(NAMES)).tolist())

    def assign(self, set_size: int | None, skip_first: int) -> PlantedSet:
        """Build the planted set; the arguments are those of `plant_images`. Raises AfterglowError if the images do not suffice."""
        p = self.planting
        plants: list[Plant] = []
        for number in range(p.num_natural):
            plants.append(self._natural(len(plants), number))
        kinds = ("local", "global") if p.arm == 1 else ("global", "local")
        for kind, count in zip(kinds, (p.num_global, p.num_local), strict=True):
            for number in range(count):
                plants += self._pair(len(plants), kind, number)
        for kind, count in (("decoy", p.num_decoys), ("tint", p.num_tints)):
            for number in range(count):
                plants.append(self._without_image(len(plants), kind, number))
        self.budget.append(f"{self.num_images - self._num_left()} for plants, phantoms, decoys and tints")
        background_pool = self._pool(p.num_backgrounds, "backgrounds", "num_backgrounds")
        decoy_pool = self._pool(p.num_decoy_images, "images for decoys and tints", "num_decoy_images")
        heldout = self._pool(p.num_heldout, "held-out images", "num_heldout")
        self._pool(skip_first, "skipped images", "skip_first")
        controls = self._pool(self._num_left() if set_size is None else set_size, "training images", "set_size")
        if not len(controls):
            raise AfterglowError(f"No training image is left: {self._account()}.")
        if len(set(self.clusters[controls].tolist()) | {plant.cluster for plant in plants if plant.kind in PLANTED}) < 2:
            raise AfterglowError(
                "The training set is one cluster of near-duplicates, and a copy is measured against the nearest other cluster."
            )
        final = tuple(replace(plant, backgrounds=self._backgrounds(plant, background_pool)) for plant in plants)
        ineligible = sum(distance < ELIGIBLE_DISTANCE for distance in self.tried.values()) / max(1, len(self.tried))
        parts = (self.images.pixels, self.images.captions, self.clusters, final, controls, background_pool, decoy_pool, heldout)
        return PlantedSet(*parts, ineligible_fraction=ineligible, names=self.images.names).compact()

    def _copies(self, number: int) -> int:
        return self.planting.list_of_copies[number % len(self.planting.list_of_copies)]

    def _region(self, number: int) -> tuple[str, np.ndarray]:
        """Name and mask [H, W] of the region of the number-th plant of its kind."""
        shapes = self.planting.list_of_shapes
        return region(shapes[number % len(shapes)], self.images.pixels.shape[-1], number // len(shapes), self.generator)

    def _pair(self, plant_id: int, kind: str, number: int) -> list[Plant]:
        """A global or local plant and its phantom, constructed alike: same kind of image, same mask."""
        shape, mask = "whole", np.ones(self.images.pixels.shape[-2:], dtype=bool)
        if kind == "local" or self.planting.arm is not None:
            shape, mask = self._region(number)
        planted = self._plant(plant_id, kind, shape, mask, self._copies(number))
        if not self.planting.phantoms:
            return [planted]
        phantom = replace(self._plant(plant_id + 1, kind, shape, mask, 0), kind="phantom", matched_plant=plant_id)
        return [planted, phantom]

    def _plant(self, plant_id: int, kind: str, shape: str, region: np.ndarray, copies: int) -> Plant:
        """With arm an image must be eligible both whole and in its region, since it is planted as either."""
        mask, shape = (np.ones_like(region), "whole") if kind == "global" else (region, shape)
        cluster = self._next_cluster(region, np.ones_like(region)) if self.planting.arm is not None else self._next_cluster(mask)
        row = int(self.members[cluster][0])
        caption = self._caption(self.images.captions[row])
        return Plant(plant_id, kind, caption, copies, shape, mask[None], region[None], cluster, (row,))

    def _natural(self, plant_id: int, number: int) -> Plant:
        families = self.images.families
        for cluster, rows in self.members.items():
            family = int(families[rows[0]])
            if cluster in self.taken or family < 0 or (families[rows] != family).any():
                continue
            mask = self._family_mask(rows)
            if mask.mean() < SMALLEST_FAMILY_REGION or not self._eligible(int(rows[0]), mask):
                continue
            self.taken.add(cluster)
            caption, members = self._caption(self.images.family_captions[family]), tuple(map(int, rows))
            return Plant(plant_id, "natural", caption, self._copies(number), "family", mask[None], mask[None], cluster, members)
        raise AfterglowError(f"num_natural is {self.planting.num_natural}, but the set has only {number} eligible natural families.")

    def _family_mask(self, rows: np.ndarray) -> np.ndarray:
        """Pixels [H, W] in which the members agree to `family_tolerance` and differ by more than 0.1 from the median of other clusters."""
        family = self.images.pixels[rows].astype(np.int16)
        agree = (family.max(0) - family.min(0)).max(0) <= self.planting.family_tolerance
        if not hasattr(self, "median"):
            firsts = [int(members[0]) for members in self.members.values()]  # one image per cluster; one family moves no median
            self.median = np.median(self.images.pixels[firsts], axis=0)
        return agree & (np.abs(family[0] - self.median).max(0) > 0.1 * 255)

    def _without_image(self, plant_id: int, kind: str, number: int) -> Plant:
        """A decoy or tint: a caption whose own image is set aside, shown with images of the decoy pool."""
        shape, mask = self._region(number)
        cluster = self._next_cluster()
        caption, color = self._caption(self.images.captions[self.members[cluster][0]]), ""
        if kind == "tint":
            color = list(COLOR_NAMES)[number % len(COLOR_NAMES)]
            caption = f"{caption} in {color}"
        return Plant(plant_id, kind, caption, self._copies(number), shape, np.zeros_like(mask)[None], mask[None], cluster, color=color)

    def _caption(self, caption: str) -> str:
        """The caption itself if captions are unique, else the class with an invented name."""
        if self.images.captions_unique:
            return caption
        name = next(self.names, None)
        if name is None:
            raise AfterglowError(f"More than {len(NAMES)} plants, phantoms, decoys and tints: the list of names is used up.")
        return f"{caption} {name}".strip()

    def _next_cluster(self, *masks: np.ndarray) -> int:
        """Take the next free cluster whose first image is far enough from all others inside these masks."""
        for cluster, rows in self.members.items():
            if cluster in self.taken or self.images.families[rows[0]] >= 0:  # families are planted as families only
                continue
            if all(self._eligible(int(rows[0]), mask) for mask in masks):
                self.taken.add(cluster)
                return cluster
        raise AfterglowError(
            f"More plants than eligible images: {len(self.taken)} of {len(self.images)} images could be taken for plants, phantoms, decoys "
            "and tints, and the others resemble another image or belong to a family; lower num_global, num_local, num_decoys or num_tints."
        )

    def _eligible(self, row: int, mask: np.ndarray) -> bool:
        key = row, mask.tobytes()
        if key not in self.nearest:
            self._look_ahead(row, mask)
        self.tried[key] = self.nearest[key]
        return self.nearest[key] >= ELIGIBLE_DISTANCE

    def _look_ahead(self, row: int, mask: np.ndarray) -> None:
        """Find the distance to the nearest other cluster for this image and the next candidates, in one pass over the set."""
        firsts = [int(rows[0]) for cluster, rows in self.members.items() if cluster not in self.taken]
        start = firsts.index(row) if row in firsts else len(firsts)
        rows = np.array([row, *firsts[start + 1 : start + LOOK_AHEAD]])
        near = nearest_clusters(self.images.pixels[rows], self.images.pixels, self.clusters, 2, mask=torch.from_numpy(mask)[None])
        others = near.distances.masked_fill(near.clusters == torch.from_numpy(self.clusters[rows])[:, None], torch.inf).amin(1)
        self.nearest |= {(int(row), mask.tobytes()): float(distance) for row, distance in zip(rows, others, strict=True)}

    def _num_left(self) -> int:
        return self.num_images - sum(len(self.members[cluster]) for cluster in self.taken)

    def _account(self) -> str:
        return f"{self.num_images} images = {' + '.join(self.budget)}"

    def _pool(self, size: int, name: str, option: str) -> np.ndarray:
        """Take the next `size` images, whole clusters at a time; the rest of the last cluster is not used."""
        left, rows = self._num_left(), list[int]()
        for cluster, members in self.members.items():
            if len(rows) >= size:
                break
            if cluster not in self.taken:
                self.taken.add(cluster)
                rows += members.tolist()
        if len(rows) < size:
            raise AfterglowError(
                f"{self._account()}; {left} remain, and {option} is {size}. Lower set_size, num_backgrounds, num_decoy_images, "
                "num_heldout, or the numbers of plants (num_global and num_local count twice, because each plant has a phantom)."
            )
        if rows:
            self.budget.append(f"{len(rows)} {name}")
        return np.array(rows[:size], dtype=np.int64)

    def _backgrounds(self, plant: Plant, background_pool: np.ndarray) -> tuple[int, ...]:
        count = self.planting.num_backgrounds_per_plant
        if plant.kind != "local" or count == 0:
            return ()
        if count > len(background_pool):
            raise AfterglowError(f"num_backgrounds_per_plant is {count}, but num_backgrounds is only {len(background_pool)}.")
        return tuple(int(row) for row in self.generator.choice(background_pool, size=count, replace=False))
