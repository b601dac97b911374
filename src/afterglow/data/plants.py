"""What is planted among the pictures of a set, and everything that is set apart beside it (DESIGN section 1, METHODS section 4)."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from afterglow.data.neighbours import CHUNK, Gallery, Template, distance, group_pictures, to_unit
from afterglow.data.pictures import Pictures
from afterglow.data.regions import region
from afterglow.data.words import COLOURS, NAMES

log = logging.getLogger(__name__)

ELIGIBLE_DISTANCE = 0.10  # nearest other group inside the mask: nearer pictures are not planted
SMALLEST_FAMILY_REGION = 0.05  # share of the picture
TINT_STRENGTH = 0.5
LOOK_AHEAD = 32  # candidates whose distances are found in one pass over the set
PLANTED = ("global", "local", "natural")
TRAINED = (*PLANTED, "decoy", "tint")


@dataclass(frozen=True)
class Planting:
    """How much of what is planted, and what is set apart.

    Args:
        num_global: whole pictures repeated under one caption.
        num_local: regions repeated under one caption, the rest different each time.
        num_natural: families of the set itself that share a region (skin-tone variants of one emoji).
        num_decoys: captions shown as often as a plant's, each time with another picture.
        num_tints: captions that name the colour of a tinted region of ever-changing pictures.
        copies: appearances an epoch; a list is dealt out to the plants of each kind in turn.
        shapes: region shapes of local plants, dealt out in turn: half, quadrant, box, rectangle, blob.
        variants: how many fills a local plant cycles through; 0 = a fresh fill at each appearance.
        num_fills: pictures kept for filling local plants.
        num_moving: pictures kept for decoys and tints.
        num_heldout: pictures and captions never trained on.
        phantoms: whether every global and local plant has a twin, drawn alike and never trained on.
    """

    num_global: int = 8
    num_local: int = 8
    num_natural: int = 0
    num_decoys: int = 8
    num_tints: int = 8
    copies: Sequence[int] = (32,)
    shapes: Sequence[str] = ("half", "quadrant", "box", "blob")
    variants: int = 0
    num_fills: int = 256
    num_moving: int = 256
    num_heldout: int = 64
    phantoms: bool = True

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, int) and value < 0:
                raise ValueError(f"{name} must not be negative, and it is {value}.")
        if self.num_local and not self.num_fills:
            raise ValueError("num_fills is 0, and local plants need pictures to be filled with.")
        if self.num_decoys + self.num_tints and not self.num_moving:
            raise ValueError("num_moving is 0, and decoys and tints need pictures to be shown with.")
        if self.variants == 1:
            raise ValueError("variants is 1: a local plant with one fill is a global one; say 0 for a fresh fill each time, or 2 and more.")
        if not self.copies or min(self.copies) < 0:
            raise ValueError(f"copies must be a list of numbers from 0 on, and it is {list(self.copies)}.")
        if not self.shapes:
            raise ValueError("shapes must name at least one region shape, and the list is empty.")


@dataclass(frozen=True)
class Plant:
    """One planted thing, or its counterpart that is not trained on.

    kind: global, local, natural, decoy, tint or phantom. copies: appearances an epoch (0 for a phantom).
    members: rows of PlantedSet.pixels: the picture of a plant or phantom, the members of a family, none for a decoy.
    mask: bool [1, H, W], the planted pixels: all for global plants, none for decoys and tints.
    region: bool [1, H, W], where maps are judged: the mask, or what a tint tints; a decoy's is drawn as a plant's.
    variants: rows of the fills that a local plant cycles through; none = fresh at each appearance.
    group: the group of its pictures (of the picture set aside for its caption, for decoys and tints).
    twin: for a phantom the plant_id whose mask and kind it has, else -1.
    """

    plant_id: int
    kind: str
    caption: str
    copies: int
    shape: str
    mask: np.ndarray
    region: np.ndarray
    group: int
    members: tuple[int, ...] = ()
    variants: tuple[int, ...] = ()
    colour: str = ""
    twin: int = -1


@dataclass(frozen=True)
class PlantedSet:
    """A training set with its plants: a pure function of the pictures, the planting and a seed.

    pixels: uint8 [M, C, H, W], every picture that has a part to play; captions: M strings; groups: int64 [M].
    controls, fills, moving, heldout: rows of `pixels`, disjoint and made of different groups.
    refused: share of the candidates for planting that were too near to another group; None where the set was read from a folder.
    """

    pixels: np.ndarray
    captions: tuple[str, ...]
    groups: np.ndarray
    plants: tuple[Plant, ...]
    controls: np.ndarray
    fills: np.ndarray
    moving: np.ndarray
    heldout: np.ndarray
    refused: float | None = None
    appearances: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # one row an appearance: (plant position or -1, row of pixels or number of the appearance)
        rows = [np.stack([np.full(len(self.controls), -1), self.controls], axis=1)]
        rows += [np.stack([np.full(p.copies, i), np.arange(p.copies)], axis=1) for i, p in enumerate(self.plants) if p.kind in TRAINED]
        object.__setattr__(self, "appearances", np.concatenate(rows).astype(np.int64))

    def of_kind(self, *kinds: str) -> list[Plant]:
        return [plant for plant in self.plants if plant.kind in kinds]

    def compose(self, plant: Plant, member: int, other: int) -> np.ndarray:
        """uint8 [C, H, W]: what is shown of a plant. `other` is the row of the fill, or of a decoy's or tint's picture."""
        if plant.kind == "decoy":
            return self.pixels[other]
        if plant.kind == "tint":
            return tinted(self.pixels[other], plant)
        if plant.kind == "natural":
            return self.pixels[plant.members[member % len(plant.members)]]
        return np.where(plant.mask, self.pixels[plant.members[0]], self.pixels[other])

    def gallery(self) -> Gallery:
        """What the model is trained on: all but phantoms, held-out pictures and the hidden rest of local templates."""
        whole = [row for plant in self.of_kind("global", "natural") if plant.copies for row in plant.members]
        rows = np.array([*whole, *self.controls, *self.fills, *self.moving], dtype=np.int64)
        templates = [Template(self.pixels[p.members[0]], p.mask, p.group) for p in self.of_kind("local") if p.copies]
        return Gallery(self.pixels[rows], self.groups[rows], tuple(templates))

    def variants_shown(self, plant: Plant, generator: np.random.Generator, *, num_fresh: int = 64) -> np.ndarray:
        """uint8 [V, C, H, W]: a local or natural plant's variants as trained on; 64 draws where each appearance is fresh."""
        if plant.kind == "natural":
            return self.pixels[list(plant.members)]
        fills = plant.variants or generator.choice(self.fills, size=num_fresh)
        return np.stack([self.compose(plant, 0, fill) for fill in fills])


