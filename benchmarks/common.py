"""What the benchmarks share: a parser with --pairs, peak memory, and a U-Net of Stable Diffusion's structure."""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch

from afterglow.models import CaptionDDPM
from afterglow.models.sd_shape import sd_shaped


def parser(text: str | None, *, width: int, side: int, steps: int, pairs: int = 10) -> argparse.ArgumentParser:
    """Options of a benchmark that samples; the text is its docstring."""
    found = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--width", type=int, default=width, help="channels of the outer level; Stable Diffusion has 320")
    found.add_argument("--side", type=int, default=side, help="side of the latents; Stable Diffusion at 512 pixels has 64")
    found.add_argument("--steps", type=int, default=steps, help="sampler steps")
    found.add_argument("--pairs", type=int, default=pairs, help="interleaved pairs of timings; 0 = none")
    return found


def network(options: argparse.Namespace) -> CaptionDDPM:
    """Random weights, always the same."""
    torch.manual_seed(0)
    return sd_shaped(options.width, options.side)


def peak_memory(run: Callable[[], object], device: torch.device) -> int:
    """Bytes at the peak of a run: of this process (Linux), or of the GPU's allocator."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return torch.cuda.max_memory_allocated(device)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    run()
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024
