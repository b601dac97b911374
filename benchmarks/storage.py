"""What generations takes on disk and in memory at Stable Diffusion's shapes, measured on a few generations and extrapolated.

    python benchmarks/storage.py
    python benchmarks/storage.py --parts 12 --prompts 500 --images 4

Bounds: 5 MB an image on disk, memory flat while collecting, `measure` under 4 GiB.
"""

import argparse
import resource
import tempfile
from pathlib import Path

import torch

from afterglow.generations import Generations
from afterglow.measures.tables import write_measurements

LAYERS = [
    *(f"down_blocks.{level}.attentions.{place}.transformer_blocks.0.attn2" for level in range(3) for place in range(2)),
    "mid_block.attentions.0.transformer_blocks.0.attn2",
    *(f"up_blocks.{level}.attentions.{place}.transformer_blocks.0.attn2" for level in range(1, 4) for place in range(3)),
]


def generations(count: int, seed: int) -> Generations:
    """What the default capture leaves of `count` generations: 50 steps, 4x64x64 latents, 512 pixels, 16 layers, 77 tokens."""
    generator = torch.Generator().manual_seed(seed)
    authors = [layer for layer in LAYERS if layer.startswith("down_blocks.0")]
    return Generations(
        images=torch.randint(256, (count, 3, 512, 512), generator=generator, dtype=torch.uint8),
        caption=("a caption of usual length, more or less",) * count,
        kind=("global",) * count,
        shape=("whole",) * count,
        plant_id=torch.full((count,), seed),
        seed=torch.arange(count),
        timesteps=torch.arange(50).flip(0),
        prompt_length=torch.full((count,), 9),
        guidance=torch.randn(50, count, 4, 64, 64, generator=generator).half(),
        guidance_rms=torch.rand(50, count, generator=generator),
        token_attention=torch.rand(50, count, len(LAYERS), 77, generator=generator).half(),
        end_attention={(step, layer): torch.rand(count, 4096, 3, generator=generator).half() for step in (0, 49) for layer in authors},
        provenance={"layers": LAYERS},
    )


def peak() -> float:
    """Largest resident memory of this process so far, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Write parts, measure them, print megabytes and memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=int, default=8, help="parts that are really written")
    parser.add_argument("--prompts", type=int, default=500, help="to extrapolate to")
    parser.add_argument("--images", type=int, default=4, help="generations of a prompt")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder, peaks = Path(place) / "collection", []
        for number in range(options.parts):
            generations(options.images, number).save(folder / f"part={number:05d}")
            peaks.append(peak())
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / (options.parts * options.images) / 1e6
        total = size * options.prompts * options.images / 1000
        print(f"{size:.2f} MB an image on disk; {options.prompts} prompts x {options.images} images: {total:.1f} GB")
        print(f"peak memory after 1 part {peaks[0]:.2f} GiB, after {options.parts} parts {peaks[-1]:.2f} GiB")
        write_measurements([folder], Path(place) / "measures.parquet")
        print(f"peak memory after measuring all of them {peak():.2f} GiB")


if __name__ == "__main__":
    main()