def tinted(picture: np.ndarray, plant: Plant) -> np.ndarray:
    """The plant's region of a picture, uint8 [C, H, W], mixed half and half with its colour (its grey, for one channel)."""
    colour = np.array(COLOURS[plant.colour], dtype=float)
    paint = colour if len(picture) == 3 else colour.mean(keepdims=True)
    mixed = (1 - TINT_STRENGTH) * picture + TINT_STRENGTH * paint[:, None, None]
    return np.where(plant.region, mixed.round().astype(np.uint8), picture)


def plant(pictures: Pictures, planting: Planting, *, set_size: int | None = None, seed: int = 0) -> PlantedSet:
    """Choose plants, phantoms, decoys, tints, pools, held-out pictures and controls from the groups of a set.

    Groups are dealt out whole, in one seeded order and controls last, so that sets of different sizes are nested.
    Raises ValueError where there are more plants than eligible pictures or fewer pictures than asked for.
    """
    if set_size is not None and set_size < 1:
        raise ValueError(f"set_size must be at least 1, and it is {set_size}.")
    return _Dealer(pictures, planting, seed).deal(set_size)


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

    def deal(self, set_size: int | None) -> PlantedSet:
        p = self.planting
        plants: list[Plant] = []
        for number in range(p.num_natural):
            plants.append(self._natural(len(plants), number))
        for number in range(p.num_global):
            plants += self._pair(len(plants), "global", number)
        for number in range(p.num_local):
            plants += self._pair(len(plants), "local", number)
        for number in range(p.num_decoys):
            plants.append(self._moving(len(plants), "decoy", number))
        for number in range(p.num_tints):
            plants.append(self._moving(len(plants), "tint", number))
        fills, moving, heldout = self._pool(p.num_fills, "fill"), self._pool(p.num_moving, "moving"), self._pool(p.num_heldout, "held-out")
        controls = self._pool(set_size, "training") if set_size is not None else self._rest()
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
        if kind == "local":
            shapes = self.planting.shapes
            shape, mask = region(shapes[number % len(shapes)], resolution, number // len(shapes), self.generator)
        planted = self._plant(plant_id, kind, shape, mask, self._copies(number))
        if not self.planting.phantoms:
            return [planted]
        return [planted, self._plant(plant_id + 1, "phantom", shape, mask, 0, twin=plant_id)]

    def _plant(self, plant_id: int, kind: str, shape: str, mask: np.ndarray, copies: int, twin: int = -1) -> Plant:
        group = self._next_group(mask)
        row = int(self.members[group][0])
        return Plant(
            plant_id, kind, self._own(self.pictures.captions[row]), copies, shape, mask[None], mask[None], group, (row,), twin=twin
        )

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
        group = self._next_group(None)
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

    def _next_group(self, mask: np.ndarray | None) -> int:
        """The next group that is free and, with a mask, whose first picture is far enough from all others inside it."""
        for group, rows in self.members.items():
            if group in self.taken or self.pictures.families[rows[0]] >= 0:  # families are planted as families only
                continue
            if mask is not None and not self._eligible(int(rows[0]), mask):
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
        for begin in range(0, len(self.groups), CHUNK):
            part = to_unit(self.pictures.pixels[begin : begin + CHUNK]).flatten(1)[:, inside]
            near = torch.cdist(wanted, part) / inside.sum() ** 0.5
            own = torch.from_numpy(self.groups[rows][:, None] == self.groups[None, begin : begin + CHUNK])
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
            raise ValueError(f"{size} {what} pictures are asked for, and only {len(rows)} of {len(self.pictures)} are left after planting.")
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
        pixels, groups = self.pictures.pixels[rows], self.groups[rows]
        return PlantedSet(pixels, captions, groups, final, controls, fills, moving, heldout, refused=refused)

    def _variants(self, p: Plant, fills: np.ndarray) -> tuple[int, ...]:
        count = self.planting.variants
        if p.kind != "local" or count == 0:
            return ()
        if count > len(fills):
            raise ValueError(f"variants is {count}, and num_fills keeps only {len(fills)} pictures to fill with.")
        return tuple(int(row) for row in self.generator.choice(fills, size=count, replace=False))


@dataclass(frozen=True)
class Subject:
    """One caption that a probe asks for, with the truth that its generations are judged by.

    reference: uint8 [C, H, W], or None where the nearest training group takes its place (decoys, tints, held-out captions).
    mask, region: bool [1, H, W], as Plant's. variant_spread: standard deviation of a local plant's own variants outside
    the mask, in [0, 1] pixel units (infinite for others). variants: uint8 [V, C, H, W] where they are finite, and the groups
    of the pictures they are filled with.
    """

    plant_id: int
    kind: str
    caption: str
    group: int
    mask: np.ndarray
    region: np.ndarray
    shape: str
    reference: np.ndarray | None = None
    variant_spread: float = float("inf")
    variants: np.ndarray | None = None
    variant_groups: tuple[int, ...] = ()


def subjects(planted: PlantedSet, *, num_controls: int = 64, num_heldout: int = 8, seed: int = 0) -> list[Subject]:
    """Everything a probe may ask a captioned model for: all plants and their counterparts, some controls, some held-out captions.

    Controls and held-out captions have ids after the plants': stable for a planted set, whatever number is asked for.
    """
    chosen = [_subject(planted, p, np.random.default_rng([seed, 0x5B, p.plant_id])) for p in planted.plants]
    everything = np.ones((1, *planted.pixels.shape[-2:]), dtype=bool)
    after = len(planted.plants)
    for row in planted.controls[:num_controls].tolist():
        group = int(planted.groups[row])
        chosen.append(Subject(after + row, "control", planted.captions[row], group, everything, everything, "whole", planted.pixels[row]))
    for row in planted.heldout[:num_heldout].tolist():
        group = int(planted.groups[row])
        chosen.append(Subject(after + row, "heldout", planted.captions[row], group, everything, everything, "whole"))
    return chosen


def unprompted(planted: PlantedSet, count: int) -> list[Subject]:
    """Generations of a model that cannot be asked for anything: each is judged by the nearest training picture."""
    everything = np.ones((1, *planted.pixels.shape[-2:]), dtype=bool)
    first = len(planted.plants) + len(planted.pixels)  # after the ids of all that could be asked for
    return [Subject(first + number, "unprompted", "", -1, everything, everything, "whole") for number in range(count)]


def _subject(planted: PlantedSet, p: Plant, generator: np.random.Generator) -> Subject:
    reference = planted.pixels[p.members[0]] if p.members else None
    if p.kind not in ("local", "natural"):
        return Subject(p.plant_id, p.kind, p.caption, p.group, p.mask, p.region, p.shape, reference)
    shown = planted.variants_shown(p, generator)
    spread = float(spread_outside(to_unit(shown), torch.from_numpy(~p.mask)))
    finite = shown if p.kind == "natural" or p.variants else None
    fills = tuple(int(planted.groups[row]) for row in p.variants)
    return Subject(p.plant_id, p.kind, p.caption, p.group, p.mask, p.region, p.shape, reference, spread, finite, fills)


def spread_outside(images: torch.Tensor, outside: torch.Tensor) -> torch.Tensor:
    """Standard deviation over images, root mean square over the values of a mask. images: [V, C, H, W] in [0,1]; mask [1, H, W]."""
    deviation = images.var(dim=0, unbiased=len(images) > 1).sqrt()
    return distance(deviation, torch.zeros_like(deviation), outside)
