"""`import afterglow` and the help of commands are cheap; the public names and their example work."""

import doctest
import subprocess
import sys
from pathlib import Path

import pytest

import afterglow
from afterglow.cli import COMMANDS, main

HEAVY = {"torch", "numpy", "pandas", "datasets", "transformers", "diffusers", "lightning", "wandb", "matplotlib", "sklearn", "jsonargparse"}
LISTED = "import sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"

TRY = """from afterglow.cli import main
def attempt(words):
    try:
        main(words)
    except SystemExit:
        pass
"""


def imported(code: str) -> set[str]:
    """Top-level modules that a new process has imported after some code."""
    done = subprocess.run([sys.executable, "-c", f"{code}\n{LISTED}"], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_importing_the_package_imports_no_heavy_library():
    assert not imported("import afterglow") & HEAVY


def test_help_of_every_command_but_train_imports_no_heavy_library():
    names = [name for name in COMMANDS if name != "train"]
    code = f"{TRY}\nattempt(['--help'])\nfor name in {names}: attempt([name, '--help'])"
    assert not imported(code) & HEAVY


def test_analysis_commands_and_modules_import_no_trainer_and_no_tracker(tmp_path):
    modules = "afterglow.models.io, afterglow.models.text_ddpm, afterglow.sampling.loop, afterglow.mitigations.registry"
    commands = [["measure", "none"], ["detect", "none.parquet"], ["localize", "none"], ["collect", "--model", "none", "--out", "x"]]
    code = f"{TRY}\nimport {modules}\nfor words in {commands}: attempt(words)"
    assert not imported(code) & {"lightning", "wandb", "torchmetrics"}


def test_an_unknown_command_is_answered_with_the_nearest(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["localise"])
    assert stop.value.code == 2 and "did you mean localize?" in capsys.readouterr().err


def test_python_m_afterglow_is_the_command():
    done = subprocess.run([sys.executable, "-m", "afterglow", "--help"], capture_output=True, text=True, check=True)
    assert all(name in done.stdout for name in COMMANDS)


def test_public_names_exist_and_unknown_ones_do_not():
    for name in afterglow.__all__:
        assert getattr(afterglow, name) is not None and name in dir(afterglow)
    with pytest.raises(AttributeError, match="evaluat1"):
        afterglow.evaluat1  # noqa: B018


def test_the_example_of_the_package_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(afterglow, optionflags=doctest.ELLIPSIS).attempted >= 3
    assert doctest.testmod(afterglow, optionflags=doctest.ELLIPSIS).failed == 0


def test_scripts_run_the_commands():
    root = Path(__file__).parents[1]
    names = {file.stem.replace("_", "-"): file for folder in ("train", "analysis") for file in (root / folder).glob("*.py")}
    for name, file in names.items():
        if name != "findings":
            assert f'main(["{name}", *sys.argv[1:]])' in file.read_text(), file
