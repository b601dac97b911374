"""Resuming a training: the newest intact checkpoint, and what must be as it was."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from afterglow.callbacks.checkpoint import step_of
from afterglow.errors import AfterglowError, did_you_mean
from afterglow.models.checkpoint import read_checkpoint

log = logging.getLogger(__name__)

# The sections and options of config.yaml that decide the numbers of a run at each step, but not its length.
COMPARED = ("seed_everything", "model", "data", "optimizer", "mitigations", "ema", "monitor") + tuple(
    f"trainer.{name}"
    for name in ("precision", "accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm", "limit_train_batches")
)
NOT_COMPARED = ("data.num_workers", "data.data_dir", "monitor.early_stop", "monitor.batch_size")  # the images themselves are compared
MAX_VALUE = 40  # characters of a value in a message


@dataclass(frozen=True)
class Resume:
    """A checkpoint to resume from.

    Attributes:
        file: the checkpoint.
        step: its optimizer step.
        world_size: number of processes that trained it; None if unknown.
        stopped: the training had ended early at this step.
    """

    file: Path
    step: int
    world_size: int | None
    stopped: bool

    @classmethod
    def read(cls, file: Path) -> "Resume":
        """Read and verify a checkpoint; raises AfterglowError if it is damaged or not of a training."""
        checkpoint = read_checkpoint(file, mmap=True)
        states = checkpoint.get("callbacks", {})
        if "global_step" not in checkpoint or not isinstance(states, dict):
            raise AfterglowError(f"'{file}' is not a checkpoint of a training.")
        monitor, own = states.get("MemorizationMonitor", {}), states.get("RunCheckpoint", {})
        return cls(file, checkpoint["global_step"], own.get("world_size"), bool(monitor.get("stopped")))

    def describe(self, world_size: int) -> str:
        """Return one line on where the training continues, and on how many processes if their number differs."""
        line = f"Resuming at step {self.step} from '{self.file}'."
        if self.world_size in (None, world_size):
            return line
        return f"{line} It was written by {self.world_size} process(es) and continues on {world_size}: sums are rounded differently."


def find_resume(folder: Path, ckpt_path: str | None, resume: str | None) -> Resume | None:
    """Return the checkpoint to resume from, or None to begin.

    Args:
        folder: run folder.
        ckpt_path: "last", the path of a checkpoint, or None.
        resume: "auto" resumes if the folder holds a run; None.

    Raises:
        AfterglowError: the run exists and is not to be resumed, there is no checkpoint, or all are damaged.
    """
    if resume == "auto" or ckpt_path == "last":
        newest = newest_checkpoint(folder)
        if newest is None and resume is None:
            raise AfterglowError(_nothing_to_resume(folder))
        return newest
    holds_run = (folder / "measurements.parquet").exists() or bool(_checkpoints(folder))
    if ckpt_path is not None:
        file = Path(ckpt_path)
        if holds_run and folder.resolve() not in file.resolve().parents:
            raise AfterglowError(f"'{folder}' already holds a run, and '{file}' is of another one: choose another --name.")
        return Resume.read(file)
    if holds_run:
        raise AfterglowError(f"'{folder}' already holds a run: resume it with --ckpt_path last, or choose another --name.")
    return None


def newest_checkpoint(folder: Path) -> Resume | None:
    """Return the newest intact checkpoint of a run folder; damaged ones are named. None if there is none.

    Raises:
        AfterglowError: all checkpoints are damaged.
    """
    newest: Resume | None = None
    damaged: list[str] = []
    for file in _checkpoints(folder):
        if newest is not None and 0 <= step_of(file) <= newest.step:
            continue
        try:
            found = Resume.read(file)
        except AfterglowError as error:
            damaged.append(str(error))
            continue
        if newest is None or found.step > newest.step:
            newest = found
    if damaged and newest is None:
        raise AfterglowError(f"No checkpoint of '{folder}' is intact. {damaged[0]}")
    if damaged and newest is not None:
        log.warning("%s The newest intact checkpoint is '%s'.", " ".join(damaged), newest.file)
    return newest


def _checkpoints(folder: Path) -> list[Path]:
    """last.ckpt, checkpoints that Lightning wrote in a SLURM job, and the others from the newest to the oldest."""
    files = [*(folder / "checkpoints").glob("*.ckpt"), *folder.glob("hpc_ckpt_*.ckpt")]
    return sorted(files, key=lambda file: (0 if step_of(file) < 0 else 1, -step_of(file), file.name != "last.ckpt", file.name))


def _nothing_to_resume(folder: Path) -> str:
    if folder.is_dir():
        return f"There is no checkpoint in '{folder / 'checkpoints'}': --resume auto begins the run again, from step 0."
    runs = [path.parent.name for path in folder.parent.glob("*/checkpoints")]
    nearest = did_you_mean(folder.name, runs)
    return f"There is no checkpoint in '{folder / 'checkpoints'}'{nearest or ': --resume auto begins a run that does not exist.'}"


def changed_options(written: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """Return one phrase for each option that changes the numbers of a run: its name, new value and old value.

    Args:
        written: config.yaml of the run.
        config: the configuration to resume it with.
    """
    old, new = dict(_flat(written)), dict(_flat(config))
    for values in (old, new):
        if values.get("trainer.precision") in (None, 32, "32"):  # without a launcher
            values["trainer.precision"] = "32-true"
    names = [name for name in dict.fromkeys([*new, *old]) if _decides_numbers(name)]
    return [
        f"{name} is {_short(new.get(name))} and was {_short(old.get(name))}"
        for name in names
        if _plain(new.get(name)) != _plain(old.get(name))
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        dotted = prefix if name == "init_args" else f"{prefix}.{name}".lstrip(".")
        if isinstance(value, Mapping) and value:
            yield from _flat(value, dotted)
        else:
            yield dotted, value


def _decides_numbers(name: str) -> bool:
    compared, excepted = (any(name == part or name.startswith(f"{part}.") for part in parts) for parts in (COMPARED, NOT_COMPARED))
    return compared and not excepted


def _plain(value: Any) -> Any:
    """A value, of which one in a list is the same as itself and an empty mapping the same as none."""
    return value[0] if isinstance(value, list) and len(value) == 1 else (None if value == {} else value)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= MAX_VALUE else f"{text[: MAX_VALUE - 4]} ..."


def refuse_changes(folder: Path, changes: list[str]) -> None:
    """Raise AfterglowError if there are changes of options or of the planted set, the first of which it names."""
    if changes:
        more = f" ({len(changes) - 1} more differ)" if len(changes) > 1 else ""
        raise AfterglowError(
            f"'{folder}' cannot be resumed: {changes[0]}{more}. Restore it, choose another --name, or accept it with --allow_changes true."
        )


def check_weights(file: Path, model: Mapping[str, Tensor]) -> None:
    """Raise AfterglowError if the weights of a checkpoint and of a module differ in their names or shapes."""
    saved = read_checkpoint(file, mmap=True).get("state_dict", {})
    for name in dict.fromkeys([*model, *saved]):
        shapes = [tuple(state[name].shape) if name in state else "missing" for state in (saved, model)]
        if shapes[0] != shapes[1]:
            raise AfterglowError(f"'{file}' is of another model: {name} is {shapes[0]} there and {shapes[1]} in --model.")
