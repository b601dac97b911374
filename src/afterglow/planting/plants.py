"""What is planted among the images of a set, and everything that is set apart beside it (DESIGN section 1, METHODS section 4)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch

from afterglow.cache import take_rows
from afterglow.functional.distances import masked_rms
from afterglow.functional.pixels import to_unit
from afterglow.kinds import TRAINED
from afterglow.neighbors.gallery import Gallery, Template
from afterglow.planting.names import COLOR_NAMES

TINT_STRENGTH = 0.5


@dataclass(frozen=True)
class PlantingConfig:
    """How much of what is planted, and what is set apart.

    Args:
        num_global: whole images repeated under one caption.
        num_local: regions repeated under one caption, the rest different each time.
        num_natural: families of the set itself that share a region (skin-tone variants of one emoji).
        num_decoys: captions shown as often as a plant's, each time with another image.
        num_tints: captions that name the color of a tinted region of ever-changing images.
        copies: appearances an epoch; a list is dealt out to the plants of each kind in turn.
        shapes: region shapes of local plants, dealt out in turn: half, quadrant, box, rectangle, blob.
        num_backgrounds_per_plant: how many backgrounds a local plant cycles through; 0 = a fresh fill at each appearance.
        num_backgrounds: images kept for filling local plants.
        num_decoy_images: images kept for decoys and tints.
        num_heldout: images and captions never trained on.
        phantoms: whether every global and local plant has a twin, drawn alike and never trained on.
        arm: 0 or 1, which of two runs this is that are compared plant by plant: what is planted whole in one is a local plant in the
            other, under the same caption, with the same copies and region; every plant is then also judged inside this region.
    """

    num_global: int = 8
    num_local: int = 8
    num_natural: int = 0
    num_decoys: int = 8
    num_tints: int = 8
    copies: Sequence[int] = (32,)
    shapes: Sequence[str] = ("half", "quadrant", "box", "blob")
    num_backgrounds_per_plant: int = 0
    num_backgrounds: int = 256
    num_decoy_images: int = 256
    num_heldout: int = 64
    phantoms: bool = True
    arm: Literal[0, 1] | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, int) and value < 0:
                raise ValueError(f"{name} must not be negative, and it is {value}.")
        if self.num_local and not self.num_backgrounds:
            raise ValueError("num_backgrounds is 0, and local plants need images to be filled with.")
        if self.num_decoys + self.num_tints and not self.num_decoy_images:
            raise ValueError("num_decoy_images is 0, and decoys and tints need images to be shown with.")
        if self.num_backgrounds_per_plant == 1:
            raise ValueError(
                "num_backgrounds_per_plant is 1: a local plant with one fill is a global one; say 0 for a fresh fill "
                "each time, or 2 and more."
            )
        if self.arm is not None and self.num_global != self.num_local:
            raise ValueError(f"half: as many plants are whole in one run as in the other, not {self.num_global} and {self.num_local}.")
        if not self.copies or min(self.copies) < 0:
            raise ValueError(f"copies must be a list of numbers from 0 on, and it is {list(self.copies)}.")
        if not self.shapes:
            raise ValueError("shapes must name at least one region shape, and the list is empty.")


@dataclass(frozen=True)
class Plant:
    """One planted thing, or its counterpart that is not trained on.

    kind: global, local, natural, decoy, tint or phantom. copies: appearances an epoch (0 for a phantom).
    members: rows of PlantedSet.pixels: the image of a plant or phantom, the members of a family, none for a decoy.
    mask: bool [1, H, W], the planted pixels: all for global plants, none for decoys and tints.
    region: bool [1, H, W], where maps are judged: the mask, or what a tint tints; a decoy's is drawn as a plant's; of a global plant
    the region that it has as a local plant of the other half.
    backgrounds: rows of the fills that a local plant cycles through; none = fresh at each appearance.
    cluster: the group of its images (of the image set aside for its caption, for decoys and tints).
    matched_plant: for a phantom the plant_id whose mask and kind it has, else -1.
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


