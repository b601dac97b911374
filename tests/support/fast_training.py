"""The words of a `train` command that takes seconds."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
NARROW = ["--model.unet.block_out_channels", "[8,16]"]  # the network of either recipe of OpenMoji in a third of its time
OVERLAYS = ["--config", str(ROOT / "configs/overlays/fast.yaml"), *NARROW]
FAST = ["--config", str(ROOT / "configs/demo.yaml"), *OVERLAYS]
ENDS = ["--monitor.measures", "[memorized]", "--monitor.first_fraction", "1"]  # evaluations of little at the first and the last step
TRANSFORMER = [
    *("--config", str(ROOT / "configs/openmoji_dit.yaml"), "--config", str(ROOT / "configs/overlays/fast.yaml")),
    *("--model.unet.num_layers", "2", "--model.unet.attention_head_dim", "8", "--model.unet.cross_attention_dim", "32"),
]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}


def launcher(*flags: str) -> list[str]:
    """The words that start train.py with accelerate."""
    program = str(Path(sys.executable).parent / "accelerate")
    return [program, "launch", "--mixed_precision", "no", "--num_machines", "1", "--dynamo_backend", "no", *flags, str(ROOT / "train.py")]


def accelerate(folder: Path, *flags: str, args: list[str]) -> subprocess.CompletedProcess:
    """Run train.py with accelerate in a folder to its end."""
    return subprocess.run([*launcher(*flags), *args], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=280)
