"""Extraction of training data: the nearest training images of each generation (docs/methods.md#extraction)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from afterglow.analysis.extraction import generation_rows
from afterglow.cache import content_key
from afterglow.datasets.prompts import Prompt
from afterglow.datasets.sources import load_images
from afterglow.errors import AfterglowError
from afterglow.evaluation.false_positives import MAX_UNSEEN
from afterglow.evaluation.ground_truth import NUM_NEIGHBORS, match_to_plants
from afterglow.evaluation.requests import EvalRequest, GenerationPlan
from afterglow.evaluation.similarity import SimilaritySpace
from afterglow.evaluation.store import collect
from afterglow.functional.distances import masked_contrast
from afterglow.functional.pixels import to_unit
from afterglow.generations import Generations, Neighbors
from afterglow.kinds import TRAINED
from afterglow.models.denoiser import Denoiser
from afterglow.neighbors.clusters import NEAR_DUPLICATE_DISTANCE
from afterglow.neighbors.gallery import Gallery, tile_masks
from afterglow.neighbors.search import nearest
from afterglow.planting.plants import PlantedSet
from afterglow.planting.targets import Target
from afterglow.sampling.loop import Sampler
from afterglow.sampling.recorder import CaptureConfig

NOTHING_ELSE = CaptureConfig(guidance=False, tokens=False, end_steps=())  # is recorded beside the images
_CHUNK = 64  # images that are compared together


def training_captions(planted: PlantedSet, count: int) -> list[str]:
    """The distinct captions of a training, in a random order (seed 0), repeated up to `count`."""
    trained = [p.caption for p in planted.of_kind(*TRAINED) if p.copies] + [planted.captions[row] for row in planted.controls.tolist()]
    distinct = list(dict.fromkeys(trained))
    order = np.random.default_rng(0).permutation(len(distinct))
    return [distinct[row] for row in np.resize(order, count)]


def extraction_captions(model: Denoiser, planted: PlantedSet, num_images: int, captions: Sequence[str] = ()) -> list[str]:
    """The caption of each image of an extraction.

    Args:
        model: without text, all captions are empty.
        planted: the training set; its captions are used in turn where none are given.
        captions: captions to use in turn.

    Raises:
        AfterglowError: if num_images is below 1, or captions are given for a model without text.
    """
    if num_images < 1:
        raise AfterglowError(f"--num-images must be at least 1, not {num_images}.")
    if captions and not model.has_text:
        raise AfterglowError(f"--caption '{captions[0]}' needs a model with captions, and {type(model).__name__} has no captions.")
    if not model.has_text:
        return [""] * num_images
    return [captions[number % len(captions)] for number in range(num_images)] if captions else training_captions(planted, num_images)


@dataclass(frozen=True, kw_only=True)
class ExtractionRequest(EvalRequest):
    """One generation per caption, compared with the whole training set and with the plants and phantoms in it.

    Args:
        grid: images are also compared in grid x grid tiles.
        space: where similarity is measured; None: nowhere.

    Raises:
        AfterglowError: if the grid does not divide the images.
    """

    targets: Sequence[Prompt]
    gallery: Gallery
    space: SimilaritySpace | None
    grid: int
    plants: Sequence[Target] = ()

    def __post_init__(self) -> None:
        tile_masks(self.gallery.pixels.shape[-1], self.grid)

    def attach(self, generations: Generations, rows: Sequence[int]) -> Generations:
        return attach_nearest(generations, self.gallery, self.space, self.grid, self.plants)


def extraction_request(
    captions: Sequence[str],
    gallery: Gallery,
    space: SimilaritySpace | None,
    grid: int,
    plants: Sequence[Target] = (),
) -> ExtractionRequest:
    """An ExtractionRequest whose metadata names the size of the training set, the space and the tiles."""
    targets = [Prompt(caption, "prompt" if caption else "unprompted") for caption in captions]
    metadata = {"training": len(gallery.pixels), **({"space": space.name} if space else {}), "tiles": grid}
    return ExtractionRequest(targets=targets, gallery=gallery, space=space, grid=grid, plants=plants, metadata=metadata)


def sample_images(
    model: Denoiser,
    request: EvalRequest,
    folder: Path,
    sampler: Sampler,
    capture: CaptureConfig = NOTHING_ELSE,
    *,
    seed: int,
    batch_size: int,
    metadata: Mapping[str, Any],
    **options: Any,
) -> GenerationPlan:
    """Generate one image per caption into a collection, or those that it lacks; a collection of other weights is refused.

    Args:
        batch_size: generations at a time and in a part.
        metadata, options: as in `collect`; rank and world_size.

    Returns:
        The plan of the collection.
    """
    plan = GenerationPlan(num_images=1, seed=seed, seed_rule="prompt", prompts_per_part=batch_size)
    weights = [f"{float(weight.detach().double().square().sum()):.5g}" for weight in model.unet.parameters()]
    metadata = {**metadata, "weights": content_key(*weights).hex()}
    collect(model, request, plan, folder, sampler, capture, batch_size=batch_size, metadata=metadata, **options)
    return plan


def attach_nearest(
    generations: Generations,
    gallery: Gallery,
    space: SimilaritySpace | None,
    grid: int,
    plants: Sequence[Target] = (),
) -> Generations:
    """Add the nearest training image, its cluster and the 50 nearest other clusters, over the image and per tile.

    Args:
        gallery: the training images. The nearest of a whole image is a training image; in a tile it may be a local plant's template.
        space: where similarity is measured.
        grid: grid x grid tiles.
        plants: plants and phantoms that a generation can copy.

    Returns:
        Generations with extras nearest_row [B]; with a space: similarity, similar_row [B]; tile_rows, tile_clusters, tile_distance,
        tile_other, tile_own_other, tile_contrast [B, T], see `tile_extras`; with plants: plant [B], the copied one or -1, and
        plant_distance [B], calibrated.
    """
    images, side = generations.images, generations.images.shape[-1]
    full = torch.ones(1, side, side, dtype=torch.bool)
    near = gallery.nearest(images, full, num_clusters=NUM_NEIGHBORS + 1, image_first=True)
    tiles = [tile_extras(images, tile, gallery) for tile in tile_masks(side, grid)]
    extras = {"nearest_row": near.rows[:, 0], **{name: torch.stack([tile[name] for tile in tiles], dim=1) for name in tiles[0]}}
    if space is not None:
        similar_row, distances = nearest(space.embed(images), space.rows, 1, device=space.device)
        extras |= {"similarity": space.similarity(distances[:, 0]), "similar_row": similar_row[:, 0]}
    if plants:
        positions, plant_distance = match_to_plants(images, plants, gallery)
        plant_ids = torch.tensor([plant.plant_id for plant in plants])[positions]
        extras |= {"plant": plant_ids.where(plant_distance < 1, -1), "plant_distance": plant_distance}
    masks = full.expand(len(images), 1, side, side)
    return replace(
        generations.with_extras(**extras, provenance={"similarity": space.name} if space else {}),
        kind=tuple("prompt" if caption else "unprompted" for caption in generations.caption),
        shape=("whole",) * len(images),
        plant_id=generations.seed,
        references=torch.from_numpy(np.stack([gallery.image(row) for row in near.rows[:, 0].tolist()])),
        eval_mask=masks,
        region=masks,
        neighbors=Neighbors(near.clusters, near.distances),
    )


def tile_extras(images: Tensor, tile: Tensor, gallery: Gallery) -> dict[str, Tensor]:
    """What the tile rule needs (docs/methods.md#extraction), [B] each. tile: bool [1, H, W]; the same place is compared.

    tile_rows, tile_clusters: the nearest training tile y; tile_distance: the distance to it; tile_other: to the nearest other cluster;
    tile_own_other: from y to the nearest other cluster, the most that a model could confuse y with; tile_contrast: of y.
    """
    near = gallery.nearest(images, tile, num_clusters=2)
    found, which = torch.stack([near.rows[:, 0].clamp(min=0), near.clusters[:, 0]], 1).unique(dim=0, return_inverse=True)
    rows = found[:, 0].tolist()
    nearest_tiles = torch.from_numpy(np.stack([gallery.image(row) for row in rows]))
    masks = tile & torch.from_numpy(np.stack([gallery.mask(row) for row in rows]))
    others = gallery.nearest(nearest_tiles, masks, [{cluster} for cluster in found[:, 1].tolist()], num_clusters=1).distances[:, 0]
    return {
        "tile_rows": near.rows[:, 0],
        "tile_clusters": near.clusters[:, 0],
        "tile_distance": near.distances[:, 0],
        "tile_other": near.distances[:, 1],
        "tile_own_other": others[which],
        "tile_contrast": masked_contrast(to_unit(nearest_tiles), masks)[which],
    }


def unseen_rows(images: np.ndarray, request: ExtractionRequest) -> tuple[pd.DataFrame, int]:
    """The same test on real images that the model never saw (docs/methods.md#extraction).

    Args:
        images: uint8 [N, C, H, W].
        request: of the generations.

    Returns:
        `generation_rows` of these images, and the number that was left out as near-duplicates of a training image.
    """
    tables = []
    for start in range(0, len(images), _CHUNK):
        part = torch.from_numpy(np.asarray(images[start : start + _CHUNK]))
        numbers = torch.arange(start, start + len(part))
        as_generated = Generations(part, ("",) * len(part), numbers, torch.arange(1), provenance={})
        tables.append(generation_rows(request.attach(as_generated, range(len(part))), start))
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    kept = table[table["distance"] >= NEAR_DUPLICATE_DISTANCE].reset_index(drop=True) if len(table) else table
    return kept, len(table) - len(kept)


def unseen_images(model: Denoiser, planted: PlantedSet, folder: str | None = None) -> np.ndarray:
    """At most MAX_UNSEEN images of a folder that the model never saw, or the held-out images of its set, uint8 [N, C, H, W].

    Raises:
        AfterglowError: if the folder cannot be read.
    """
    if folder is None:
        return planted.pixels[planted.heldout[:MAX_UNSEEN]]
    channels, _, side = model.image_shape()
    images = load_images("imagefolder", resolution=side, channels=channels, data_dir=folder, max_images=MAX_UNSEEN)
    return model.reconstruct(np.asarray(images.pixels))


def extracted_plants(table: pd.DataFrame, plants: Sequence[Target]) -> pd.DataFrame:
    """One row per plant: plant_id, kind, caption, and the number of generations that copy it inside its mask."""
    counts = table["plant"].value_counts()
    rows = [(plant.plant_id, plant.kind, plant.caption, int(counts.get(plant.plant_id, 0))) for plant in plants]
    return pd.DataFrame(rows, columns=["plant_id", "kind", "caption", "generations"])
