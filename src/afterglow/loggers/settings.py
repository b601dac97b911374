from collections.abc import Mapping
from typing import Any

FLAT_PATHS = {  # name in the table of runs: path in the configuration
    "dataset": "data.init_args.dataset",
    "n": "data.init_args.set_size",
    "resolution": "data.init_args.resolution",
    "batch_size": "data.init_args.batch_size",
    "copies": "data.init_args.planting.copies",
    "shapes": "data.init_args.planting.shapes",
    "width": "model.init_args.unet.block_out_channels",
    "learning_rate": "optimizer.learning_rate",
    "max_steps": "trainer.max_steps",
    "seed": "seed_everything",
}


def flat_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings by which runs are filtered and grouped, without nesting, from the configuration of a training."""
    flat = {name: _first(_value(config, path)) for name, path in FLAT_PATHS.items()}
    flat["model"] = str(_value(config, "model.class_path") or "").rpartition(".")[2] or None
    names = [str(_value(mitigation, "class_path")).rpartition(".")[2] for mitigation in config.get("mitigations") or ()]
    flat["mitigation"] = "+".join(names) or "none"
    return {name: value for name, value in flat.items() if value is not None}


def _value(config: Any, path: str) -> Any:
    for key in path.split("."):
        config = config.get(key) if isinstance(config, Mapping) else getattr(config, key, None)
    return config


def _first(value: Any) -> Any:
    """A list of one value as this value; other lists as text, by which W&B can group."""
    if not isinstance(value, list | tuple):
        return value
    return value[0] if len(value) == 1 else ", ".join(map(str, value))
