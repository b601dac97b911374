"""Page faults and seconds of the CPU of a training step, before and after the process keeps the memory of freed tensors (Linux).

    python benchmarks/freed_memory.py
    python benchmarks/freed_memory.py --batch-size 64 --side 32 --steps 3

The demo's network, loss and optimizer. The system counts faults and its own seconds, so that other processes hardly change them.
"""

import argparse
import resource

import numpy as np
import torch
from networks import captioned

from afterglow.memory import keep_freed_memory
from afterglow.planting.dataset import Batch


def main() -> None:
    """Print the medians over the steps and the peak of the memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--side", type=int, default=16, help="side of the images in pixels")
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    count, side = options.batch_size, options.side
    model = captioned(side)
    batch = Batch(torch.randn(count, 3, side, side), ("a red apple",) * count, ("control",) * count, torch.arange(count))
    optimizer = torch.optim.AdamW(model.unet.parameters(), fused=True)
    for way in ("returned", "kept"):
        if way == "kept":
            keep_freed_memory()
        used = []
        for _ in range(options.steps + 2):  # two that warm up
            before = resource.getrusage(resource.RUSAGE_SELF)
            optimizer.zero_grad()
            model.losses(batch).mean().backward()
            optimizer.step()
            after = resource.getrusage(resource.RUSAGE_SELF)
            used.append([getattr(after, name) - getattr(before, name) for name in ("ru_minflt", "ru_stime", "ru_utime")])
        faults, system, user = np.median(used[2:], axis=0)
        seconds = f"{system:.3f} s in the system and {user:.3f} s outside"
        print(f"{way}: {faults:,.0f} page faults, {seconds}, {after.ru_maxrss / 1024:,.0f} MiB at most")


if __name__ == "__main__":
    main()
