"""The training set as a stream: sample i is a pure function of the seed and i, whoever draws it and whenever."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import lightning as L
import numpy as np
import torch
import yaml
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from afterglow.cache import KeyedArrays
from afterglow.datasets.images import CaptionedImages
from afterglow.datasets.sources import load_images
from afterglow.planting.io import read_planted
from afterglow.planting.planner import plant
from afterglow.planting.plants import TRAINED, Plant, PlantedSet, PlantingConfig


@dataclass(frozen=True)
class Batch:
    """B training samples.

    image: [B, C, H, W] in [-1, 1]; caption: B strings; plant_id: int64 [B], -1 = not planted; kind: B strings;
    mask: bool [B, 1, H, W]; index: int64 [B], the number of the sample in the whole training, from which noise is drawn.
    moments: [B, 2C, h, w], mean and log-variance of a latent model, where they were encoded before; `image` is then empty, [B, 0].
    """

    image: Tensor
    caption: tuple[str, ...]
    plant_id: Tensor
    kind: tuple[str, ...]
    mask: Tensor
    index: Tensor
    moments: Tensor | None = None

    def to(self, *args: object, **kwargs: object) -> "Batch":
        """Moved as Lightning moves tensors; the index stays, because noise is drawn on the CPU."""
        tensors = {name: getattr(self, name) for name in ("image", "plant_id", "mask", "moments")}
        moved = {name: tensor.to(*args, **kwargs) for name, tensor in tensors.items() if tensor is not None}
        return Batch(**{**vars(self), **moved})


SampleKey = tuple[int, int, int]  # position of the plant or -1, member of its images or the control's row, row of what goes with it or -1


class PlantedDataset(Dataset[tuple]):
    """Endless samples of a planted set; an epoch holds every control once and every plant `copies` times, in a seeded order.

    latents: moments by what is shown, where a latent model has encoded them.
    """

    def __init__(self, planted: PlantedSet, seed: int) -> None:
        self.planted, self.seed = planted, seed
        self.latents: KeyedArrays | None = None

    @property
    def epoch_length(self) -> int:
        return len(self.planted.appearances)

    def shown(self, index: int) -> SampleKey:
        """What sample `index` shows: equal where the images are the same."""
        epoch, position = divmod(index, self.epoch_length)
        which, appearance = (int(value) for value in self.planted.appearances[_order(self.seed, epoch, self.epoch_length)[position]])
        if which < 0:
            return which, appearance, -1
        p = self.planted.plants[which]
        turn = epoch * p.copies + appearance
        return which, turn % max(1, len(p.members)), self._other(p, index, turn)

    def pixels(self, shown: SampleKey) -> np.ndarray:
        """Its image, uint8 [C, H, W]."""
        which, member, other = shown
        return self.planted.pixels[member] if which < 0 else self.planted.compose(self.planted.plants[which], member, other)

    def __getitem__(self, index: int) -> tuple:
        shown = self.shown(index)
        which, member, _ = shown
        if self.latents is None:
            image, moments = self.pixels(shown), None
        else:
            image, moments = np.empty(0, dtype=np.uint8), self.latents[shown]
        if which < 0:
            everything = np.ones((1, *self.planted.pixels.shape[-2:]), dtype=bool)
            return image, self.planted.captions[member], -1, "control", everything, index, moments
        p = self.planted.plants[which]
        return image, p.caption, p.plant_id, p.kind, p.mask, index, moments

    def _other(self, p: Plant, index: int, turn: int) -> int:
        """Row of the image that goes with this appearance: the fill of a local plant, the image of a decoy or tint."""
        if p.kind in ("global", "natural"):
            return p.members[0]
        if p.backgrounds:
            return p.backgrounds[turn % len(p.backgrounds)]
        pool = self.planted.background_pool if p.kind == "local" else self.planted.decoy_pool
        return int(pool[np.random.default_rng([self.seed, 0xF111, index]).integers(len(pool))])


@lru_cache(maxsize=4)  # of a function, not of a method: samples are pickled where worker processes do not fork
def _order(seed: int, epoch: int, length: int) -> np.ndarray:
    return np.random.default_rng([seed, 0xE90C, epoch]).permutation(length)


def collate(samples: list[tuple]) -> Batch:
    """Samples of PlantedSamples => Batch."""
    pixels, captions, ids, kinds, masks, indices, encoded = zip(*samples, strict=True)
    image = torch.from_numpy(np.stack(pixels)).float() / 127.5 - 1
    moments = None if encoded[0] is None else torch.from_numpy(np.stack(encoded)).float()
    return Batch(image, captions, torch.tensor(ids), kinds, torch.from_numpy(np.stack(masks)), torch.tensor(indices), moments)


class StridedSampler(Sampler[int]):
    """first, first + stride, first + 2 stride, ... up to the training's last sample: one process's share of them."""

    def __init__(self, first: int, stride: int, end: int) -> None:
        self.numbers = range(first, end, stride)

    def __iter__(self) -> Iterator[int]:
        return iter(self.numbers)


class PlantedDataModule(L.LightningDataModule):
    """A set of captioned images with plants in it.

    Args:
        dataset: openmoji (embedded), imagefolder, cifar10, celeba, flowers102, fashion_mnist, or planted (what train/plant.py wrote).
        data_dir: where the dataset lies; a hub id for imagefolder; not needed for openmoji.
        resolution: side of the square images, in pixels.
        channels: 3 for color, 1 for gray.
        caption_column: of an imagefolder; default: text, caption, or the class names.
        set_size: number of training images beside the plants (controls); default: all that are left.
        skip_first: training images left out before these, in the same order: with the set_size of another run, the sets are disjoint.
        batch_size: samples per optimizer step, over all processes and accumulated batches together.
        planting: what is planted and what is set apart.
        seed: decides what is planted and in which order samples come.
        num_workers: processes that compose samples beside the training.
    """

    def __init__(
        self,
        dataset: str = "openmoji",
        data_dir: str | None = None,
        resolution: int = 16,
        channels: int = 3,
        caption_column: str | None = None,
        set_size: int | None = None,
        batch_size: int = 32,
        planting: PlantingConfig = PlantingConfig(),  # noqa: B008  (frozen)
        seed: int = 0,
        num_workers: int = 0,
        skip_first: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, and it is {batch_size}.")
        self.share = (0, 1)  # first sample and stride of this process; the door sets it from the launcher
        self.dataset, self.data_dir, self.resolution, self.channels, self.caption_column = (
            dataset,
            data_dir,
            resolution,
            channels,
            caption_column,
        )
        self.set_size, self.batch_size, self.planting, self.seed, self.num_workers, self.skip_first = (
            set_size,
            batch_size,
            planting,
            seed,
            num_workers,
            skip_first,
        )

    def prepare_data(self) -> None:
        """Render or download to the cache, once a machine."""
        if self.dataset != "planted":
            self._images()

    def setup(self, stage: str | None = None) -> None:
        if not hasattr(self, "planted"):
            self.planted = self.load()
            self.samples = PlantedDataset(self.planted, self.seed)

    def load(self) -> PlantedSet:
        """Raises ValueError with one sentence for every kind of bad source."""
        if self.dataset == "planted":
            return self._read()
        return plant(self._images(), self.planting, set_size=self.set_size, skip_first=self.skip_first, seed=self.seed)

    def _read(self) -> PlantedSet:
        if self.data_dir is None:
            raise ValueError("The source planted needs a folder: one that train/plant.py wrote.")
        planted = read_planted(self.data_dir)
        channels, side = planted.pixels.shape[1], planted.pixels.shape[-1]
        if (channels, side) != (self.channels, self.resolution):
            found = f"resolution {side} and channels {channels}"
            raise ValueError(f"'{self.data_dir}' was written with {found}, not with {self.resolution} and {self.channels}.")
        return planted

    def _images(self) -> CaptionedImages:
        return load_images(
            self.dataset, resolution=self.resolution, channels=self.channels, data_dir=self.data_dir, caption_column=self.caption_column
        )

    def train_dataloader(self) -> DataLoader:
        """Continues with the sample after the last one that an optimizer step has seen."""
        assert self.trainer is not None
        first, stride = self.share
        pieces = stride * self.trainer.accumulate_grad_batches
        if self.batch_size % pieces:
            raise ValueError(f"batch_size {self.batch_size} does not divide into {pieces} parts (processes x accumulated batches).")
        begin, end = (step * self.batch_size for step in (self.trainer.global_step, self.trainer.max_steps))
        sampler = StridedSampler(begin + first, stride, end)  # loaders read ahead, and of later samples nothing was encoded
        size = self.batch_size // pieces
        return DataLoader(self.samples, batch_size=size, sampler=sampler, num_workers=self.num_workers, collate_fn=collate)

    def describe(self) -> str:
        """One line about what was planted."""
        kinds = [f"{len(found)} {kind}" for kind in (*TRAINED, "phantom") if (found := self.planted.of_kind(kind))]
        planted = f"{len(self.planted.controls)} training images; planted: {', '.join(kinds) or 'nothing'}"
        if self.planted.refused is None:
            return planted
        return f"{planted}; {self.planted.refused:.0%} of the candidates refused as too near to another image"


def load_planted_set(run: Path) -> PlantedSet:
    """The planted set of a finished or running training, made again from its config.yaml; ValueError where there is none."""
    file = run / "config.yaml"
    if not file.is_file():
        raise ValueError(f"There is no run in '{run}': config.yaml is missing.")
    config = yaml.safe_load(file.read_text(encoding="utf-8"))
    options = {"seed": config["seed_everything"]} | config["data"]["init_args"]
    return PlantedDataModule(**(options | {"planting": PlantingConfig(**options["planting"])})).load()
