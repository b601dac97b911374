"""The training set as a stream: sample i is a pure function of the seed and i, independent of the process that draws it."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from afterglow.cache import ArrayCache
from afterglow.functional.philox import Stream, random_integers, random_words
from afterglow.functional.pixels import to_signed
from afterglow.planting.plants import Plant, PlantedSet, tinted

NO_PLANT = Plant(-1, "control", "", 0, "", np.empty(0), np.empty(0), -1)  # takes the place of the plant in the tables of controls


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

    def to(self, device: torch.device | str) -> "Batch":
        """Move images and moments without waiting, as Lightning does; `index` stays on the CPU, where captions are dropped."""
        return self._changed(lambda tensor: tensor.to(device, non_blocking=tensor.device.type == "cpu"))

    def pin_memory(self) -> "Batch":
        """Copy images and moments to pinned memory, as a data loader does."""
        return self._changed(Tensor.pin_memory)

    def _changed(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        return replace(self, image=change(self.image), moments=None if self.moments is None else change(self.moments))


class PlantedDataset(Dataset[Batch]):
    """Endless samples of a planted set: an epoch holds every control once and every plant `copies` times, in a seeded order.

    The seed also decides the fresh backgrounds. All samples of a batch are composed together, on the device that holds the images.
    """

    def __init__(self, planted: PlantedSet, seed: int) -> None:
        self.planted, self.seed = planted, seed
        self.latents: ArrayCache | None = None  # moments by `SampleKey`, set once a latent model has encoded the images
        self.device = torch.device("cpu")
        self._images: Tensor | None = None  # `planted.pixels` on another device
        plants = (*planted.plants, NO_PLANT)  # found at -1
        self._kinds, self._copies = [plant.kind for plant in plants], np.array([plant.copies for plant in plants])
        self._members = _Lists([plant.members for plant in plants])
        self._others = _Lists([self._other_rows(plant) for plant in plants])
        self._drawn = np.array([plant.kind in ("local", "decoy", "tint") and not plant.backgrounds for plant in plants])
        everything = np.ones((1, *planted.pixels.shape[2:]), dtype=bool)
        self._visible = torch.from_numpy(np.stack([*(plant.visible for plant in planted.plants), everything]))
        tints = [plant.paint if plant.kind == "tint" else np.full((3, 1, 1), -1, dtype=np.float32) for plant in plants]
        self._paint = torch.from_numpy(np.stack(tints))  # negative where nothing is tinted

    @property
    def epoch_length(self) -> int:
        """Number of samples in an epoch."""
        return len(self.planted.appearances)

    def to(self, device: torch.device) -> None:
        """Keep the images, and compose the samples, on a device; all images are copied there."""
        self._images = torch.from_numpy(self.planted.pixels[np.arange(len(self.planted.pixels))]).to(device)
        self.device, self._visible, self._paint = device, self._visible.to(device), self._paint.to(device)

    def keys(self, numbers: Iterable[int]) -> np.ndarray:
        """Return what samples show, int64 [B, 3]: the rows are SampleKeys."""
        numbers = np.fromiter(numbers, dtype=np.int64)
        epoch, position = np.divmod(numbers, self.epoch_length)
        place = np.empty_like(numbers)
        for value in np.unique(epoch).tolist():
            place[epoch == value] = _order(self.seed, value, self.epoch_length)[position[epoch == value]]
        plant, appearance = self.planted.appearances[place].T
        turn = epoch * self._copies[plant] + appearance
        member = np.where(plant < 0, appearance, turn % np.maximum(1, self._members.count[plant]))
        count, choice = self._others.count[plant], turn
        if self._drawn[plant].any():
            words = random_words(self.seed, Stream.BACKGROUND, torch.from_numpy(numbers), 1)[:, 0]
            choice = np.where(self._drawn[plant], random_integers(words, torch.from_numpy(count)).numpy(), turn)
        return np.stack([plant, member, self._others[plant, choice % count]], axis=1)

    def images(self, keys: np.ndarray) -> Tensor:
        """Return the images of keys, uint8 [B, C, H, W], on the dataset's device."""
        plant, member, other = keys.T
        inside = np.where(plant < 0, member, np.where(self._members.count[plant] > 0, self._members[plant, member], other))
        top, bottom = self._rows(inside), self._rows(np.where(other < 0, inside, other))
        rows = self._sent(plant)
        if any(self._kinds[place] == "tint" for place in plant.tolist()):
            paint = self._paint[rows]
            top = torch.where(paint[:, :1] >= 0, tinted(top, paint), top)
        return torch.where(self._visible[rows], top, bottom)

    def batch(self, numbers: Sequence[int]) -> Batch:
        """Return samples by their numbers, which count from 0 over the whole training."""
        return self.shown(self.keys(numbers), torch.tensor(numbers))

    def shown(self, keys: np.ndarray, index: Tensor) -> Batch:
        """Return what keys show, as the samples with the numbers `index`."""
        plants, members, _ = keys.T.tolist()
        captions = [
            self.planted.captions[row] if plant < 0 else self.planted.plants[plant].caption
            for plant, row in zip(plants, members, strict=True)
        ]
        kinds = tuple(self._kinds[plant] for plant in plants)
        if self.latents is None:
            return Batch(to_signed(self.images(keys)), tuple(captions), kinds, index)
        moments = np.stack([self.latents[SampleKey(*key)] for key in keys.tolist()])
        return Batch(torch.empty(len(keys), 0), tuple(captions), kinds, index, torch.from_numpy(moments).float())

    __getitems__ = batch  # what a DataLoader calls

    def _other_rows(self, plant: Plant) -> Sequence[int]:
        """Rows from which the background of a local plant, or the image of a decoy or tint, is taken."""
        if plant.backgrounds or plant.kind not in ("local", "decoy", "tint"):
            return plant.backgrounds or plant.members[:1] or (-1,)
        return (self.planted.background_pool if plant.kind == "local" else self.planted.decoy_pool).tolist()

    def _rows(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(self.planted.pixels[rows]) if self._images is None else self._images[self._sent(rows)]

    def _sent(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(rows).to(self.device, non_blocking=True)


class _Lists:
    """Lists of rows of different lengths; `count` has their lengths, int64 [N]."""

    def __init__(self, lists: Sequence[Sequence[int]]) -> None:
        self.count = np.array([len(rows) for rows in lists])
        self._start = np.cumsum(self.count) - self.count
        self._rows = np.array([*itertools.chain(*lists), 0])  # the start of an empty list at the end is no error

    def __getitem__(self, places: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """Entries `places[1]` of the lists `places[0]`; of an empty list any row."""
        return self._rows[np.minimum(self._start[places[0]] + places[1], len(self._rows) - 1)]


@lru_cache(maxsize=4)  # a function, not a method: datasets are pickled where worker processes do not fork
def _order(seed: int, epoch: int, length: int) -> np.ndarray:
    return np.random.default_rng([seed, 0xE90C, epoch]).permutation(length)
