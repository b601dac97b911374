"""The Lightning data module of a planted set."""

from collections.abc import Iterator

import lightning as L
from torch.utils.data import DataLoader, Sampler

from afterglow.errors import AfterglowError
from afterglow.kinds import TRAINED
from afterglow.planting.dataset import PlantedDataset, collate
from afterglow.planting.plants import PlantedSet, PlantingConfig
from afterglow.planting.runs import build_planted_set


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
            raise AfterglowError(f"batch_size must be at least 1, and it is {batch_size}.")
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
        """Load the set on one process per machine first, so that the others find downloads and rendered images in the cache."""
        self.setup()

    def setup(self, stage: str | None = None) -> None:
        """Build the planted set and its samples."""
        if not hasattr(self, "planted"):
            self.planted = self.load()
            self.samples = PlantedDataset(self.planted, self.seed)

    def load(self) -> PlantedSet:
        """Build the planted set; raises AfterglowError if the images cannot be read or do not suffice."""
        return build_planted_set(
            self.dataset,
            resolution=self.resolution,
            channels=self.channels,
            planting=self.planting,
            seed=self.seed,
            data_dir=self.data_dir,
            caption_column=self.caption_column,
            set_size=self.set_size,
            skip_first=self.skip_first,
        )

    def train_dataloader(self) -> DataLoader:
        """Continues with the sample after the last one that an optimizer step has seen."""
        assert self.trainer is not None
        first, stride = self.share
        pieces = stride * self.trainer.accumulate_grad_batches
        if self.batch_size % pieces:
            raise AfterglowError(f"batch_size {self.batch_size} does not divide into {pieces} parts (processes x accumulated batches).")
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
