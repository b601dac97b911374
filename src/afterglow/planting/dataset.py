"""The training set as a stream: sample i is a pure function of the seed and i, independent of the process that draws it."""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from afterglow.cache import ArrayCache
from afterglow.functional.pixels import to_signed
from afterglow.planting.plants import Plant, PlantedSet


class SampleKey(NamedTuple):
    """What one sample shows; equal keys mean equal images.

    Attributes:
        plant: position in `PlantedSet.plants`, -1 for a control.
        member: position among the plant's images; the row of a control.
        other: row of the background of a local plant, or of the image of a decoy or tint; -1 for a control.
    """

    plant: int
    member: int
    other: int


class Sample(NamedTuple):
    """One training sample: plant_id is -1 and kind "control" for a control; `number` counts from 0 over the whole training.

    image: uint8 [C, H, W], or empty where a latent model has encoded it before; then moments: [2C, h, w], mean and log-variance.
    """

    image: np.ndarray
    caption: str
    plant_id: int
    kind: str
    number: int
    moments: np.ndarray | None


@dataclass(frozen=True)
class Batch:
    """B training samples.

    Attributes:
        image: float32 [B, C, H, W] in [-1, 1]; [B, 0] where `moments` takes its place.
        caption: B strings.
        kind: B strings.
        index: int64 [B], number of each sample in the whole training; noise and timesteps are drawn from it.
        moments: [B, 2C, h, w], mean and log-variance of the latents, where they were encoded before.
    """

    image: Tensor
    caption: tuple[str, ...]
    kind: tuple[str, ...]
    index: Tensor
    moments: Tensor | None = None

    def to(self, *args: Any, **kwargs: Any) -> "Batch":
        """Move images and moments, as Lightning does; `index` stays on the CPU, where noise is drawn."""
        moments = None if self.moments is None else self.moments.to(*args, **kwargs)
        return replace(self, image=self.image.to(*args, **kwargs), moments=moments)


class PlantedDataset(Dataset[Sample]):
    """Endless samples of a planted set: an epoch holds every control once and every plant `copies` times, in a seeded order.

    The seed also decides the fresh backgrounds.
    """

    def __init__(self, planted: PlantedSet, seed: int) -> None:
        self.planted, self.seed = planted, seed
        self.latents: ArrayCache | None = None  # moments by `SampleKey`, set once a latent model has encoded the images

    @property
    def epoch_length(self) -> int:
        """Number of samples in an epoch."""
        return len(self.planted.appearances)

    def key(self, index: int) -> SampleKey:
        """Return what sample number `index` shows."""
        epoch, position = divmod(index, self.epoch_length)
        which, appearance = (int(value) for value in self.planted.appearances[_order(self.seed, epoch, self.epoch_length)[position]])
        if which < 0:
            return SampleKey(which, appearance, -1)
        plant = self.planted.plants[which]
        turn = epoch * plant.copies + appearance
        return SampleKey(which, turn % max(1, len(plant.members)), self._other(plant, index, turn))

    def pixels(self, key: SampleKey) -> np.ndarray:
        """Return the image of a key, uint8 [C, H, W]."""
        if key.plant < 0:
            return self.planted.pixels[key.member]
        return self.planted.compose(self.planted.plants[key.plant], key.member, key.other)

    def __getitem__(self, index: int) -> Sample:
        key = self.key(index)
        image = np.empty(0, dtype=np.uint8) if self.latents is not None else self.pixels(key)
        moments = self.latents[key] if self.latents is not None else None
        if key.plant < 0:
            return Sample(image, self.planted.captions[key.member], -1, "control", index, moments)
        plant = self.planted.plants[key.plant]
        return Sample(image, plant.caption, plant.plant_id, plant.kind, index, moments)

    def _other(self, plant: Plant, index: int, turn: int) -> int:
        """Row of the background of a local plant, or of the image of a decoy or tint, at this appearance."""
        if plant.kind in ("global", "natural"):
            return plant.members[0]
        if plant.backgrounds:
            return plant.backgrounds[turn % len(plant.backgrounds)]
        pool = self.planted.background_pool if plant.kind == "local" else self.planted.decoy_pool
        return int(pool[np.random.default_rng([self.seed, 0xF111, index]).integers(len(pool))])


@lru_cache(maxsize=4)  # a function, not a method: samples are pickled where worker processes do not fork
def _order(seed: int, epoch: int, length: int) -> np.ndarray:
    return np.random.default_rng([seed, 0xE90C, epoch]).permutation(length)


def collate(samples: list[Sample]) -> Batch:
    """Join samples to a batch."""
    image = to_signed(np.stack([sample.image for sample in samples]))
    encoded = [sample.moments for sample in samples if sample.moments is not None]
    moments = torch.from_numpy(np.stack(encoded)).float() if encoded else None
    index = torch.tensor([sample.number for sample in samples])
    return Batch(image, tuple(sample.caption for sample in samples), tuple(sample.kind for sample in samples), index, moments)
