"""A training step in bfloat16, in channels-last memory and compiled, each against the same step in float32.

    python benchmarks/precision.py
    python benchmarks/precision.py --batch-size 128 --side 32 --ways bf16 channels_last

Network, loss and optimizer are those of a training; the images are the same at every step. Seconds in which the process waited for a core
are left out. `loss` is the ratio of the losses after as many steps from the same weights.
"""

import argparse
from collections.abc import Callable

import torch
from timing import time_ratio, undisturbed_seconds

from afterglow.models.ddpm import DDPM
from afterglow.models.lightning_module import DenoiserModule, OptimizerConfig
from afterglow.planting.dataset import Batch

UNET = {
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "block_out_channels": [32, 64],
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "attention_head_dim": 16,
}


class Step:
    """One way to train; `loss` is that of the last step."""

    def __init__(self, way: str, batch: Batch, side: int) -> None:
        torch.manual_seed(0)
        self.model = DDPM(UNET, resolution=side, compile=way == "compile", channels_last=way == "channels_last")
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
    parser.add_argument("--side", type=int, default=16, help="side of the images in pixels")
    options = parser.parse_args()
    count, side = options.batch_size, options.side
    images = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1
    batch = Batch(images, ("",) * count, ("control",) * count, torch.arange(count))
    for way in options.ways:
        other, plain = Step(way, batch, side), Step("float32", batch, side)
        median, low, high = time_ratio(other, plain, pairs=options.pairs, seconds=seconds)
        print(f"{way}: {median:.3f}x the seconds of float32 [{low:.3f}, {high:.3f}], loss {other.loss / plain.loss:.3f}x")


if __name__ == "__main__":
    main()
