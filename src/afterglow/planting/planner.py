"""Dealing out the groups of a set: who becomes a plant, a phantom, a decoy, a tint, a pool, held-out or a control."""

import logging
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from afterglow.cache import take_rows
from afterglow.datasets.images import CaptionedImages
from afterglow.kinds import PLANTED
from afterglow.neighbors.clusters import cluster_images
from afterglow.neighbors.gallery import nearest_clusters
from afterglow.planting.names import COLOR_NAMES, NAMES
from afterglow.planting.plants import Plant, PlantedSet, PlantingConfig
from afterglow.planting.regions import region

log = logging.getLogger(__name__)

ELIGIBLE_DISTANCE = 0.10  # nearest other group inside the mask: nearer images are not planted
SMALLEST_FAMILY_REGION = 0.05  # share of the image
LOOK_AHEAD = 32  # candidates whose distances are found in one pass over the set


def plant(
    images: CaptionedImages, planting: PlantingConfig, *, set_size: int | None = None, skip_first: int = 0, seed: int = 0
) -> PlantedSet:
    """Choose plants, phantoms, decoys, tints, pools, held-out images and controls from the groups of a set.

    Groups are dealt out whole, in one seeded order and controls last, so that sets of different sizes are nested; the first `skip`
    images that would be controls are left out, so that sets can be disjoint.
    Raises ValueError where there are more plants than eligible images or fewer images than asked for.
    """
    if set_size is not None and set_size < 1:
        raise ValueError(f"set_size must be at least 1, and it is {set_size}.")
    if skip_first < 0:
        raise ValueError(f"skip must not be negative, and it is {skip_first}.")
    return Planner(images, planting, seed).deal(set_size, skip_first)


