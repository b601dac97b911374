"""Training data extraction (METHODS section 4): what each generation is judged by, whole, in tiles and in an embedding."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from afterglow.cache import ArrayCache, content_key
from afterglow.evaluation.embeddings import Embedding
from afterglow.evaluation.ground_truth import NUM_NEIGHBORS
from afterglow.evaluation.matching import match_to_plants
from afterglow.generations import Generations, Neighbors
from afterglow.neighbors.gallery import Gallery, nearest_clusters, tile_masks
from afterglow.neighbors.search import nearest
from afterglow.planting.targets import Target

EMBEDDED = 64  # images that are embedded and stored together


@dataclass(frozen=True)
class SimilaritySpace:
    """Where similarity is measured. rows: the training images in it, as `nearest` takes them, and groups: int64 [N].

    place: uint8 [B, C, H, W] => queries for `nearest`; similar: distances there => similarities, 1 = the same.
    """

    name: str
    rows: Any
    clusters: np.ndarray
    place: Callable[[Tensor], Any]
    similar: Callable[[Tensor], Tensor]
    device: torch.device | str = "cpu"


def pixel_space(gallery: Gallery) -> SimilaritySpace:
    """Pixels: similarity is 1 - the root mean square distance in [0, 1]."""
    return SimilaritySpace(
        "pixels, 1 - RMS distance", gallery.pixels, gallery.clusters, lambda images: images, lambda apart: 1 - apart, gallery.device
    )


def embedding_space(embedding: Embedding, gallery: Gallery, folder: Path, share: tuple[int, int] = (0, 1)) -> SimilaritySpace:
    """An embedding of unit norm: similarity is the cosine, 1 - d^2 / 2. The training images' are kept in a folder of its own.

    share: of several processes each embeds its part first, and then what the others have not come to yet.
    """
    keys = {row: content_key(np.asarray(gallery.pixels[np.array([row])])) for row in range(len(gallery.pixels))}
    cache = ArrayCache(folder, keys)

    def make(rows: list) -> np.ndarray:
        return finite(embedding.name, embedding.compute(torch.from_numpy(np.array(gallery.pixels[np.array(rows)])))).numpy()

    for rank, world_size in (share, (0, 1)):
        cache.reload()
        cache.fill(make, rank=rank, world_size=world_size, chunk_size=EMBEDDED, description=embedding.name)
    rows = cache.stack()
    return SimilaritySpace(
        f"{embedding.name}, cosine",
        rows,
        gallery.clusters,
        lambda images: finite(embedding.name, embedding.compute(images)),
        lambda apart: 1 - apart.square() / 2,
        gallery.device,
    )


def finite(name: str, values: Tensor) -> Tensor:
    """float32 [B, D], the same; ValueError where an embedding is not a number."""
    if not values.isfinite().all():
        raise ValueError(f"The embedding {name} of some image is NaN or infinite: nothing is near to it.")
    return values.float().cpu()


def judge(generations: Generations, gallery: Gallery, space: SimilaritySpace, grid: int, plants: Sequence[Target] = ()) -> Generations:
    """Add the nearest training image, its group and the 50 nearest other groups; the same in grid x grid tiles; the similarity.

    derived: nearest_row [B]; tile_rows, tile_groups [B, T] and tile_distances [B, T, 51], nearest first; similarity and similar_row [B].
    With plants (and phantoms): plant [B], the one that the generation copies in its mask, -1 = none, and plant_distance [B], calibrated.
    The whole image's nearest is a training image; in a tile it may also be what a local plant shows there.
    """
    images, side = generations.images, generations.images.shape[-1]
    everything = torch.ones(1, side, side, dtype=torch.bool)
    near = gallery.nearest(images, everything, num_clusters=NUM_NEIGHBORS + 1, image_first=True)
    found = Neighbors(near.clusters, near.distances)
    local = [gallery.nearest(images, tile, num_clusters=NUM_NEIGHBORS + 1) for tile in tile_masks(side, grid)] if grid > 1 else [near]
    row, apart = nearest(space.place(images), space.rows, 1, device=space.device)
    extras = {
        "nearest_row": near.rows[:, 0],
        "tile_rows": torch.stack([tile.rows[:, 0] for tile in local], dim=1),
        "tile_clusters": torch.stack([tile.clusters[:, 0] for tile in local], dim=1),
        "tile_distances": torch.stack([tile.distances for tile in local], dim=1),
        "similarity": space.similar(apart[:, 0]),
        "similar_row": row[:, 0],
    }
    if plants:
        which, near_plant = match_to_plants(images, plants, gallery)
        numbers = torch.tensor([plant.plant_id for plant in plants])[which]
        extras |= {"plant": numbers.where(near_plant < 1, -1), "plant_distance": near_plant}
    masks = everything.expand(len(images), 1, side, side)
    return replace(
        generations,
        kind=tuple("prompt" if caption else "unprompted" for caption in generations.caption),
        shape=("whole",) * len(images),
        plant_id=generations.seed,
        references=torch.from_numpy(np.stack([gallery.image(row) for row in near.rows[:, 0].tolist()])),
        eval_mask=masks,
        region=masks,
        extras={**generations.extras, **extras},
        neighbors=found,
        neighbors_whole=found,
        provenance={**generations.provenance, "similarity": space.name},
    )


def background(space: SimilaritySpace, count: int, seed: int = 0) -> np.ndarray:
    """Similarity of training images to the nearest other group of the training set, float32 [min(count, N)]: Somepalli's histogram.

    A seeded sample of them where there are more than `count`. Raises ValueError where the set is one group.
    """
    if len(np.unique(space.clusters)) < 2:
        raise ValueError("All training images are one group: none has another to be similar to.")
    total = len(space.rows)
    rows = np.sort(np.random.default_rng(seed).permutation(total)[:count])
    near = nearest_clusters(np.asarray(space.rows[rows]), space.rows, space.clusters, 2, device=space.device)
    own = near.clusters[:, 0] == torch.from_numpy(space.clusters[rows])  # not so for twins of another group, which share the distance 0
    return space.similar(torch.where(own, near.distances[:, 1], near.distances[:, 0])).numpy()
