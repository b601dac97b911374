"""Checkpoint files: written whole or not at all, and verified when they are read."""

import zipfile
from pathlib import Path
from typing import Any

import torch

from afterglow.cache import atomic_path
from afterglow.errors import AfterglowError


def write_checkpoint(checkpoint: dict[str, Any], file: Path) -> None:
    """Write a checkpoint as `torch.save` does, to a temporary file; the file takes its name when it is on the disk.

    Raises:
        OSError: the disk is full or fails; it names `file`, which stays as it was.
    """
    with atomic_path(file) as path, path.open("wb") as stream:
        try:
            torch.save(checkpoint, stream)
        except RuntimeError as error:  # torch hides the reason
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise


def read_checkpoint(file: Path, *, mmap: bool = False) -> dict[str, Any]:
    """Read a checkpoint to the CPU.

    Args:
        file: a file of `torch.save`, whose checksums (CRC-32 of each tensor and of the rest) are verified.
        mmap: leave the tensors on the disk until they are used.

    Returns:
        The checkpoint.

    Raises:
        AfterglowError: there is no such file, it is damaged, or it holds more than tensors and plain values.
    """
    if not file.is_file():
        raise AfterglowError(f"There is no checkpoint '{file}'.")
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
        checkpoint = None if damaged else torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # zipfile and the unpickler raise a dozen kinds of errors
        raise AfterglowError(f"'{file}' is not a readable checkpoint, or holds more than tensors and plain values.") from error
    if damaged:
        raise AfterglowError(f"'{file}' is damaged: the checksum of {Path(damaged).name} is wrong.")
    if not isinstance(checkpoint, dict):
        raise AfterglowError(f"'{file}' is not a checkpoint of a training.")
    return checkpoint
