"""A training step on latents and text states from the cache against one that encodes, on Stable Diffusion's structure.

    python benchmarks/cached_latents.py
    python benchmarks/cached_latents.py --source CompVis/stable-diffusion-v1-4 --resolution 512 --device cuda

Without --source all widths of U-Net, autoencoder and text encoder are Stable Diffusion's divided by one number.
Bound: 1.3 times the speed, losses equal to 1e-4.
"""

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from timing import time_ratio

from afterglow.datasets.images import CaptionedImages
from afterglow.models.stable_diffusion import StableDiffusion
from afterglow.planting.dataset import PlantedDataset
from afterglow.planting.planner import plant_images
from afterglow.planting.plants import PlantedSet, PlantingConfig
from afterglow.testing.tiny_sd import sd_pipeline


def random_set(resolution: int) -> PlantedSet:
    """Sixty images of noise with a few plants."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 3, resolution, resolution), dtype=np.uint8)
    names = tuple(f"an image of number {row}" for row in range(60))
    planting = PlantingConfig(
        num_global=4, num_local=4, num_decoys=2, num_tints=2, num_backgrounds=8, num_decoy_images=8, num_heldout=4, copies=(4,)
    )
    return plant_images(CaptionedImages(pixels, names, names, np.full(60, -1), True), planting, set_size=16)


def main() -> None:
    """Print the largest difference of the losses and the ratio of seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", help="folder or hub id; default: random weights at a small width")
    parser.add_argument("--divide", type=int, default=8, help="without --source: what all widths are divided by")
    parser.add_argument("--resolution", type=int, default=64, help="side of the images")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--pairs", type=int, default=10, help="interleaved pairs of timings")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AFTERGLOW_CACHE"] = folder
        source = options.source or str(Path(folder) / "model")
        if not options.source:
            torch.manual_seed(0)
            sd_pipeline(options.divide, options.resolution).save_pretrained(source)
        compare(source, options)


def compare(source: str, options: argparse.Namespace) -> None:
    """The two ways in one run."""
    model = StableDiffusion(source, resolution=options.resolution).to(options.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    planted, size = random_set(options.resolution), options.batch_size
    encoding, remembered = PlantedDataset(planted, 0), PlantedDataset(planted, 0)
    total = 8 * size
    model.prepare_training(remembered, total, 0, 1, lambda: None)
    texts = model.text.cached

    def losses(samples: PlantedDataset, start: int) -> torch.Tensor:
        model.text.recent.clear()  # captions of a real set do not repeat within a few steps
        model.text.cached = texts if samples is remembered else None
        return model.losses(samples.batch(range(start, start + size)).to(options.device))

    def step(samples: PlantedDataset) -> None:
        optimizer.zero_grad()
        losses(samples, 0).mean().backward()
        optimizer.step()
        if options.device == "cuda":
            torch.cuda.synchronize()

    with torch.no_grad():
        apart = max((losses(encoding, start) - losses(remembered, start)).abs().max().item() for start in range(0, total, size))
    median, low, high = time_ratio(lambda: step(encoding), lambda: step(remembered), pairs=options.pairs)
    print(f"losses differ by at most {apart:.1e}")
    print(f"a step from the cache is {median:.2f}x as fast as one that encodes [{low:.2f}, {high:.2f}] ({options.pairs} pairs)")
    if options.device == "cuda":
        for name, samples in (("encoding", encoding), ("from the cache", remembered)):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            for _ in range(10):
                step(samples)
            end.record()
            torch.cuda.synchronize()
            print(f"{name}: {10 * size / (begin.elapsed_time(end) / 1000):.1f} images a second")


if __name__ == "__main__":
    main()