class Planner:
    """The order of the groups, and what has been taken from it so far."""

    def __init__(self, images: CaptionedImages, planting: PlantingConfig, seed: int) -> None:
        self.images, self.planting = images, planting
        self.generator = np.random.default_rng([seed, 0x9A17])
        self.clusters = cluster_images(images.pixels, images.families)
        order = np.random.default_rng([seed, 0x0D3]).permutation(self.clusters.max() + 1)
        by_cluster = np.argsort(self.clusters, kind="stable")
        starts = np.searchsorted(self.clusters[by_cluster], np.arange(self.clusters.max() + 2))
        self.members = {int(g): by_cluster[starts[g] : starts[g + 1]] for g in order}  # in the order in which groups are dealt
        self.taken: set[int] = set()
        self.nearest: dict[tuple[int, bytes], float] = {}
        self.verdicts: dict[tuple[int, bytes], bool] = {}  # of an image inside a mask, however often it is a candidate
        self.names: Iterator[str] = iter(np.random.default_rng([seed, 0x4A3E]).permutation(list(NAMES)).tolist())

    def deal(self, set_size: int | None, skip_first: int) -> PlantedSet:
        p = self.planting
        plants: list[Plant] = []
        for number in range(p.num_natural):
            plants.append(self._natural(len(plants), number))
        whole, part = ("local", "global") if p.arm == 1 else ("global", "local")
        for number in range(p.num_global):
            plants += self._pair(len(plants), whole, number)
        for number in range(p.num_local):
            plants += self._pair(len(plants), part, number)
        for number in range(p.num_decoys):
            plants.append(self._moving(len(plants), "decoy", number))
        for number in range(p.num_tints):
            plants.append(self._moving(len(plants), "tint", number))
        background_pool, decoy_pool, heldout = (
            self._pool(p.num_backgrounds, "fill"),
            self._pool(p.num_decoy_images, "decoy_pool"),
            self._pool(p.num_heldout, "held-out"),
        )
        self._pool(skip_first, "skipped")
        controls = self._pool(set_size, "training") if set_size is not None else self._rest()
        if len({int(cluster) for cluster in self.clusters[controls]} | {one.cluster for one in plants if one.kind in PLANTED}) < 2:
            raise ValueError("The training set is one group of images: a copy is told from the nearest other group, and there is none.")
        refused, tried = sum(not eligible for eligible in self.verdicts.values()), len(self.verdicts)
        share = refused / max(1, tried)
        log.info("Planting: %d of %d candidates (%.0f %%) refused, too near to another group.", refused, tried, 100 * share)
        return self._compact(plants, (controls, background_pool, decoy_pool, heldout), share)

    def _copies(self, number: int) -> int:
        return self.planting.copies[number % len(self.planting.copies)]

    def _pair(self, plant_id: int, kind: str, number: int) -> list[Plant]:
        """A global or local plant and its phantom, drawn alike: same kind of image, same mask."""
        resolution = self.images.pixels.shape[-1]
        shape, mask = "whole", np.ones((resolution, resolution), dtype=bool)
        if kind == "local" or self.planting.arm is not None:
            shapes = self.planting.shapes
            shape, mask = region(shapes[number % len(shapes)], resolution, number // len(shapes), self.generator)
        copies = self._copies(number)
        planted = self._plant(plant_id, kind, shape, mask, copies)
        if not self.planting.phantoms:
            return [planted]
        phantom = replace(self._plant(plant_id + 1, kind, shape, mask, 0), kind="phantom", matched_plant=plant_id)
        return [planted, phantom]

    def _plant(self, plant_id: int, kind: str, shape: str, region: np.ndarray, copies: int) -> Plant:
        """In two halves an image must be eligible both whole and in its region, since it is planted as either."""
        mask, shape = (np.ones_like(region), "whole") if kind == "global" else (region, shape)
        cluster = self._next_group(region, np.ones_like(region)) if self.planting.arm is not None else self._next_group(mask)
        row = int(self.members[cluster][0])
        caption = self._own(self.images.captions[row])
        return Plant(plant_id, kind, caption, copies, shape, mask[None], region[None], cluster, (row,))

    def _natural(self, plant_id: int, number: int) -> Plant:
        families = self.images.families
        for cluster, rows in self.members.items():
            family = int(families[rows[0]])
            if cluster in self.taken or family < 0 or (families[rows] != family).any():
                continue
            mask = self._family_mask(rows)
            if mask.mean() < SMALLEST_FAMILY_REGION:
                continue
            if not self._eligible(int(rows[0]), mask):
                continue
            self.taken.add(cluster)
            caption = self._own(self.images.family_captions[family])
            return Plant(
                plant_id, "natural", caption, self._copies(number), "family", mask[None], mask[None], cluster, tuple(map(int, rows))
            )
        raise ValueError(f"num_natural is {self.planting.num_natural}, and the set has only {number} eligible natural families.")

    def _family_mask(self, rows: np.ndarray) -> np.ndarray:
        """Pixels [H, W] that agree inside the family to 2/255 and differ by more than .1 from the median of the other groups."""
        family = self.images.pixels[rows].astype(np.int16)
        agree = (family.max(0) - family.min(0)).max(0) <= 2
        if not hasattr(self, "median"):
            firsts = [int(members[0]) for members in self.members.values()]  # one image a group; one family moves no median
            self.median = np.median(self.images.pixels[firsts], axis=0)
        return agree & (np.abs(family[0] - self.median).max(0) > 0.1 * 255)

    def _moving(self, plant_id: int, kind: str, number: int) -> Plant:
        """A decoy or tint: a caption whose own image is set aside, shown with images of the moving pool."""
        resolution = self.images.pixels.shape[-1]
        shapes = self.planting.shapes
        shape, mask = region(shapes[number % len(shapes)], resolution, number // len(shapes), self.generator)
        cluster = self._next_group()
        caption, color = self._own(self.images.captions[self.members[cluster][0]]), ""
        if kind == "tint":
            color = list(COLOR_NAMES)[number % len(COLOR_NAMES)]
            caption = f"{caption} in {color}"
        return Plant(plant_id, kind, caption, self._copies(number), shape, np.zeros_like(mask)[None], mask[None], cluster, color=color)

    def _own(self, caption: str) -> str:
        """The caption as it is where captions tell images apart, else the class and a name from one list."""
        if self.images.distinct:
            return caption
        name = next(self.names, None)
        if name is None:
            raise ValueError(f"More than {len(NAMES)} plants, phantoms, decoys and tints: the list of names is used up.")
        return f"{caption} {name}".strip()

    def _next_group(self, *masks: np.ndarray) -> int:
        """The next group that is free and whose first image is far enough from all others inside these masks."""
        for cluster, rows in self.members.items():
            if cluster in self.taken or self.images.families[rows[0]] >= 0:  # families are planted as families only
                continue
            if not all(self._eligible(int(rows[0]), mask) for mask in masks):
                continue
            self.taken.add(cluster)
            return cluster
        raise ValueError(f"More plants than eligible images: {len(self.taken)} groups could be taken, and more are asked for.")

    def _eligible(self, row: int, mask: np.ndarray) -> bool:
        key = row, mask.tobytes()
        if key not in self.verdicts:
            if key not in self.nearest:
                self._look_ahead(row, mask)
            self.verdicts[key] = self.nearest[key] >= ELIGIBLE_DISTANCE
        return self.verdicts[key]

    def _look_ahead(self, row: int, mask: np.ndarray) -> None:
        """Distance to the nearest other group, of this image and of the next ones in turn: one pass over the set serves them all."""
        firsts = [int(rows[0]) for cluster, rows in self.members.items() if cluster not in self.taken]
        start = firsts.index(row) if row in firsts else len(firsts)
        rows = np.array([row, *firsts[start + 1 : start + LOOK_AHEAD]])
        near = nearest_clusters(self.images.pixels[rows], self.images.pixels, self.clusters, 2, mask=torch.from_numpy(mask)[None])
        others = near.distances.masked_fill(near.clusters == torch.from_numpy(self.clusters[rows])[:, None], torch.inf).amin(1)
        self.nearest |= {(int(row), mask.tobytes()): float(distance) for row, distance in zip(rows, others, strict=True)}

    def _pool(self, size: int, what: str) -> np.ndarray:
        """The next `size` images, whole groups at a time (what is left over of the last group plays no part)."""
        rows: list[int] = []
        for cluster, members in self.members.items():
            if len(rows) >= size:
                break
            if cluster not in self.taken:
                self.taken.add(cluster)
                rows += members.tolist()
        if len(rows) < size:
            smaller = "lower set_size, or the planting's num_backgrounds, num_decoy_images and num_heldout"
            left = f"only {len(rows)} of {len(self.images)} are left after planting"
            raise ValueError(f"{size} {what} images are asked for, and {left}: {smaller}.")
        return np.array(rows[:size], dtype=np.int64)

    def _rest(self) -> np.ndarray:
        rows = [row for cluster, members in self.members.items() if cluster not in self.taken for row in members.tolist()]
        if not rows:
            raise ValueError(f"No training image is left: all {len(self.images)} are plants, phantoms, pools or held out.")
        return np.array(rows, dtype=np.int64)

    def _compact(self, plants: list[Plant], parts: tuple[np.ndarray, ...], refused: float) -> PlantedSet:
        """Keep the images that play a part, in the order in which they are written to a folder."""
        own = [row for p in plants for row in p.members]
        rows = np.concatenate([np.array(own, dtype=np.int64), *parts])
        new = iter(range(len(rows)))
        moved = [replace(p, members=tuple(next(new) for _ in p.members)) for p in plants]
        controls, background_pool, decoy_pool, heldout = (np.array([next(new) for _ in part], dtype=np.int64) for part in parts)
        final = tuple(replace(p, backgrounds=self._backgrounds(p, background_pool)) for p in moved)
        captions = tuple(self.images.captions[row] for row in rows)
        pixels, clusters = take_rows(self.images.pixels, rows), self.clusters[rows]
        return PlantedSet(pixels, captions, clusters, final, controls, background_pool, decoy_pool, heldout, refused=refused)

    def _backgrounds(self, p: Plant, background_pool: np.ndarray) -> tuple[int, ...]:
        count = self.planting.num_backgrounds_per_plant
        if p.kind != "local" or count == 0:
            return ()
        if count > len(background_pool):
            raise ValueError(
                f"num_backgrounds_per_plant is {count}, and num_backgrounds keeps only {len(background_pool)} images to fill with."
            )
        return tuple(int(row) for row in self.generator.choice(background_pool, size=count, replace=False))
