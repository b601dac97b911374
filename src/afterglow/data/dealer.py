"""Dealing out the groups of a set: who becomes a plant, a phantom, a decoy, a tint, a pool, held-out or a control."""

import logging
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from afterglow.data.neighbours import group_pictures, to_unit
from afterglow.data.pictures import Pictures
from afterglow.data.plants import PLANTED, Plant, PlantedSet, Planting
from afterglow.data.regions import region
from afterglow.data.rows import rows_of
from afterglow.data.search import pieces
from afterglow.data.words import COLOURS, NAMES

log = logging.getLogger(__name__)

ELIGIBLE_DISTANCE = 0.10  # nearest other group inside the mask: nearer pictures are not planted
SMALLEST_FAMILY_REGION = 0.05  # share of the picture
LOOK_AHEAD = 32  # candidates whose distances are found in one pass over the set


def plant(pictures: Pictures, planting: Planting, *, set_size: int | None = None, skip: int = 0, seed: int = 0) -> PlantedSet:
    """Choose plants, phantoms, decoys, tints, pools, held-out pictures and controls from the groups of a set.

    Groups are dealt out whole, in one seeded order and controls last, so that sets of different sizes are nested; the first `skip`
    pictures that would be controls are left out, so that sets can be disjoint.
    Raises ValueError where there are more plants than eligible pictures or fewer pictures than asked for.
    """
    if set_size is not None and set_size < 1:
        raise ValueError(f"set_size must be at least 1, and it is {set_size}.")
    if skip < 0:
        raise ValueError(f"skip must not be negative, and it is {skip}.")
    return _Dealer(pictures, planting, seed).deal(set_size, skip)


