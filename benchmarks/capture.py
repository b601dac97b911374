"""What looking inside costs: sampling with capture against sampling alone, on a U-Net with Stable Diffusion's block structure.

    python benchmarks/capture.py                                                   small, with seconds
    python benchmarks/capture.py --width 320 --side 64 --steps 1 --pairs 0         Stable Diffusion's true size
    python benchmarks/capture.py --width 320 --side 64 --steps 50 --images 16 --device cuda --halves

What is captured is captured at every step. FLOPs are counted by torch, peak memory is the process's or the GPU's; seconds stand
beside them. Bounds: end tokens of the BE layers 1.02 times the FLOPs and 1.01 times the memory, token attention of all layers 1.05
times the FLOPs.
"""

import argparse

import torch
from timing import peak_memory, time_ratio
from torch.utils.flop_counter import FlopCounterMode

from afterglow.sampling.loop import Sampler, generate
from afterglow.sampling.recorder import CaptureConfig
from afterglow.testing.tiny_sd import tiny_sd


def captures(steps: int) -> dict[str, CaptureConfig]:
    """By what they keep, at every step."""
    every = tuple(range(steps))
    return {
        "end tokens of the BE layers": CaptureConfig(guidance=False, tokens=False, end_steps=every, end_layers=("down_blocks.0",)),
        "token attention of all layers": CaptureConfig(guidance=False, tokens=True, end_steps=()),
        "everything: Delta, token attention, end tokens of all layers": CaptureConfig(end_steps=every),
    }


def main() -> None:
    """Print FLOPs, memory and seconds of each kind of capture, as ratios to no capture."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--width", type=int, default=64, help="channels of the outer level; Stable Diffusion has 320")
    arguments.add_argument("--side", type=int, default=32, help="side of the latents; Stable Diffusion at 512 pixels has 64")
    arguments.add_argument("--steps", type=int, default=3, help="sampler steps")
    arguments.add_argument("--pairs", type=int, default=10, help="interleaved pairs of timings; 0 = none")
    arguments.add_argument("--images", type=int, default=1, help="generations at a time")
    arguments.add_argument("--device", default="cpu", help="cpu or cuda")
    arguments.add_argument("--halves", action="store_true", help="weights in fp16")
    options = arguments.parse_args()
    device = torch.device(options.device)
    torch.manual_seed(0)
    model = tiny_sd(options.width, options.side).to(device, torch.float16 if options.halves else torch.float32)
    sampler = Sampler(steps=options.steps, guidance_scale=7.5)

    def sample(capture: CaptureConfig) -> None:
        generate(model, ["a photograph"] * options.images, list(range(options.images)), sampler, capture)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def flops(capture: CaptureConfig) -> int:
        with FlopCounterMode(display=False) as counter:
            sample(capture)
        return counter.get_total_flops()

    nothing = CaptureConfig(guidance=False, tokens=False, end_steps=())
    sample(nothing)  # memory is taken and kernels are chosen at the first run
    plain, memory = flops(nothing), peak_memory(lambda: sample(nothing), device)
    what = f"{options.images} images, {options.steps} steps, side {options.side}, width {options.width}, {model.dtype}"
    print(f"{what}: {plain / 1e9:.1f} GFLOP and {memory / 2**30:.2f} GiB without capture")
    for name, capture in captures(options.steps).items():
        more = peak_memory(lambda capture=capture: sample(capture), device)
        print(f"{name}: {flops(capture) / plain:.4f}x the FLOPs, {more / memory:.4f}x the memory")
        if options.pairs:
            median, low, high = time_ratio(lambda capture=capture: sample(capture), lambda: sample(nothing), pairs=options.pairs)
            print(f"    {median:.3f}x the seconds [{low:.3f}, {high:.3f}] ({options.pairs} pairs)")
    if device.type == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        sample(nothing)
        end.record()
        torch.cuda.synchronize(device)
        print(f"{options.images / (begin.elapsed_time(end) / 1000):.2f} images a second without capture")


if __name__ == "__main__":
    main()
