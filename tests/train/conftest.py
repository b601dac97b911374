"""Commands of train/, run in this process, which has the libraries already."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

TRAIN = Path(__file__).parents[2] / "train"


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """command("export.py", *arguments) => its exit code."""

    def run(name: str, *arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        try:
            runpy.run_path(str(TRAIN / name), run_name="__main__")
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return run
