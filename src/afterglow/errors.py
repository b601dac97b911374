"""Bad input ends with one sentence and exit code 2; anything else keeps its traceback."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

import datasets
import transformers
from jsonargparse import ArgumentError


class AfterglowError(ValueError):
    """A mistake of the user: one sentence that names the culprit. Commands print it and exit with code 2."""


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Turn a ValueError that our own code raised, a refused argument, and what the operating system refuses into a sentence.

    AFTERGLOW_TRACEBACK=1 shows the whole traceback.
    """
    try:
        yield
    except (ValueError, OSError, ArgumentError) as error:
        ours = _ours(error)
        if os.environ.get("AFTERGLOW_TRACEBACK") or not (ours or isinstance(error, OSError | ArgumentError)):
            raise
        print(f"error: {_text(ours or error)}", file=sys.stderr)
        raise SystemExit(2) from error


def _ours(error: BaseException | None) -> BaseException | None:
    """The error that our own code raised, of this one and those it was raised from (jsonargparse wraps what constructors raise)."""
    while error is not None and not (isinstance(error, ValueError) and _is_ours(error.__traceback__)):
        error = error.__cause__ or error.__context__
    return error


def _is_ours(trace: TracebackType | None) -> bool:
    """Whether the innermost frame, where the error was raised, lies in this package."""
    name = ""
    while trace is not None:
        name = trace.tb_frame.f_globals.get("__name__", "")
        trace = trace.tb_next
    return name.split(".")[0] == __package__


def _text(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.strerror}: {error.filename}"
    return " ".join(str(error).split())


def configure_logging() -> None:
    """Silence what libraries say to nobody: a training's screen is its bar, its warnings and its result."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("afterglow").setLevel(logging.INFO)
    for name in ("lightning.pytorch", "lightning.fabric", "httpx", "huggingface_hub", "datasets", "transformers", "diffusers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    for text in (
        ".*does not have many workers.*",
        ".*isinstance.treespec.*",
        ".*`torch.jit.*",
        ".*LeafSpec.*",
        ".*lr_scheduler.step.*",
        ".*args parameter is intended.*",
    ):
        warnings.filterwarnings("ignore", text)
