"""The early state of a run's network, with which the last probe compares it (early_difference)."""

import copy
import os
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save

FILE = Path("checkpoints") / "early.safetensors"


def save_early_snapshot(model: Any, folder: Path) -> None:
    """Write the network's weights to the run folder, where a resumed run finds them too."""
    file = folder / FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f"{file.name}.unfinished")
    unfinished.write_bytes(save({name: value.detach().cpu().contiguous() for name, value in model.unet.state_dict().items()}))
    os.replace(unfinished, file)


def load_early_snapshot(model: Any, folder: Path) -> Any:
    """The model around the network that was kept; ValueError where none was."""
    file = folder / FILE
    if not file.is_file():
        raise ValueError(f"early_difference needs the early network of this run, and there is no '{file}'.")
    unet = copy.deepcopy(model.unet)
    unet.load_state_dict(load_file(file))
    return model.with_network(unet)