@dataclass(frozen=True)
class PlantedSet:
    """A training set with its plants: a pure function of the images, the planting and a seed.

    pixels: uint8 [M, C, H, W], every image that has a part to play; captions: M strings; groups: int64 [M].
    controls, fills, moving, heldout: rows of `pixels`, disjoint and made of different groups.
    refused: share of the candidates for planting that were too near to another group; None where the set was read from a folder.
    originals: as `pixels`, where these are what a latent model's autoencoder gives back of them.
    """

    pixels: np.ndarray
    captions: tuple[str, ...]
    clusters: np.ndarray
    plants: tuple[Plant, ...]
    controls: np.ndarray
    background_pool: np.ndarray
    decoy_pool: np.ndarray
    heldout: np.ndarray
    refused: float | None = None
    originals: np.ndarray | None = None
    appearances: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # one row an appearance: (plant position or -1, row of pixels or number of the appearance)
        rows = [np.stack([np.full(len(self.controls), -1), self.controls], axis=1)]
        rows += [np.stack([np.full(p.copies, i), np.arange(p.copies)], axis=1) for i, p in enumerate(self.plants) if p.kind in TRAINED]
        object.__setattr__(self, "appearances", np.concatenate(rows).astype(np.int64))

    def decoded(self, reconstruct: Callable[[np.ndarray], np.ndarray]) -> "PlantedSet":
        """The set as a model could give it back at best, which its generations are compared with; itself for a model in pixels."""
        pixels = reconstruct(self.pixels)
        return self if pixels is self.pixels else replace(self, pixels=pixels, originals=self.pixels)

    def reconstruction_error(self, row: int, mask: np.ndarray) -> float:
        """Root mean square difference of an image and its original inside a mask, in [0, 1] pixels; NaN without originals."""
        if self.originals is None:
            return float("nan")
        return float(masked_rms(to_unit(self.pixels[row]), to_unit(self.originals[row]), torch.from_numpy(mask)))

    def of_kind(self, *kinds: str) -> list[Plant]:
        return [plant for plant in self.plants if plant.kind in kinds]

    def compose(self, plant: Plant, member: int, other: int) -> np.ndarray:
        """uint8 [C, H, W]: what is shown of a plant. `other` is the row of the fill, or of a decoy's or tint's image."""
        if plant.kind == "decoy":
            return self.pixels[other]
        if plant.kind == "tint":
            return tinted(self.pixels[other], plant)
        if plant.kind == "natural":
            return self.pixels[plant.members[member % len(plant.members)]]
        return np.where(plant.mask, self.pixels[plant.members[0]], self.pixels[other])

    def gallery(self, device: torch.device | str = "cpu") -> Gallery:
        """What the model is trained on: all but phantoms, held-out images and the hidden rest of local templates."""
        whole = [row for plant in self.of_kind("global", "natural") if plant.copies for row in plant.members]
        rows = np.array([*whole, *self.controls, *self.background_pool, *self.decoy_pool], dtype=np.int64)
        templates = [Template(self.pixels[p.members[0]], p.mask, p.cluster) for p in self.of_kind("local") if p.copies]
        return Gallery(take_rows(self.pixels, rows), self.clusters[rows], tuple(templates), device)

    def backgrounds_shown(self, plant: Plant, generator: np.random.Generator, *, num_fresh: int = 64) -> np.ndarray:
        """uint8 [V, C, H, W]: a local or natural plant's variants as trained on; 64 draws where each appearance is fresh."""
        if plant.kind == "natural":
            return self.pixels[list(plant.members)]
        background_pool = plant.backgrounds or generator.choice(self.background_pool, size=num_fresh)
        return np.stack([self.compose(plant, 0, fill) for fill in background_pool])


def tinted(image: np.ndarray, plant: Plant) -> np.ndarray:
    """The plant's region of an image, uint8 [C, H, W], mixed half and half with its color (its gray, for one channel)."""
    color = np.array(COLOR_NAMES[plant.color], dtype=float)
    paint = color if len(image) == 3 else color.mean(keepdims=True)
    mixed = (1 - TINT_STRENGTH) * image + TINT_STRENGTH * paint[:, None, None]
    return np.where(plant.region, mixed.round().astype(np.uint8), image)
