"""LD from one pass over the sampler against the authors' two: the same numbers, in how much of the time.

    python benchmarks/one_pass.py
    python benchmarks/one_pass.py --pairs 20

The authors run the sampler once for the mask of the last step and again, with the same seed, to sum ||Delta_t * m|| / mean(m).
One pass keeps every Delta_t and applies the mask at the end. Bounds: 0.52 times the seconds; equal to 1e-5 before storage and to 1e-3
from the folder.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from timing import time_ratio

from afterglow.attention_names import layer_sets
from afterglow.generations import Generations
from afterglow.measures.bright_ending import bright_ending, local_detection
from afterglow.models.denoiser import Denoiser
from afterglow.sampling.loop import Sampler, generate
from afterglow.sampling.recorder import CaptureConfig
from afterglow.testing.tiny_sd import tiny_sd

CAPTIONS = ["a photograph of a red house by the sea"]


def one_pass(model: Denoiser, sampler: Sampler) -> Generations:
    """Ours."""
    return generate(model, CAPTIONS, [0], sampler, CaptureConfig(tokens=False, end_steps=(-1,), end_layers=("down_blocks.0",)))


def ld(generations: Generations) -> torch.Tensor:
    """Of generations, [B]."""
    return local_detection(generations, layer_sets(generations.layers)["be"])


@torch.no_grad()
def two_passes(model: Denoiser, sampler: Sampler) -> torch.Tensor:
    """The authors': the mask of a first run, then the score step by step in a second one, [B]."""
    first = generate(
        model, CAPTIONS, [0], sampler, CaptureConfig(guidance=False, tokens=False, end_steps=(-1,), end_layers=("down_blocks.0",))
    )
    mask = bright_ending(first, layer_sets(first.layers)["be"])
    scheduler = sampler.build(model.scheduler)
    sample = torch.randn(model.latent_shape(), generator=torch.Generator().manual_seed(0))[None]
    condition, empty = model.condition(CAPTIONS), model.condition([""])
    total = torch.zeros(1)
    for timestep in scheduler.timesteps:
        times = timestep.expand(2)
        output = model(torch.cat([sample, sample]), times, type(condition).cat([empty, condition]))
        uncond, cond = output.chunk(2)
        total += ((cond - uncond) * mask[:, None]).flatten(1).norm(dim=1) / mask.flatten(1).mean(1)
        sample = scheduler.step(uncond + sampler.guidance_scale * (cond - uncond), timestep, sample).prev_sample
    return total / len(scheduler.timesteps)


def main() -> None:
    """Print the differences and the ratio of seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10, help="interleaved pairs of timings")
    options = parser.parse_args()
    torch.manual_seed(0)
    model, sampler = tiny_sd(width=32, side=32), Sampler(steps=10, guidance_scale=7.5)
    generations, expected = one_pass(model, sampler), two_passes(model, sampler)
    with tempfile.TemporaryDirectory() as folder:
        generations.save(Path(folder) / "generations")
        stored = ld(Generations.load(Path(folder) / "generations"))
    for name, value in (("before storage", ld(generations)), ("from the folder", stored)):
        apart = abs(value / expected - 1).item()
        print(f"LD {name}: {value.item():.6f}, of two passes {expected.item():.6f}, relative difference {apart:.1e}")
    median, low, high = time_ratio(lambda: ld(one_pass(model, sampler)), lambda: two_passes(model, sampler), pairs=options.pairs)
    print(f"one pass takes {median:.3f}x the seconds of two [{low:.3f}, {high:.3f}] ({options.pairs} pairs)")


if __name__ == "__main__":
    main()
