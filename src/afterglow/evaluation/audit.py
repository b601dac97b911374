"""The images that an audit asks about, and what a model's generations have in common with them (docs/guides/audit.md)."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from afterglow.analysis.audit import Evidence, Unseen
from afterglow.analysis.extraction import generation_rows, tile_values
from afterglow.cache import allocate, take_rows
from afterglow.datasets.images import CaptionedImages
from afterglow.datasets.sources import load_images
from afterglow.errors import AfterglowError
from afterglow.evaluation.extraction import NOTHING_ELSE, ExtractionRequest, extraction_request, unseen_rows
from afterglow.evaluation.floor import MAX_UNSEEN
from afterglow.evaluation.outpainting import RESAMPLINGS
from afterglow.evaluation.training_set import training_set
from afterglow.functional.pixels import to_signed
from afterglow.generations import Generations
from afterglow.models.denoiser import Denoiser
from afterglow.neighbors.clusters import cluster_images, tile_clusters
from afterglow.neighbors.gallery import Gallery, tile_masks
from afterglow.neighbors.search import iter_chunks, nearest
from afterglow.planting.dataset import PlantedDataset
from afterglow.planting.plants import PlantedSet
from afterglow.planting.regions import region
from afterglow.sampling.known import KnownPixels
from afterglow.sampling.loop import Sampler, generate


@dataclass(frozen=True)
class AuditedSet:
    """The images that an audit asks about, followed by images that the model never saw.

    Attributes:
        pixels: uint8 [N + M, C, H, W].
        captions, names: N + M strings.
        clusters: int64 [N + M], near-duplicate clusters; none has images of both kinds.
        count: N.
    """

    pixels: Any
    captions: tuple[str, ...]
    names: tuple[str, ...]
    clusters: np.ndarray
    count: int


def audited_set(model: Denoiser, data: str, dataset: str = "imagefolder", heldout: str | None = None) -> AuditedSet:
    """The images of a folder or a dataset, or those of one epoch of a run as its training shows them, nothing planted among them.

    Args:
        model: gives image size and autoencoder.
        data: folder, hub id or run folder.
        dataset: how `data` is read if it is no run folder.
        heldout: folder of images that the model never saw, of which at most MAX_UNSEEN are taken; default: those of a run. Near-duplicates
            of the audited images are left out.

    Raises:
        AfterglowError: if images cannot be read, do not fit the model, or all resemble each other.
    """
    channels, _, side = model.image_shape()
    parts = []
    if (Path(data) / "config.yaml").is_file():
        planted = training_set(model, planted=Path(data))
        parts.append(_epoch(planted))
        own = planted.heldout[:MAX_UNSEEN]
        names, captions = (tuple(values[row] for row in own.tolist()) for values in (planted.names, planted.captions))
        parts += [CaptionedImages(planted.pixels[own], captions, names, np.full(len(own), -1), False)] if heldout is None else []
    else:
        parts.append(_load(model, dataset, channels, side, None if dataset == "openmoji" else data, None))
    if heldout is not None:
        parts.append(_load(model, "imagefolder", channels, side, heldout, MAX_UNSEEN))
    count, total = len(parts[0]), sum(map(len, parts))
    pixels = allocate((total, channels, side, side))
    for first, part in zip((0, count), parts, strict=False):
        for chunk in iter_chunks(part.pixels):
            pixels[first + chunk.start : first + min(chunk.stop, len(part))] = part.pixels[chunk]
    clusters = cluster_images(pixels, np.concatenate([part.families for part in parts]))
    rows = np.flatnonzero((np.arange(total) < count) | ~np.isin(clusters, clusters[:count]))
    if len(np.unique(clusters[:count])) < 2:
        raise AfterglowError(f"The images of '{data}' are one cluster of near-duplicates, and a copy is measured against another cluster.")
    if heldout is not None and len(rows) == count:
        raise AfterglowError(f"All images of '{heldout}' are near-duplicates of an audited image: --heldout needs other images.")
    captions, names = (sum((getattr(part, name) for part in parts), ()) for name in ("captions", "names"))
    return AuditedSet(
        pixels if len(rows) == total else take_rows(pixels, rows),
        tuple(captions[row] for row in rows.tolist()),
        tuple(names[row] for row in rows.tolist()),
        clusters[rows],
        count,
    )


def _load(model: Denoiser, dataset: str, channels: int, side: int, folder: str | None, most: int | None) -> CaptionedImages:
    images = load_images(dataset, resolution=side, channels=channels, data_dir=folder, max_images=most)
    return replace(images, pixels=model.reconstruct(images.pixels))


def _epoch(planted: PlantedSet) -> CaptionedImages:
    """The samples of one epoch of a training; those of a plant are named after it."""
    samples = PlantedDataset(planted, 0)
    numbers = range(samples.epoch_length)
    keys, plants = samples.keys(numbers), planted.plants
    names = [
        planted.names[member] if plant < 0 else f"{plants[plant].kind} plant {plants[plant].plant_id}, sample {number}"
        for number, (plant, member, _) in enumerate(keys.tolist())
    ]
    pixels, captions = samples.images(keys).numpy(), samples.batch(numbers).caption
    return CaptionedImages(pixels, captions, tuple(names), np.full(len(names), -1), False)


def audit_captions(model: Denoiser, captions: Sequence[str], count: int, seed: int = 0) -> list[str]:
    """`count` captions: those of the images in turn, those of most images first; empty ones for a model or images without text.

    seed: of the order of captions of equally many images, so that captions of held-out images are asked for like all others.
    """
    if not model.has_text or not any(captions):
        return [""] * count
    shuffled = [captions[row] for row in np.random.default_rng(seed).permutation(len(captions)).tolist()]
    return np.resize([caption for caption, _ in Counter(shuffled).most_common()], count).tolist()


@dataclass(frozen=True, kw_only=True)
class CompletionRequest(ExtractionRequest):
    """Each generation completes an image of which it is shown one half; the images, in a seeded order, and the four halves take turns."""

    order: np.ndarray

    def hidden(self, row: int) -> np.ndarray:
        """The half that generation `row` does not know, bool [1, H, W]."""
        turn, place = divmod(row, len(self.order))
        return region("half", self.gallery.pixels.shape[-1], turn + place, np.random.default_rng(0))[1][None]

    def known(self, samples: Sequence[tuple[int, int]]) -> KnownPixels:
        images = np.stack([self.gallery.image(self.order[row % len(self.order)]) for row, _ in samples])
        masks = np.stack([~self.hidden(row) for row, _ in samples])
        return KnownPixels(to_signed(torch.from_numpy(images)), torch.from_numpy(masks), RESAMPLINGS)


def audit_request(
    images: AuditedSet, captions: Sequence[str], grid: int, device: torch.device | str, *, outpaint: bool = False
) -> ExtractionRequest:
    """The request of an audit: one generation per caption, compared with all images, whole and in grid x grid tiles.

    outpaint: a CompletionRequest; captions are not used.
    """
    gallery = Gallery(images.pixels, images.clusters, device=device, names=images.names)
    masks = tile_masks(images.pixels.shape[-1], grid).numpy()
    inside = np.stack([tile_clusters(images.pixels, images.clusters, mask) for mask in masks])
    request = extraction_request([""] * len(captions) if outpaint else captions, gallery, None, grid, tile_clusters=inside)
    order = np.random.default_rng(0).permutation(len(images.pixels))  # so that held-out images are completed like all others
    return CompletionRequest(**vars(request), order=order) if outpaint else request


def compared_with_each_other(request: ExtractionRequest, seed: int = 0) -> Unseen:
    """The tests of an audit on at most MAX_UNSEEN of its images, each against the clusters that do not share its content."""
    assert request.gallery is not None
    own = np.random.default_rng(seed).permutation(len(request.gallery.pixels))[:MAX_UNSEEN]
    table, _ = unseen_rows(np.asarray(request.gallery.pixels[own]), request, own)
    return Unseen(table["calibrated_l2"].to_numpy(), table["tile_calibrated_l2"].to_numpy())


def evidence_of(parts: Sequence[Path], request: ExtractionRequest) -> Evidence:
    """What the parts of a collection have in common with the audited images; one part is in memory at a time.

    Of completions only tiles count of which nothing was known.
    """
    gallery = request.gallery
    assert gallery is not None
    first, columns, tiles, clusters = 0, [], [], []
    closest, distance = np.zeros(len(gallery.pixels), np.int64), np.full(len(gallery.pixels), np.inf, np.float32)
    for part in parts:
        generations = Generations.load(part)
        columns.append(generation_rows(generations, first)[["calibrated_l2", "cluster"]].to_numpy())
        tiles.append(tile_values(generations).numpy())
        clusters.append(generations.extras["tile_clusters"].numpy())
        row, near = (found[:, 0].numpy() for found in nearest(gallery.pixels, generations.images, 1, device=gallery.device))
        closest, distance = np.where(near < distance, first + row, closest), np.minimum(near, distance)
        first += len(generations)
    (whole, cluster), inside = np.concatenate(columns).T, np.concatenate(tiles)
    if isinstance(request, CompletionRequest):
        masks = tile_masks(gallery.pixels.shape[-1], request.grid).numpy()
        unknown = np.stack([(request.hidden(row) >= masks).all((1, 2, 3)) for row in range(len(inside))])
        whole, inside = np.full(len(whole), np.inf), np.where(unknown, inside, np.inf)
    return Evidence(whole, cluster.astype(np.int64), inside, np.concatenate(clusters), closest, distance)


def expected_seconds(model: Denoiser, request: ExtractionRequest, sampler: Sampler, batch_size: int) -> float:
    """Seconds that all generations of a request will take, from a few steps of one batch and its comparison with the images."""
    captions = request.captions[:batch_size]
    seconds: list[float] = []
    for steps in (1, 1, 3):  # the first is a warm-up
        start = time.perf_counter()
        some = generate(
            model, captions, range(len(captions)), replace(sampler, steps=steps), NOTHING_ELSE,
            batch_size=batch_size, known=request.known([(row, row) for row in range(len(captions))]),
        )  # fmt: skip
        seconds.append(time.perf_counter() - start)
    start = time.perf_counter()
    request.attach(some, range(len(captions)))
    batch = seconds[1] + max(0.0, seconds[2] - seconds[1]) / 2 * (sampler.steps - 1) + time.perf_counter() - start
    return batch * len(request.captions) / len(captions)
