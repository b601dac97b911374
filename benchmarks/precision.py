"""A training step in bfloat16, in channels-last memory and compiled, each against the same step in float32.

    python benchmarks/precision.py
    python benchmarks/precision.py --batch-size 128 --side 32 --ways bf16 channels_last --captioned

Network, loss and optimizer are those of a training without captions, or of the demo; the images are the same at every step. Seconds in
which the process waited for a core are left out. `loss` is the ratio of the losses after as many steps from the same weights.
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from networks import captioned, plain
from timing import time_ratio, undisturbed_seconds

from afterglow.memory import keep_freed_memory
from afterglow.models.lightning_module import DenoiserModule, OptimizerConfig
from afterglow.planting.dataset import Batch


class Step:
    """One way to train; `loss` is that of the last step."""

    def __init__(self, way: str, batch: Batch, make: Callable[..., Any]) -> None:
        torch.manual_seed(0)
        self.model = make(compile=way == "compile", channels_last=way == "channels_last")
        DenoiserModule(self.model, OptimizerConfig())  # brings the weights into their memory format
        self.model.compile_network()
        self.batch, self.half = batch, way == "bf16"
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, fused=True)

    def __call__(self) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            loss = self.model.losses(self.batch).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.loss = loss.item()


def seconds(way: Callable[[], object]) -> float:
    """Undisturbed seconds of one step."""
    begin = undisturbed_seconds()
    way()
    return undisturbed_seconds() - begin


def main() -> None:
    """Print the ratio of each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", nargs="+", default=["bf16", "channels_last", "compile"])
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--captioned", action="store_true", help="the demo's network, which attends to captions at every level")
    parser.add_argument("--side", type=int, default=16, help="side of the images in pixels")
    options = parser.parse_args()
    keep_freed_memory()  # as the commands do
    count, side = options.batch_size, options.side
    images = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1
    batch = Batch(images, ("",) * count, ("control",) * count, torch.arange(count))
    make = partial(captioned if options.captioned else plain, side)
    for way in options.ways:
        other, usual = Step(way, batch, make), Step("float32", batch, make)
        median, low, high = time_ratio(other, usual, pairs=options.pairs, seconds=seconds)
        print(f"{way}: {median:.3f}x the seconds of float32 [{low:.3f}, {high:.3f}], loss {other.loss / usual.loss:.3f}x")


if __name__ == "__main__":
    main()
