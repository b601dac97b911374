"""Errors that a user can repair: one sentence and an exit code. All other errors keep their traceback."""

import difflib
import importlib
import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType


class AfterglowError(ValueError):
    """A mistake of the user: one sentence that names the culprit. Commands print it and exit with code 2."""

    exit_code = 2


class DivergedError(AfterglowError):
    """A training or a model whose numbers are not finite; exit code 3, since repeating the command does not help."""

    exit_code = 3


class LostProcessError(AfterglowError):
    """Another process of a training has ended; exit code 4, since the same command with --resume auto continues."""

    exit_code = 4


def require(option: str, value: object, valid: bool, expected: str) -> None:
    """Raise AfterglowError unless the value of an option is valid, such as "learning_rate must be a number above 0, not -1."."""
    if not valid:
        raise AfterglowError(f"{option} must be {expected}, not {one_line(str(value), 60)}.")


def require_positive(**options: int) -> None:
    """Raise AfterglowError that names the first option below 1."""
    for option, value in options.items():
        require(option, value, value >= 1, "at least 1")


def require_fraction(**options: float) -> None:
    """Raise AfterglowError that names the first option outside [0, 1]."""
    for option, value in options.items():
        require(option, value, 0 <= value <= 1, "a number from 0 to 1")


def one_line(text: str, length: int = 300) -> str:
    """A text in one line, its middle left out if it is longer than `length` characters."""
    line = " ".join(text.split())
    end = (length - 5) // 3
    return line if len(line) <= length else f"{line[: length - end - 5]} ... {line[-end:]}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ": did you mean NEAREST?" for a misspelled name, or an empty string if no known name is near."""
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.7)
    return f": did you mean {shown(nearest[0])}?" if nearest else ""


def shown(text: object, limit: int = 60) -> str:
    """Return a text from outside for a message: control characters escaped, and shortened in the middle to `limit` characters."""
    line = str(text) if str(text).isprintable() else ascii(str(text))[1:-1]
    return line if len(line) <= limit else f"{line[: limit // 2 - 1]}...{line[2 - limit // 2 :]}"


def import_optional(module: str, extra: str) -> ModuleType:
    """Import a package that serves one optional path.

    Args:
        module: name of the module.
        extra: the extra of this package that installs it.

    Raises:
        AfterglowError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise AfterglowError(
            f"The package {module} is not installed: run `pip install -e '.[{extra}]'` in the clone of Afterglow."
        ) from error


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Print an AfterglowError or an OSError as one line and exit with its code, 2 for an OSError.

    The environment variable AFTERGLOW_TRACEBACK=1 shows the traceback instead.
    """
    try:
        yield
    except Exception as error:
        known = user_error(error)
        if known is None or os.environ.get("AFTERGLOW_TRACEBACK"):
            raise
        raise exit_with(_text(known), getattr(known, "exit_code", 2)) from error


def exit_with(message: str, code: int = 2) -> SystemExit:
    """Print an error as one line of at most 300 characters; the returned exception ends the command with a code."""
    print(one_line(f"error: {message}"), file=sys.stderr)
    return SystemExit(code)


@contextmanager
def reading(file: str | os.PathLike[str], content: str = "a file of this format") -> Iterator[None]:
    """Raise AfterglowError with the name of the file if the block cannot read it; a missing or forbidden file stays an OSError."""
    try:
        yield
    except Exception as error:  # parsers of damaged files raise a dozen kinds of errors
        if isinstance(error, AfterglowError) or (isinstance(error, OSError) and error.filename):
            raise
        reason = one_line(f"{type(error).__name__} {error}".strip(), 80)
        raise AfterglowError(f"'{file}' cannot be read as {content}: it is incomplete or of another kind ({reason}).") from error


def user_error(error: BaseException) -> BaseException | None:
    """Return the AfterglowError among an error and those that it was raised from, the error itself if it is an OSError, or None."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, AfterglowError):  # jsonargparse wraps what constructors raise
        cause = cause.__cause__ or cause.__context__
    return cause or (error if isinstance(error, OSError) else None)


def _text(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.strerror}: {error.filename}"
    return str(error)


def configure_logging() -> None:
    """Show Afterglow's messages and silence those of libraries; call it before the libraries are imported."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("afterglow").setLevel(logging.INFO)
    for name in ("lightning.pytorch", "lightning.fabric", "httpx", "huggingface_hub", "datasets", "transformers", "diffusers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in ("DATASETS", "TRANSFORMERS", "DIFFUSERS"):  # they read these variables when they are imported
        os.environ.setdefault(f"{name}_VERBOSITY", "error")
    for name in ("HF_DATASETS", "HF_HUB"):
        os.environ.setdefault(f"{name}_DISABLE_PROGRESS_BARS", "1")
    for text in (
        ".*does not have many workers.*",
        ".*isinstance.treespec.*",
        ".*`torch.jit.*",
        ".*LeafSpec.*",
        ".*lr_scheduler.step.*",
        ".*args parameter is intended.*",
        ".*all_gather is deprecated.*",
    ):
        warnings.filterwarnings("ignore", text)
