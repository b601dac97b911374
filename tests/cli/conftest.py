"""Commands run in this process, which has imported the libraries already."""

from collections.abc import Callable
from pathlib import Path

import pytest
from fast_training import FAST

from afterglow.cli import main


def run_command(*words: object) -> int:
    """The exit code of `afterglow WORDS`."""
    try:
        main([str(word) for word in words])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture
def command() -> Callable[..., int]:
    """command("export", *arguments) => the exit code of `afterglow export ...`; what it prints is for capsys."""
    return run_command


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/x, a run of the fast overlay, and generations/, what `collect` recorded of it."""
    folder = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run_command("train", *FAST, "--name", "x") == 0
        sampling = ("--controls", 2, "--num-images", 2, "--num-inference-steps", 2, "--curvature-vectors", 1)
        assert run_command("collect", "--model", "runs/x", "--run", "runs/x", *sampling, "--out", "generations") == 0
        assert run_command("measure", "generations", "--out", "measures.parquet") == 0
    return folder


@pytest.fixture
def inside(bench: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The bench folder, as the working directory."""
    monkeypatch.chdir(bench)
    return bench


@pytest.fixture
def printed(command, capsys):
    """printed(*words, code=0) => what a command prints, which must end with this exit code."""

    def run(*words, code=0):
        capsys.readouterr()
        ended = command(*words)
        captured = capsys.readouterr()
        assert ended == code, captured.err
        return captured.out + captured.err

    return run
