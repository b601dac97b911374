"""Options of a training beyond their types, and the run folder that they name."""

import inspect
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from jsonargparse import Namespace

from afterglow import distributed
from afterglow.errors import AfterglowError, require, require_positive

RUNS = Path("runs")
FIXED = ("default_root_dir", "barebones", "overfit_batches", "fast_dev_run", "enable_checkpointing", "limit_train_batches", "min_steps")


def check_options(config: Any) -> None:
    """Raise AfterglowError for values that Lightning would ignore, or refuse only during the training."""
    for section in ("trainer", "optimizer", "ema", "monitor", "checkpoint", "wandb"):
        require(section, config[section], isinstance(config[section], Namespace), "a mapping of options")
    planting = config.data.init_args.get("planting", True)  # jsonargparse takes null for a mapping
    require("data.planting", planting, planting is not None, "a mapping of options")
    seed, trainer = config.seed_everything, config.trainer
    require("seed_everything", seed, type(seed) is int and 0 <= seed < 2**32, "an integer from 0 to 4294967295")
    if (trainer.max_steps or 0) < 1 or trainer.max_epochs not in (-1, None):
        raise AfterglowError("The length of a training is given in optimizer steps: set trainer.max_steps, not trainer.max_epochs.")
    if trainer.logger not in (None, True):
        raise AfterglowError("trainer.logger cannot be changed: Afterglow logs to W&B, which WANDB_MODE=disabled turns off.")
    defaults = inspect.signature(L.Trainer).parameters
    for name in FIXED:
        if trainer[name] != defaults[name].default:
            raise AfterglowError(f"trainer.{name} cannot be changed: a run has its folder runs/NAME, checkpoints and the whole set.")
    require_positive(**{"trainer.accumulate_grad_batches": trainer.accumulate_grad_batches or 0})
    require("trainer.log_every_n_steps", trainer.log_every_n_steps, (trainer.log_every_n_steps or 0) >= 0, "at least 0")
    precisions = tuple(distributed.PRECISION.values())
    known = trainer.precision in (None, 32, "32", *precisions)
    require("trainer.precision", trainer.precision, known, f"one of {', '.join(precisions)}")
    clip = trainer.gradient_clip_val
    require("trainer.gradient_clip_val", clip, clip is None or 0 <= clip < math.inf, "a finite number from 0")


def run_folder(name: str) -> Path:
    """Return runs/NAME.

    Raises:
        AfterglowError: the name would leave the folder, or is no name of a folder.
    """
    plain = name.isprintable() and name.strip() == name and not {"/", "\\"} & set(name) and name not in (".", "..")
    require("name", f"'{name}'", plain and 0 < len(name) <= 100, "the name of a folder in runs/, of 1 to 100 characters without slashes")
    return RUNS / name


def default_name(config: Any, arguments: Sequence[str] = ()) -> str:
    """The file name of the recipe; in a sweep of W&B with the values of this run, so that the same values resume the same folder.

    Args:
        config: the parsed options.
        arguments: of the command line; those of a sweep are written --OPTION=VALUE.
    """
    stem = Path(str(config.config[0])).stem if config.config else "demo"
    if not os.environ.get("WANDB_SWEEP_ID"):
        return stem
    pairs = sorted(argument.removeprefix("--").split("=", 1) for argument in arguments if re.match(r"--[\w.]+=", argument))
    shown = [
        option.rpartition(".")[2].replace("seed_everything", "seed") + "=" + re.sub(r"[^\w.,+-]", "", value) for option, value in pairs
    ]
    return "-".join([stem, *(shown or [os.environ.get("WANDB_RUN_ID", "")])])[:100]


def create_run_dir(folder: Path) -> None:
    """Make the run folder.

    Raises:
        AfterglowError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise AfterglowError(f"The run folder '{folder}' cannot be written: {error.strerror}.") from error
