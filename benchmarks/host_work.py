"""Microseconds of the host for each training sample: drawing, composing and sending; the network is left out.

    python benchmarks/host_work.py
    python benchmarks/host_work.py --batch-size 128

Images of 4 pixels take the place of the real ones: the arithmetic, which a GPU would do, all but disappears, and what remains is what a
host does beside a GPU. Each operation would also be launched there, 2 to 5 microseconds each; their number is printed. The last line is
the same work with all its arithmetic on one CPU core.
Bound: 10 microseconds at batch 512.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from afterglow.datasets.images import CaptionedImages
from afterglow.models.ddpm import DDPM
from afterglow.planting.dataset import PlantedDataset
from afterglow.planting.planner import plant_images
from afterglow.planting.plants import PlantedSet, PlantingConfig


def random_set(side: int) -> PlantedSet:
    """Five thousand images of noise with every kind of plant."""
    pixels = np.random.default_rng(0).integers(0, 256, (6000, 3, side, side), dtype=np.uint8)
    names = tuple(f"image {row}" for row in range(len(pixels)))
    images = CaptionedImages(pixels, names, names, np.full(len(pixels), -1), True)
    return plant_images(images, PlantingConfig(copies=(100,)), set_size=5000)


class Operations(TorchDispatchMode):
    """Counts the operations of tensors."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def microseconds(work: Callable[[int], object], batch_size: int, repeats: int) -> list[float]:
    """Seconds of the process per sample, of each repetition."""
    seconds = []
    for number in range(repeats):
        begin = time.process_time()
        work(number)
        seconds.append((time.process_time() - begin) / batch_size * 1e6)
    return seconds[1:]  # the first draws the order of the epoch


def main() -> None:
    """Print median and quartiles of both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--side", type=int, default=32, help="side of the images in pixels")
    parser.add_argument("--repeats", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    size, unet = options.batch_size, {"block_out_channels": [8], "down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"]}
    for side, meaning in ((4, "host beside a GPU"), (options.side, "with all arithmetic on one core")):
        samples, model = PlantedDataset(random_set(side), 0), DDPM({**unet, "norm_num_groups": 4}, resolution=side, cond_drop_prob=0.1)
        samples.to(torch.device("cpu"))

        def work(number: int, samples: PlantedDataset = samples, model: DDPM = model) -> None:
            batch = samples.batch(range(number * size, (number + 1) * size))
            model.sample_noise_and_timesteps(batch.index, batch.image)

        low, median, high = np.percentile(microseconds(work, size, options.repeats), [25, 50, 75])
        with Operations() as counter:
            work(0)
        print(f"{meaning}: {median:.1f} microseconds per sample [{low:.1f}, {high:.1f}], {counter.count} operations for {size} samples")


if __name__ == "__main__":
    main()
