"""What mitigations at inference cost: sampling with each against sampling without, on a U-Net with Stable Diffusion's block structure.

    python benchmarks/mitigations.py
    python benchmarks/mitigations.py --mitigations stp memattn --width 320 --side 64 --steps 4 --pairs 0
    python benchmarks/mitigations.py --device cuda --steps 50 --images 8

Each at its default strength. FLOPs are the network's, gradients included, by torch's counter; calls are its evaluations of one image;
seconds are medians over interleaved pairs. Bound: a mitigation without gradients costs at most 1.03 times the FLOPs of plain sampling at
equal calls.
"""

import argparse
from functools import partial

import torch
from timing import time_ratio

from afterglow.analysis.thresholds import Thresholds
from afterglow.mitigations.cost import CostTracker, flops_per_image
from afterglow.mitigations.registry import find_mitigations
from afterglow.reports.tables import text_table
from afterglow.sampling.loop import Sampler, generate
from afterglow.sampling.recorder import CaptureConfig
from afterglow.sampling.setup import Mitigation
from afterglow.testing.tiny_sd import tiny_sd

NO_PLANTS = CaptureConfig(guidance=False, tokens=False, end_steps=())


def main() -> None:
    """Print FLOPs, calls and seconds with each mitigation, as ratios to none."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--mitigations", nargs="+", default=["*"], metavar="NAME", help="names, with wildcards")
    arguments.add_argument("--width", type=int, default=32, help="channels of the outer level; Stable Diffusion has 320")
    arguments.add_argument("--side", type=int, default=16, help="side of the latents; Stable Diffusion at 512 pixels has 64")
    arguments.add_argument("--steps", type=int, default=6, help="sampler steps")
    arguments.add_argument("--pairs", type=int, default=10, help="interleaved pairs of timings; 0 = none")
    arguments.add_argument("--images", type=int, default=2, help="generations at a time")
    arguments.add_argument("--device", default="cpu", help="cpu or cuda")
    options = arguments.parse_args()
    torch.manual_seed(0)
    model = tiny_sd(options.width, options.side).to(torch.device(options.device))
    sampler = Sampler(steps=options.steps, guidance_scale=7.5, options={"timestep_spacing": "trailing"})
    captions, seeds = ["a photograph"] * options.images, list(range(options.images))
    thresholds = Thresholds((0.0,) * options.steps, 0.0, 0.0, "so low that every mitigation does all that it can")
    setup = sampler.setup(model, captions, seeds)
    plain = flops_per_image(model, setup)

    def sample(mitigation: Mitigation | None) -> None:
        generate(model, captions, seeds, sampler, NO_PLANTS, mitigation=mitigation)
        if options.device == "cuda":
            torch.cuda.synchronize()

    rows = []
    for entry in find_mitigations(options.mitigations):
        mitigation = entry(entry.default, thresholds)
        counted = generate(model, captions, seeds, sampler, NO_PLANTS, mitigation=CostTracker(mitigation))
        calls = float(counted.extras["cost.evaluations"][0]) / (2 * options.steps)
        flops = flops_per_image(model, setup, mitigation) / plain
        found = time_ratio(partial(sample, mitigation), partial(sample, None), pairs=options.pairs) if options.pairs else None
        seconds = "-" if found is None else "{:.2f}x [{:.2f}, {:.2f}]".format(*found)
        rows.append([entry.name, f"{calls:.2f}x", f"{flops:.3f}x", "-" if entry.gradients else f"{flops / calls:.4f}x", seconds])
    print(f"{options.steps} steps, {options.images} images, {plain / 1e9:.2f} GFLOP an image without a mitigation")
    print(text_table(["mitigation", "calls", "FLOPs", "FLOPs at equal calls", "seconds"], rows))


if __name__ == "__main__":
    main()
