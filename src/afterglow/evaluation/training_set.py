"""The training set with which generations are compared: that of a run, or a dataset by name."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from afterglow.datasets.sources import load_images
from afterglow.errors import AfterglowError
from afterglow.evaluation.false_positives import MAX_UNSEEN
from afterglow.models.denoiser import Denoiser
from afterglow.planting.planner import plant_images
from afterglow.planting.plants import PlantedSet, PlantingConfig
from afterglow.planting.runs import load_planted_set

_NOTHING: dict[str, Any] = {
    "num_global": 0,
    "num_local": 0,
    "num_decoys": 0,
    "num_tints": 0,
    "num_backgrounds": 0,
    "num_decoy_images": 0,
    "num_heldout": 0,
}


def training_set(
    model: Denoiser, *, planted: Path | None = None, source: str | None = None, folder: str | None = None, set_size: int | None = None
) -> PlantedSet:
    """The training set of a run, or a dataset by name, as the model's autoencoder reconstructs it.

    Args:
        model: gives image size and autoencoder.
        planted: run folder.
        source: name of a dataset, instead of a run folder.
        folder: the dataset's folder.
        set_size: number of images of the dataset, in the seeded order in which a training takes them; None: all. The others are the
            held-out images.

    Raises:
        AfterglowError: if neither or both of planted and source are given, or the images do not fit the model.
    """
    channels, _, side = model.image_shape()
    if source is not None and planted is None:
        images = load_images(source, resolution=side, channels=channels, data_dir=folder)
        training = plant_images(images, PlantingConfig(**_NOTHING, phantoms=False))
        return _first_images(training, set_size).reconstructed(model.reconstruct)
    if planted is None or source is not None:
        raise AfterglowError("Name the training set: either --run RUN or --dataset NAME.")
    if folder is not None or set_size is not None:
        raise AfterglowError("--data-dir and --set-size belong to --dataset; --run takes the run's whole training set.")
    training = load_planted_set(planted)
    if training.pixels.shape[1:] != model.image_shape():
        raise AfterglowError(f"The images of '{planted}' are {training.pixels.shape[1:]}, and the model makes {model.image_shape()}.")
    return training.reconstructed(model.reconstruct)


def _first_images(training: PlantedSet, set_size: int | None) -> PlantedSet:
    """The set of the first `set_size` training images; the other clusters are held out."""
    if set_size is None:
        return training
    if set_size > len(training.controls):
        raise AfterglowError(f"--set-size is {set_size}, and the dataset has {len(training.controls)} images.")
    first, rest = training.controls[:set_size], training.controls[set_size:]
    heldout = rest[~np.isin(training.clusters[rest], training.clusters[first])]
    if len(np.unique(training.clusters[first])) < 2:
        raise AfterglowError(
            "The training set is one cluster of near-duplicates, and a copy is measured against the nearest other cluster."
        )
    return replace(training, controls=first, heldout=heldout[:MAX_UNSEEN]).compact()
