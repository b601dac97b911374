"""Training data extraction (METHODS section 4): what each generation is judged by, whole, in tiles and in an embedding."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from afterglow.collect.assign import assign
from afterglow.collect.embeddings import Embedding
from afterglow.collect.truth import NUM_NEIGHBOURS
from afterglow.data.groups import near_gallery, nearest_groups, picture_of, tiles
from afterglow.data.neighbours import Gallery
from afterglow.data.search import nearest
from afterglow.data.stored import Store, StoredArray, content_key
from afterglow.data.subjects import Subject
from afterglow.evidence import Evidence, Neighbours

EMBEDDED = 64  # pictures that are embedded and stored together


@dataclass(frozen=True)
class Space:
    """Where similarity is measured. rows: the training pictures in it, as `nearest` takes them, and groups: int64 [N].

    place: uint8 [B, C, H, W] => queries for `nearest`; similar: distances there => similarities, 1 = the same.
    """

    name: str
    rows: Any
    groups: np.ndarray
    place: Callable[[Tensor], Any]
    similar: Callable[[Tensor], Tensor]
    device: torch.device | str = "cpu"


def pixel_space(gallery: Gallery) -> Space:
    """Pixels: similarity is 1 - the root mean square distance in [0, 1]."""
    return Space("pixels, 1 - RMS distance", gallery.pixels, gallery.groups, lambda images: images, lambda apart: 1 - apart, gallery.device)


def embedding_space(embedding: Embedding, gallery: Gallery, folder: Path, share: tuple[int, int] = (0, 1)) -> Space:
    """An embedding of unit norm: similarity is the cosine, 1 - d^2 / 2. The training pictures' are kept in a folder of its own.

    share: of several processes each embeds its part first, and then what the others have not come to yet.
    """
    store, count = Store(folder), len(gallery.pixels)
    keys = [content_key(np.asarray(gallery.pixels[np.array([row])])) for row in range(count)]

    def make(rows: list) -> np.ndarray:
        return finite(embedding.name, embedding.compute(torch.from_numpy(np.array(gallery.pixels[np.array(rows)])))).numpy()

    for part in (share, (0, 1)):
        store.reload()
        store.fill(zip(keys, range(count), strict=True), make, share=part, chunk=EMBEDDED, what=embedding.name)
    rows = StoredArray(store, keys)[np.arange(count)]
    return Space(
        f"{embedding.name}, cosine",
        rows,
        gallery.groups,
        lambda images: finite(embedding.name, embedding.compute(images)),
        lambda apart: 1 - apart.square() / 2,
        gallery.device,
    )


def finite(name: str, values: Tensor) -> Tensor:
    """float32 [B, D], the same; ValueError where an embedding is not a number."""
    if not values.isfinite().all():
        raise ValueError(f"The embedding {name} of some picture is NaN or infinite: nothing is near to it.")
    return values.float().cpu()


def judge(evidence: Evidence, gallery: Gallery, space: Space, grid: int, plants: Sequence[Subject] = ()) -> Evidence:
    """Add the nearest training picture, its group and the 50 nearest other groups; the same in grid x grid tiles; the similarity.

    derived: nearest_row [B]; tile_rows, tile_groups [B, T] and tile_distances [B, T, 51], nearest first; similarity and similar_row [B].
    With plants (and phantoms): plant [B], the one that the generation copies in its mask, -1 = none, and plant_distance [B], calibrated.
    The whole picture's nearest is a training picture; in a tile it may also be what a local plant shows there.
    """
    images, side = evidence.images, evidence.images.shape[-1]
    everything = torch.ones(1, side, side, dtype=torch.bool)
    near = near_gallery(images, gallery, NUM_NEIGHBOURS + 1, mask=everything, alone=1)
    found = Neighbours(near.groups, near.distances)
    local = [near_gallery(images, gallery, NUM_NEIGHBOURS + 1, mask=tile, alone=0) for tile in tiles(side, grid)] if grid > 1 else [near]
    row, apart = nearest(space.place(images), space.rows, 1, device=space.device)
    derived = {
        "nearest_row": near.rows[:, 0],
        "tile_rows": torch.stack([tile.rows[:, 0] for tile in local], dim=1),
        "tile_groups": torch.stack([tile.groups[:, 0] for tile in local], dim=1),
        "tile_distances": torch.stack([tile.distances for tile in local], dim=1),
        "similarity": space.similar(apart[:, 0]),
        "similar_row": row[:, 0],
    }
    if plants:
        which, near_plant = assign(images, plants, gallery)
        numbers = torch.tensor([plant.plant_id for plant in plants])[which]
        derived |= {"plant": numbers.where(near_plant < 1, -1), "plant_distance": near_plant}
    masks = everything.expand(len(images), 1, side, side)
    return replace(
        evidence,
        kind=tuple("prompt" if caption else "unprompted" for caption in evidence.caption),
        shape=("whole",) * len(images),
        plant_id=evidence.seed,
        references=torch.from_numpy(np.stack([picture_of(gallery, row) for row in near.rows[:, 0].tolist()])),
        planted_mask=masks,
        region=masks,
        derived={**evidence.derived, **derived},
        neighbours=found,
        neighbours_whole=found,
        provenance={**evidence.provenance, "similarity": space.name},
    )


def background(space: Space, count: int, seed: int = 0) -> np.ndarray:
    """Similarity of training pictures to the nearest other group of the training set, float32 [min(count, N)]: Somepalli's histogram.

    A seeded sample of them where there are more than `count`. Raises ValueError where the set is one group.
    """
    if len(np.unique(space.groups)) < 2:
        raise ValueError("All training pictures are one group: none has another to be similar to.")
    total = len(space.rows)
    rows = np.sort(np.random.default_rng(seed).permutation(total)[:count])
    near = nearest_groups(np.asarray(space.rows[rows]), space.rows, space.groups, 2, device=space.device)
    own = near.groups[:, 0] == torch.from_numpy(space.groups[rows])  # not so for twins of another group, which share the distance 0
    return space.similar(torch.where(own, near.distances[:, 1], near.distances[:, 0])).numpy()
