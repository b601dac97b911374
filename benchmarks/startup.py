"""CPU seconds of the commands' startup, beside those of the libraries that they cannot do without.

    python benchmarks/startup.py
    python benchmarks/startup.py --pairs 3 --commands measure detect

Help of every command but train: bound 1.5 times `import numpy`. Help of train: bound 1.2 times `import lightning.pytorch.cli, diffusers`.
`measure` and `detect` on a small folder, to the first line that they print and until they end: bound 1.5 times
`import torch, pandas, datasets`. CPU seconds are user + system of the process; pairs are interleaved.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from afterglow.cli import COMMANDS

NUMPY, LIGHTNING, PANDAS = "import numpy", "import lightning.pytorch.cli, diffusers", "import torch, pandas, datasets"
SAVE_GENERATIONS = """
from pathlib import Path
import torch
from afterglow.generations import Generations
images = torch.randint(256, (8, 3, 8, 8), dtype=torch.uint8)
kinds = ("local", "phantom", "control", "global") * 2
Generations(
    images=images, references=images.flip(0), caption=tuple("abcdefgh"), kind=kinds, shape=("whole",) * 8,
    seed=torch.zeros(8, dtype=torch.long),
    plant_id=torch.arange(8), timesteps=torch.arange(2), prompt_length=torch.full((8,), 3), guidance=torch.randn(2, 8, 3, 8, 8).half(),
    guidance_rms=torch.ones(2, 8),
).save(Path("generations/part=00000"))
"""


def cpu_seconds(words: list[str], folder: str, *, first_line: bool = False) -> float:
    """User and system seconds of a process until it ends, or until it prints its first line."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    if first_line:
        process.stdout.readline()
        process.kill()
    process.communicate()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measured(name: str, words: list[str], code: str, bound: float, num_pairs: int, folder: str, *, first_line: bool = False) -> bool:
    """Print one line; whether the bound holds."""
    from timing import median_interval

    python = [sys.executable, "-c", code]
    pairs = [(cpu_seconds(words, folder, first_line=first_line), cpu_seconds(python, folder)) for _ in range(num_pairs)]
    ratio, low, high = median_interval([ours / theirs for ours, theirs in pairs])
    seconds = sorted(ours for ours, _ in pairs)[num_pairs // 2]
    verdict = "within" if ratio <= bound else "OVER"
    print(f"{name:32} {seconds:7.3f} s, {ratio:5.2f} [{low:.2f}, {high:.2f}] times `{code}`, {verdict} {bound}", flush=True)
    return ratio <= bound


def main() -> None:
    """Measure the commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10, help="interleaved pairs of a command and its reference (default: 10)")
    parser.add_argument("--commands", nargs="+", default=["", *COMMANDS], help="commands whose help is measured (default: all)")
    args = parser.parse_args()
    afterglow = [sys.executable, "-m", "afterglow"]
    with tempfile.TemporaryDirectory() as folder:
        good = []
        for name in args.commands:
            reference, bound = (LIGHTNING, 1.2) if name == "train" else (NUMPY, 1.5)
            words = [*afterglow, *([name] if name else []), "--help"]
            good.append(measured(f"afterglow {name} --help".replace("  ", " "), words, reference, bound, args.pairs, folder))
        if {"measure", "detect"} & set(args.commands):
            (Path(folder) / "generations").mkdir()
            subprocess.run([sys.executable, "-c", SAVE_GENERATIONS], cwd=folder, check=True)
            measure = [*afterglow, "measure", "generations", "--out", "m.parquet"]
            subprocess.run(measure, cwd=folder, check=True, capture_output=True)
            for name, words in (("measure", measure), ("detect", [*afterglow, "detect", "m.parquet"])):
                for first_line in (True, False):
                    title = f"afterglow {name}, {'first line' if first_line else 'whole'}"
                    good.append(measured(title, words, PANDAS, 1.5, args.pairs, folder, first_line=first_line))
    raise SystemExit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