class _Dealer:
    """The order of the groups, and what has been taken from it so far."""

    def __init__(self, pictures: Pictures, planting: Planting, seed: int) -> None:
        self.pictures, self.planting = pictures, planting
        self.generator = np.random.default_rng([seed, 0x9A17])
        self.groups = group_pictures(pictures.pixels, pictures.families)
        order = np.random.default_rng([seed, 0x0D3]).permutation(self.groups.max() + 1)
        by_group = np.argsort(self.groups, kind="stable")
        starts = np.searchsorted(self.groups[by_group], np.arange(self.groups.max() + 2))
        self.members = {int(g): by_group[starts[g] : starts[g + 1]] for g in order}  # in the order in which groups are dealt
        self.taken: set[int] = set()
        self.nearest: dict[tuple[int, bytes], float] = {}
        self.verdicts: dict[tuple[int, bytes], bool] = {}  # of a picture inside a mask, however often it is a candidate
        self.names: Iterator[str] = iter(np.random.default_rng([seed, 0x4A3E]).permutation(list(NAMES)).tolist())

    def deal(self, set_size: int | None, skip: int) -> PlantedSet:
        p = self.planting
        plants: list[Plant] = []
        for number in range(p.num_natural):
            plants.append(self._natural(len(plants), number))
        whole, part = ("local", "global") if p.half == 1 else ("global", "local")
        for number in range(p.num_global):
            plants += self._pair(len(plants), whole, number)
        for number in range(p.num_local):
            plants += self._pair(len(plants), part, number)
        for number in range(p.num_decoys):
            plants.append(self._moving(len(plants), "decoy", number))
        for number in range(p.num_tints):
            plants.append(self._moving(len(plants), "tint", number))
        fills, moving, heldout = self._pool(p.num_fills, "fill"), self._pool(p.num_moving, "moving"), self._pool(p.num_heldout, "held-out")
        self._pool(skip, "skipped")
        controls = self._pool(set_size, "training") if set_size is not None else self._rest()
        if len({int(group) for group in self.groups[controls]} | {one.group for one in plants if one.kind in PLANTED}) < 2:
            raise ValueError("The training set is one group of pictures: a copy is told from the nearest other group, and there is none.")
        refused, tried = sum(not eligible for eligible in self.verdicts.values()), len(self.verdicts)
        share = refused / max(1, tried)
        log.info("Planting: %d of %d candidates (%.0f %%) refused, too near to another group.", refused, tried, 100 * share)
        return self._compact(plants, (controls, fills, moving, heldout), share)

    def _copies(self, number: int) -> int:
        return self.planting.copies[number % len(self.planting.copies)]

    def _pair(self, plant_id: int, kind: str, number: int) -> list[Plant]:
        """A global or local plant and its phantom, drawn alike: same kind of picture, same mask."""
        resolution = self.pictures.pixels.shape[-1]
        shape, mask = "whole", np.ones((resolution, resolution), dtype=bool)
        if kind == "local" or self.planting.half is not None:
            shapes = self.planting.shapes
            shape, mask = region(shapes[number % len(shapes)], resolution, number // len(shapes), self.generator)
        copies = self._copies(number)
        planted = self._plant(plant_id, kind, shape, mask, copies)
        if not self.planting.phantoms:
            return [planted]
        phantom = replace(self._plant(plant_id + 1, kind, shape, mask, 0), kind="phantom", twin=plant_id)
        return [planted, phantom]

    def _plant(self, plant_id: int, kind: str, shape: str, region: np.ndarray, copies: int) -> Plant:
        """In two halves a picture must be eligible both whole and in its region, since it is planted as either."""
        mask, shape = (np.ones_like(region), "whole") if kind == "global" else (region, shape)
        group = self._next_group(region, np.ones_like(region)) if self.planting.half is not None else self._next_group(mask)
        row = int(self.members[group][0])
        caption = self._own(self.pictures.captions[row])
        return Plant(plant_id, kind, caption, copies, shape, mask[None], region[None], group, (row,))

    def _natural(self, plant_id: int, number: int) -> Plant:
        families = self.pictures.families
        for group, rows in self.members.items():
            family = int(families[rows[0]])
            if group in self.taken or family < 0 or (families[rows] != family).any():
                continue
            mask = self._family_mask(rows)
            if mask.mean() < SMALLEST_FAMILY_REGION:
                continue
            if not self._eligible(int(rows[0]), mask):
                continue
            self.taken.add(group)
            caption = self._own(self.pictures.family_captions[family])
            return Plant(plant_id, "natural", caption, self._copies(number), "family", mask[None], mask[None], group, tuple(map(int, rows)))
        raise ValueError(f"num_natural is {self.planting.num_natural}, and the set has only {number} eligible natural families.")

    def _family_mask(self, rows: np.ndarray) -> np.ndarray:
        """Pixels [H, W] that agree inside the family to 2/255 and differ by more than .1 from the median of the other groups."""
        family = self.pictures.pixels[rows].astype(np.int16)
        agree = (family.max(0) - family.min(0)).max(0) <= 2
        if not hasattr(self, "median"):
            firsts = [int(members[0]) for members in self.members.values()]  # one picture a group; one family moves no median
            self.median = np.median(self.pictures.pixels[firsts], axis=0)
        return agree & (np.abs(family[0] - self.median).max(0) > 0.1 * 255)

    def _moving(self, plant_id: int, kind: str, number: int) -> Plant:
        """A decoy or tint: a caption whose own picture is set aside, shown with pictures of the moving pool."""
        resolution = self.pictures.pixels.shape[-1]
        shapes = self.planting.shapes
        shape, mask = region(shapes[number % len(shapes)], resolution, number // len(shapes), self.generator)
        group = self._next_group()
        caption, colour = self._own(self.pictures.captions[self.members[group][0]]), ""
        if kind == "tint":
            colour = list(COLOURS)[number % len(COLOURS)]
            caption = f"{caption} in {colour}"
        return Plant(plant_id, kind, caption, self._copies(number), shape, np.zeros_like(mask)[None], mask[None], group, colour=colour)

    def _own(self, caption: str) -> str:
        """The caption as it is where captions tell pictures apart, else the class and a name from one list."""
        if self.pictures.distinct:
            return caption
        name = next(self.names, None)
        if name is None:
            raise ValueError(f"More than {len(NAMES)} plants, phantoms, decoys and tints: the list of names is used up.")
        return f"{caption} {name}".strip()

    def _next_group(self, *masks: np.ndarray) -> int:
        """The next group that is free and whose first picture is far enough from all others inside these masks."""
        for group, rows in self.members.items():
            if group in self.taken or self.pictures.families[rows[0]] >= 0:  # families are planted as families only
                continue
            if not all(self._eligible(int(rows[0]), mask) for mask in masks):
                continue
            self.taken.add(group)
            return group
        raise ValueError(f"More plants than eligible pictures: {len(self.taken)} groups could be taken, and more are asked for.")

    def _eligible(self, row: int, mask: np.ndarray) -> bool:
        key = row, mask.tobytes()
        if key not in self.verdicts:
            if key not in self.nearest:
                self._look_ahead(row, mask)
            self.verdicts[key] = self.nearest[key] >= ELIGIBLE_DISTANCE
        return self.verdicts[key]

    def _look_ahead(self, row: int, mask: np.ndarray) -> None:
        """Distance to the nearest other group, of this picture and of the next ones in turn: one pass over the set serves them all."""
        firsts = [int(rows[0]) for group, rows in self.members.items() if group not in self.taken]
        start = firsts.index(row) if row in firsts else len(firsts)
        rows = np.array([row, *firsts[start + 1 : start + LOOK_AHEAD]])
        inside = torch.from_numpy(mask.flatten()).repeat(self.pictures.pixels.shape[1])
        wanted = to_unit(self.pictures.pixels[rows]).flatten(1)[:, inside]
        best = torch.full((len(rows),), torch.inf)
        for piece in pieces(self.pictures.pixels):
            part = to_unit(self.pictures.pixels[piece]).flatten(1)[:, inside]
            near = torch.cdist(wanted, part) / inside.sum() ** 0.5
            own = torch.from_numpy(self.groups[rows][:, None] == self.groups[None, piece])
            best = torch.minimum(best, near.masked_fill(own, torch.inf).min(1).values)
        self.nearest |= {(int(r), mask.tobytes()): float(near) for r, near in zip(rows, best, strict=True)}

    def _pool(self, size: int, what: str) -> np.ndarray:
        """The next `size` pictures, whole groups at a time (what is left over of the last group plays no part)."""
        rows: list[int] = []
        for group, members in self.members.items():
            if len(rows) >= size:
                break
            if group not in self.taken:
                self.taken.add(group)
                rows += members.tolist()
        if len(rows) < size:
            smaller = "lower set_size, or the planting's num_fills, num_moving and num_heldout"
            left = f"only {len(rows)} of {len(self.pictures)} are left after planting"
            raise ValueError(f"{size} {what} pictures are asked for, and {left}: {smaller}.")
        return np.array(rows[:size], dtype=np.int64)

    def _rest(self) -> np.ndarray:
        rows = [row for group, members in self.members.items() if group not in self.taken for row in members.tolist()]
        if not rows:
            raise ValueError(f"No training picture is left: all {len(self.pictures)} are plants, phantoms, pools or held out.")
        return np.array(rows, dtype=np.int64)

    def _compact(self, plants: list[Plant], parts: tuple[np.ndarray, ...], refused: float) -> PlantedSet:
        """Keep the pictures that play a part, in the order in which they are written to a folder."""
        own = [row for p in plants for row in p.members]
        rows = np.concatenate([np.array(own, dtype=np.int64), *parts])
        new = iter(range(len(rows)))
        moved = [replace(p, members=tuple(next(new) for _ in p.members)) for p in plants]
        controls, fills, moving, heldout = (np.array([next(new) for _ in part], dtype=np.int64) for part in parts)
        final = tuple(replace(p, variants=self._variants(p, fills)) for p in moved)
        captions = tuple(self.pictures.captions[row] for row in rows)
        pixels, groups = rows_of(self.pictures.pixels, rows), self.groups[rows]
        return PlantedSet(pixels, captions, groups, final, controls, fills, moving, heldout, refused=refused)

    def _variants(self, p: Plant, fills: np.ndarray) -> tuple[int, ...]:
        count = self.planting.variants
        if p.kind != "local" or count == 0:
            return ()
        if count > len(fills):
            raise ValueError(f"variants is {count}, and num_fills keeps only {len(fills)} pictures to fill with.")
        return tuple(int(row) for row in self.generator.choice(fills, size=count, replace=False))
