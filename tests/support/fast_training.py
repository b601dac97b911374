"""The words of a `train` command that takes seconds."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
NARROW = ["--model.unet.block_out_channels", "[8,16]"]  # the network of either recipe of OpenMoji in a third of its time
OVERLAYS = ["--config", str(ROOT / "configs/overlays/fast.yaml"), *NARROW]
FAST = ["--config", str(ROOT / "configs/demo.yaml"), *OVERLAYS]
ENDS = ["--monitor.measures", "[memorized]", "--monitor.first_fraction", "1"]  # evaluations of little at the first and the last step
