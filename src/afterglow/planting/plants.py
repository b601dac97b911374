"""What is planted among the images of a set, and everything that is set apart beside it (docs/methods.md#planting)."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from afterglow.cache import take_rows
from afterglow.errors import AfterglowError
from afterglow.functional.distances import masked_rms
from afterglow.functional.pixels import to_unit
from afterglow.kinds import TRAINED
from afterglow.neighbors.gallery import Gallery, Template
from afterglow.planting.names import COLOR_NAMES

TINT_STRENGTH = 0.5
NUM_FRESH = 64
_ONE_BACKGROUND = (
    "num_backgrounds_per_plant is 1, but a local plant with one background is a global plant: set 0 for a new background at each "
    "appearance, or 2 and more."
)


@dataclass(frozen=True)
class PlantingConfig:
    """What to plant, and what to set apart.

    Args:
        num_global: global plants: the same image, repeated under one caption.
        num_local: local plants: one repeated region under one caption, with a different background each time.
        num_natural: natural families: images of the set itself that share a region, such as skin-tone variants of one emoji.
        family_tolerance: largest difference of a family's members inside its mask, in gray levels: 2 for drawings; photographs need more.
        num_decoys: captions that appear as often as a plant's, each time with a different image.
        num_tints: captions that name the color of a tinted region, each time on a different image.
        copies: appearances of a plant per epoch; the numbers of a list are assigned to the plants of each kind in turn.
        shapes: region shapes, assigned to local plants in turn: half, quadrant, box, rectangle, blob.
        num_backgrounds_per_plant: number of backgrounds that a local plant cycles through; 0 draws a new one at each appearance.
        num_backgrounds: number of images set apart as backgrounds of local plants.
        num_decoy_images: number of images set apart for decoys and tints.
        num_heldout: number of images and captions that are never trained on.
        phantoms: whether each global and local plant gets a phantom: constructed like the plant, never trained on.
        arm: 0 or 1, for two runs that are compared plant by plant. A global plant of one arm is a local plant of the other, with the same
            caption, copies and region; every plant is then also evaluated inside this region.
        seed: decides which images are planted, trained on and held out; null: the seed of the training. Two trainings of different seeds
            have disjoint sets if this one is the same and one of them skips the images of the other (skip_first).
    """

    num_global: int = 8
    num_local: int = 8
    num_natural: int = 0
    family_tolerance: int = 2
    num_decoys: int = 8
    num_tints: int = 8
    copies: int | Sequence[int] = (32,)
    shapes: str | Sequence[str] = ("half", "quadrant", "box", "blob")
    num_backgrounds_per_plant: int = 0
    num_backgrounds: int = 256
    num_decoy_images: int = 256
    num_heldout: int = 64
    phantoms: bool = True
    arm: Literal[0, 1] | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        counts = {name: value for name, value in vars(self).items() if isinstance(value, int)}
        checks = (
            *((value >= 0, f"planting.{name} must not be negative, and it is {value}.") for name, value in counts.items()),
            (self.num_backgrounds or not self.num_local, "num_backgrounds is 0, but local plants need images as backgrounds."),
            (self.num_decoy_images or not self.num_decoys + self.num_tints, "num_decoy_images is 0, but decoys and tints need images."),
            (self.num_backgrounds_per_plant != 1, _ONE_BACKGROUND),
            (
                self.arm is None or self.num_global == self.num_local,
                f"With arm, num_global and num_local must be equal, and they are {self.num_global} and {self.num_local}.",
            ),
            (min(self.list_of_copies, default=-1) >= 0, f"copies must be numbers from 0 on, and it is {list(self.list_of_copies)}."),
            (self.list_of_shapes, "shapes must name at least one region shape, and the list is empty."),
        )
        for valid, sentence in checks:
            if not valid:
                raise AfterglowError(sentence)

    @property
    def list_of_copies(self) -> tuple[int, ...]:
        """`copies` as a tuple."""
        return (self.copies,) if isinstance(self.copies, int) else tuple(self.copies)

    @property
    def list_of_shapes(self) -> tuple[str, ...]:
        """`shapes` as a tuple."""
        return (self.shapes,) if isinstance(self.shapes, str) else tuple(self.shapes)


@dataclass(frozen=True)
class Plant:
    """One plant, or a counterpart that no model can copy.

    Attributes:
        plant_id: number of the plant.
        kind: global, local, natural, decoy, tint or phantom.
        caption: text that it is trained with.
        copies: appearances per epoch; 0 for a phantom.
        shape: name of the region's shape; "whole" for a global plant, "family" for a natural one.
        mask: bool [1, H, W], planted pixels: all for global plants, none for decoys and tints.
        region: bool [1, H, W], where maps are evaluated: the mask, or what a tint tints; drawn as a plant's for a decoy. With `arm`
            that of a global plant is the region that it has as a local plant of the other run.
        cluster: near-duplicate cluster of its images; for decoys and tints that of the image set aside for the caption.
        members: rows of `PlantedSet.pixels`: the image of a plant or phantom, the members of a family, none for decoys and tints.
        backgrounds: rows that a local plant cycles through; empty if each appearance draws a new background.
        color: name of a tint's color.
        matched_plant: for a phantom the id of the plant with the same mask and kind, else -1.
    """

    plant_id: int
    kind: str
    caption: str
    copies: int
    shape: str
    mask: np.ndarray
    region: np.ndarray
    cluster: int
    members: tuple[int, ...] = ()
    backgrounds: tuple[int, ...] = ()
    color: str = ""
    matched_plant: int = -1

    @property
    def visible(self) -> np.ndarray:
        """Pixels of a training image that do not come from its background, bool [1, H, W]: for a tint what it tints."""
        return self.mask if self.kind in ("local", "phantom") else self.region if self.kind == "tint" else np.ones_like(self.mask)

    @property
    def paint(self) -> np.ndarray:
        """Color of a tint in gray levels, float32 [3, 1, 1]."""
        return np.array(COLOR_NAMES[self.color], dtype=np.float32)[:, None, None]


@dataclass(frozen=True)
class PlantedSet:
    """A training set with its plants: a pure function of the images, the configuration and a seed.

    Attributes:
        pixels: uint8 [M, C, H, W], every image that is used.
        captions: M strings.
        clusters: int64 [M], near-duplicate cluster of each image.
        plants: the plants and their counterparts.
        controls: rows of training images that are seen once per epoch. The four groups of rows share no cluster.
        background_pool: rows of backgrounds for local plants.
        decoy_pool: rows of images for decoys and tints.
        heldout: rows of images that are never trained on.
        ineligible_fraction: fraction of the candidate images that were not planted because they resemble another image; None if unknown.
        names: M strings, by which the source names the images; empty if unknown.
        originals: `pixels` before a latent model's autoencoder reconstructed them; None for models in pixel space.
        appearances: int64 [A, 2], one row per sample of an epoch: position in `plants` and number of the appearance; or -1 and the row
            of a control.
    """

    pixels: np.ndarray
    captions: tuple[str, ...]
    clusters: np.ndarray
    plants: tuple[Plant, ...]
    controls: np.ndarray
    background_pool: np.ndarray
    decoy_pool: np.ndarray
    heldout: np.ndarray
    ineligible_fraction: float | None = None
    names: tuple[str, ...] = ()
    originals: np.ndarray | None = None
    appearances: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        rows = [np.stack([np.full(len(self.controls), -1), self.controls], axis=1)]
        rows += [np.stack([np.full(p.copies, i), np.arange(p.copies)], axis=1) for i, p in enumerate(self.plants) if p.kind in TRAINED]
        object.__setattr__(self, "appearances", np.concatenate(rows).astype(np.int64))

    def compact(self) -> "PlantedSet":
        """Return the same set with only the images that are used, in the order in which a folder holds them."""
        members = [row for plant in self.plants for row in plant.members]
        splits: dict[str, Any] = {name: getattr(self, name).tolist() for name in ("controls", "background_pool", "decoy_pool", "heldout")}
        rows = list(dict.fromkeys([*members, *itertools.chain(*splits.values())]))
        number = {row: new for new, row in enumerate(rows)}

        def renumber(old: Iterable[int]) -> tuple[int, ...]:
            return tuple(number[row] for row in old)

        return replace(
            self,
            pixels=take_rows(self.pixels, np.array(rows)),
            captions=tuple(self.captions[row] for row in rows),
            clusters=self.clusters[rows],
            names=tuple(self.names[row] for row in rows) if self.names else (),
            plants=tuple(replace(p, members=renumber(p.members), backgrounds=renumber(p.backgrounds)) for p in self.plants),
            **{name: np.array(renumber(split), dtype=np.int64) for name, split in splits.items()},  # type: ignore[arg-type]
        )

    def reconstructed(self, reconstruct: Callable[[np.ndarray], np.ndarray]) -> "PlantedSet":
        """Return the set as the model's autoencoder, uint8 [M, C, H, W] to the same, reconstructs it: references of generations."""
        pixels = reconstruct(self.pixels)
        return self if pixels is self.pixels else replace(self, pixels=pixels, originals=self.pixels)

    def reconstruction_error(self, row: int, mask: np.ndarray) -> float:
        """Return the RMS difference of an image and its original inside a mask [1, H, W], in [0, 1] pixels; NaN without originals."""
        if self.originals is None:
            return float("nan")
        return float(masked_rms(to_unit(self.pixels[row]), to_unit(self.originals[row]), torch.from_numpy(mask)))

    def of_kind(self, *kinds: str) -> list[Plant]:
        """Return the plants of these kinds, in order."""
        return [plant for plant in self.plants if plant.kind in kinds]

    def compose(self, plant: Plant, member: int, other: int) -> np.ndarray:
        """Return the image of one appearance of a plant, uint8 [C, H, W].

        member: position among those of a natural family; other: row of the background of a local plant, or of the image of a decoy or
        tint.
        """
        inside = self.pixels[plant.members[member] if plant.members else other]
        if plant.kind == "tint":
            inside = tinted(torch.from_numpy(np.array(inside)), torch.from_numpy(plant.paint)).numpy()
        return np.where(plant.visible, inside, self.pixels[other])

    def composites(self, plant: Plant, generator: np.random.Generator) -> np.ndarray:
        """Return the images of a local or natural plant as they are trained on, uint8 [V, C, H, W].

        generator: draws NUM_FRESH backgrounds of a plant that draws a new one at each appearance.
        """
        if plant.kind == "natural":
            return self.pixels[list(plant.members)]
        rows = plant.backgrounds or generator.choice(self.background_pool, size=NUM_FRESH)
        return np.stack([self.compose(plant, 0, row) for row in rows])

    def gallery(self, device: torch.device | str = "cpu") -> Gallery:
        """Return what the model is trained on: not phantoms, held-out images and the rest of a template's image."""
        whole = [row for plant in self.of_kind("global", "natural") if plant.copies for row in plant.members]
        rows = np.array([*whole, *self.controls, *self.background_pool, *self.decoy_pool], dtype=np.int64)
        templates = [Template(self.pixels[p.members[0]], p.mask, p.cluster) for p in self.of_kind("local") if p.copies]
        names = tuple(self.names[row] for row in rows.tolist()) if self.names else ()
        return Gallery(take_rows(self.pixels, rows), self.clusters[rows], tuple(templates), device, names)


def tinted(images: Tensor, paint: Tensor) -> Tensor:
    """Mix images uint8 [..., C, H, W] in equal parts with a color, float [..., 3, 1, 1] (its gray level for one channel)."""
    paint = paint if images.shape[-3] == 3 else paint.mean(-3, keepdim=True)
    return ((1 - TINT_STRENGTH) * images + TINT_STRENGTH * paint).round().to(torch.uint8)
