"""The Lightning data module of a planted set."""

import os
from collections.abc import Iterator
from typing import Any

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from afterglow.errors import AfterglowError, require, require_positive
from afterglow.kinds import TRAINED
from afterglow.memory import free_memory
from afterglow.planting.dataset import Batch, PlantedDataset
from afterglow.planting.plants import PlantingConfig
from afterglow.planting.runs import build_planted_set

MAX_WORKERS = 256  # more processes than any machine can use
DEFAULT_WORKERS = 4  # where the images do not fit on the device
DEVICE_SHARE = 0.25  # of a device's free memory, for the images of the training set


class UnsizedSampler(Sampler[int]):
    """The numbers of a range without its length, with which Lightning would end the epoch of a resumed training too early."""

    def __init__(self, numbers: range) -> None:
        self.numbers = numbers

    def __iter__(self) -> Iterator[int]:
        return iter(self.numbers)


class PlantedDataModule(L.LightningDataModule):
    """A set of captioned images with plants in it.

    Args:
        dataset: openmoji (embedded), imagefolder, cifar10, celeba, flowers102, fashion_mnist, or planted (a folder that `afterglow plant`
            wrote).
        data_dir: folder of the dataset, or a hub id for imagefolder; not used by openmoji.
        resolution: width and height of the images in pixels.
        channels: 3 for color, 1 for gray.
        caption_column: column with the captions of an imagefolder; by default text, caption, or the class names.
        set_size: number of training images beside the plants (controls); by default all that remain.
        skip_first: number of training images to leave out before these, in the same order; with the set_size of another run, the two
            sets are disjoint.
        batch_size: samples per optimizer step, over all processes and accumulated batches together.
        planting: what to plant and what to set apart.
        seed: decides what is planted and the order of the samples.
        num_workers: number of processes that load samples beside the training. 0: the images are kept on the GPU, and composed there, if
            they fill at most a quarter of its free memory; otherwise 4 processes load them. A CPU composes them as it trains.
        one_per_cluster: take only the first image of each cluster of near-duplicates, so that set_size counts clusters.
        max_images: number of images of the dataset to read, drawn with the seed, such as 1000 of a folder with a million; by default all.

    Raises:
        AfterglowError: if an option cannot be used.
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
        max_images: int | None = None,
        one_per_cluster: bool = False,
    ) -> None:
        super().__init__()
        require_positive(batch_size=batch_size, resolution=resolution)
        require("channels", channels, channels in (1, 3), "1 (gray) or 3 (color)")
        require("set_size", set_size, set_size is None or set_size >= 1, "at least 1")
        require("skip_first", skip_first, skip_first >= 0, "at least 0")
        require("num_workers", num_workers, 0 <= num_workers <= MAX_WORKERS, f"a number of processes from 0 to {MAX_WORKERS}")
        require("planting", planting, isinstance(planting, PlantingConfig), "a mapping of options")
        self.rank, self.world_size = 0, 1  # the command sets them from the launcher
        self.options: dict[str, Any] = {"dataset": dataset, "data_dir": data_dir, "resolution": resolution, "channels": channels}
        self.options |= {"caption_column": caption_column, "set_size": set_size, "skip_first": skip_first}
        self.options |= {"planting": planting, "seed": seed, "max_images": max_images}
        self.options |= {"one_per_cluster": one_per_cluster}
        self.planting, self.seed, self.batch_size, self.num_workers = planting, seed, batch_size, num_workers

    def prepare_data(self) -> None:
        """Build the set on one process per machine first, so that the others find downloads and rendered images in the cache."""
        self.setup()

    def setup(self, stage: str | None = None) -> None:
        """Build the planted set and its samples."""
        if not hasattr(self, "planted"):
            self.planted = build_planted_set(**self.options)
            self.samples = PlantedDataset(self.planted, self.seed)

    def train_dataloader(self) -> DataLoader:
        """Return the samples from the first that no optimizer step has used."""
        assert self.trainer is not None
        parts = self.world_size * self.trainer.accumulate_grad_batches
        if self.batch_size % parts:
            raise AfterglowError(f"batch_size {self.batch_size} does not divide into {parts} parts (processes x accumulated batches).")
        begin, end = (step * self.batch_size for step in (self.trainer.global_step, self.trainer.max_steps))
        sampler = UnsizedSampler(range(begin + self.rank, end, self.world_size))  # loaders read ahead, and latents exist only up to `end`
        device = self.trainer.strategy.root_device
        on_device = self.num_workers == 0 and device.type != "cpu" and self.samples.latents is None and fits(self.planted.pixels, device)
        if on_device:
            self.samples.to(device)
        workers = self.num_workers or (0 if on_device or device.type == "cpu" else min(DEFAULT_WORKERS, os.cpu_count() or 1))
        return DataLoader(
            self.samples, self.batch_size // parts, sampler=sampler, num_workers=workers, collate_fn=_composed,
            pin_memory=device.type == "cuda" and not on_device,
        )  # fmt: skip

    def describe(self) -> str:
        """Return one line on what is planted."""
        kinds = [f"{len(plants)} {kind}" for kind in (*TRAINED, "phantom") if (plants := self.planted.of_kind(kind))]
        line = f"{len(self.planted.controls)} training images; planted: {', '.join(kinds) or 'nothing'}"
        fraction = self.planted.ineligible_fraction
        return f"{line}; {fraction:.0%} of the images resemble another one and were not considered for plants" if fraction else line


def fits(pixels: Any, device: torch.device) -> bool:
    """Whether the images of a set, uint8 [M, C, H, W], leave enough of a device's free memory to the training."""
    return int(np.prod(pixels.shape)) <= DEVICE_SHARE * free_memory(device)


def _composed(batch: Any) -> Batch:
    """The dataset composes whole batches; a function with a name, for worker processes that do not fork."""
    return batch
