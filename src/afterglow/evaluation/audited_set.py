"""The images that an audit asks about, followed by images that the model never saw (docs/guides/audit.md)."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from afterglow.cache import allocate, take_rows
from afterglow.datasets.images import CaptionedImages
from afterglow.datasets.sources import load_images
from afterglow.errors import AfterglowError
from afterglow.evaluation.false_positives import MAX_UNSEEN
from afterglow.evaluation.training_set import training_set
from afterglow.models.denoiser import Denoiser
from afterglow.neighbors.clusters import cluster_images
from afterglow.neighbors.search import iter_chunks
from afterglow.planting.dataset import PlantedDataset
from afterglow.planting.plants import PlantedSet


@dataclass(frozen=True)
class AuditedSet:
    """The images that an audit asks about, followed by images that the model never saw.

    Attributes:
        pixels: uint8 [N + M, C, H, W].
        captions, names: N + M strings.
        clusters: int64 [N + M], near-duplicate clusters; none has images of both kinds. Before `clustered`: the known families.
        count: N.
    """

    pixels: Any
    captions: tuple[str, ...]
    names: tuple[str, ...]
    clusters: np.ndarray
    count: int


def audited_set(model: Denoiser, data: str, dataset: str = "imagefolder", heldout: str | None = None) -> AuditedSet:
    """The images of a folder or a dataset, or those of one epoch of a run as its training shows them, not yet `clustered`.

    Args:
        model: gives image size and autoencoder.
        data: folder, hub id or run folder.
        dataset: how `data` is read if it is no run folder.
        heldout: folder of images that the model never saw, of which at most MAX_UNSEEN are taken; default: those of a run.

    Raises:
        AfterglowError: if images cannot be read, or do not fit the model.
    """
    if (Path(data) / "config.yaml").is_file():
        planted = training_set(model, planted=Path(data))
        own, unseen = _epoch(planted), _heldout(planted)
    else:
        own, unseen = _load(model, dataset, None if dataset == "openmoji" else data, None), None
    if heldout is not None:
        unseen = _load(model, "imagefolder", heldout, MAX_UNSEEN)
    return _joined(own, unseen)


def trained_images(planted: PlantedSet) -> AuditedSet:
    """The images of one epoch of a training, followed by its held-out images, of which at least two must differ from all of them.

    Raises:
        AfterglowError: if there are fewer than two.
    """
    images = clustered(_joined(_epoch(planted), _heldout(planted)))
    if len(images.names) < images.count + 2:
        raise AfterglowError("monitor.num_audited needs images that are not trained on: data.planting.num_heldout must be at least 2.")
    return images


def clustered(images: AuditedSet) -> AuditedSet:
    """The images with their near-duplicate clusters, without those unseen images that are near-duplicates of the audited ones.

    Raises:
        AfterglowError: if the audited images are one cluster, or no unseen image is left.
    """
    clusters, count, total = cluster_images(images.pixels, images.clusters), images.count, len(images.names)
    if len(np.unique(clusters[:count])) < 2:
        raise AfterglowError("The images of --data are one cluster of near-duplicates, and a copy is measured against another cluster.")
    rows = np.flatnonzero((np.arange(total) < count) | ~np.isin(clusters, clusters[:count]))
    if len(rows) == count < total:
        raise AfterglowError("All held-out images are near-duplicates of an audited image: --heldout needs other images.")
    captions, names = (tuple(values[row] for row in rows.tolist()) for values in (images.captions, images.names))
    return AuditedSet(images.pixels if len(rows) == total else take_rows(images.pixels, rows), captions, names, clusters[rows], count)


def _joined(own: CaptionedImages, unseen: CaptionedImages | None) -> AuditedSet:
    """Both kinds of images; those of no family are clusters of their own."""
    parts = [own] if unseen is None else [own, unseen]
    count, total = len(own), sum(map(len, parts))
    pixels = allocate((total, *own.pixels.shape[1:]))
    for first, part in zip((0, count), parts, strict=False):
        for chunk in iter_chunks(part.pixels):
            pixels[first + chunk.start : first + min(chunk.stop, len(part))] = part.pixels[chunk]
    families = np.concatenate([np.where(part.families < 0, -1, part.families + place * total) for place, part in enumerate(parts)])
    captions, names = (sum((getattr(part, name) for part in parts), ()) for name in ("captions", "names"))
    return AuditedSet(pixels, captions, names, np.where(families < 0, families.max() + 1 + np.arange(total), families), count)


def _load(model: Denoiser, dataset: str, folder: str | None, most: int | None) -> CaptionedImages:
    channels, _, side = model.image_shape()
    images = load_images(dataset, resolution=side, channels=channels, data_dir=folder, max_images=most)
    return replace(images, pixels=model.reconstruct(images.pixels))


def _heldout(planted: PlantedSet) -> CaptionedImages:
    own = planted.heldout[:MAX_UNSEEN]
    names, captions = (tuple(values[row] for row in own.tolist()) for values in (planted.names, planted.captions))
    return CaptionedImages(planted.pixels[own], captions, names, np.full(len(own), -1), False)


def _epoch(planted: PlantedSet) -> CaptionedImages:
    """The samples of one epoch of a training; those of a plant are named after it."""
    samples = PlantedDataset(planted, 0)
    keys, names, captions = samples.keys(range(samples.epoch_length)), [], []
    for number, (place, member, _) in enumerate(keys.tolist()):
        plant = planted.plants[place] if place >= 0 else None
        names.append(f"{plant.kind} plant {plant.plant_id}, sample {number}" if plant else planted.names[member])
        captions.append(plant.caption if plant else planted.captions[member])
    pixels = allocate((len(keys), *planted.pixels.shape[1:]))
    for chunk in iter_chunks(pixels):
        pixels[chunk] = samples.images(keys[chunk]).numpy()
    return CaptionedImages(pixels, tuple(captions), tuple(names), np.full(len(names), -1), False)
