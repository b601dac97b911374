"""What looking inside costs: sampling with everything captured against sampling alone, on a U-Net with Stable Diffusion's block structure.

    python benchmarks/capture.py
    python benchmarks/capture.py --pairs 20 --width 64

FLOPs are counted by torch (bound: 1.05), seconds stand beside them.
"""

import argparse

import torch
from torch.utils.flop_counter import FlopCounterMode

from afterglow.collect import Capture, Sampler, generate
from afterglow.measures.timing import time_ratio
from afterglow.models.sd_shape import sd_shaped

NOTHING = Capture(guidance=False, tokens=False, end_steps=())
CAPTURES = {
    "end tokens of the BE layers, first and last step": Capture(guidance=True, tokens=False, end_layers=("down_blocks.0",)),
    "everything: Delta and token attention at every step, end tokens of all layers": Capture(),
}


def main() -> None:
    """Print FLOPs and seconds of each kind of capture, as ratios to no capture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=64, help="channels of the outer level; Stable Diffusion has 320")
    parser.add_argument("--side", type=int, default=32, help="side of the latents; Stable Diffusion at 512 pixels has 64")
    parser.add_argument("--steps", type=int, default=3, help="sampler steps")
    parser.add_argument("--pairs", type=int, default=10, help="interleaved pairs of timings")
    options = parser.parse_args()
    torch.manual_seed(0)
    model = sd_shaped(options.width, options.side)
    sampler = Sampler(steps=options.steps, guidance_scale=7.5)

    def sample(capture: Capture) -> None:
        generate(model, ["a photograph"], [0], sampler, capture)

    def flops(capture: Capture) -> int:
        with FlopCounterMode(display=False) as counter:
            sample(capture)
        return counter.get_total_flops()

    plain = flops(NOTHING)
    print(f"{options.steps} steps, side {options.side}, width {options.width}: {plain / 1e9:.1f} GFLOP without capture")
    for name, capture in CAPTURES.items():
        median, low, high = time_ratio(lambda capture=capture: sample(capture), lambda: sample(NOTHING), pairs=options.pairs)
        print(f"{name}: {flops(capture) / plain:.4f}x the FLOPs, {median:.3f}x the seconds [{low:.3f}, {high:.3f}]")


if __name__ == "__main__":
    main()
