"""The sweeps of configs/sweeps, run by a stand-in for W&B's agent: commands of a grid, as its library writes them, cut to seconds."""

import itertools
from pathlib import Path

import pytest
import yaml
from fast_training import ENDS
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from afterglow.cli import main

ROOT = Path(__file__).parents[1]
SWEEPS = sorted((ROOT / "configs/sweeps").glob("*.yaml"))
FEW = ["--monitor.measures", "[calibrated_l2,memorized]", *ENDS[2:], "--trainer.max_steps", "2", "--data.planting.num_backgrounds", "8"]


def commands(sweep: Path, count: int) -> list[list[str]]:
    """The arguments of train.py in the first runs of a grid, with the overlay for tests before the swept values."""
    about = yaml.safe_load(sweep.read_text())
    names, values = zip(*((name, part["values"]) for name, part in about["parameters"].items()), strict=True)
    found = []
    for chosen in itertools.islice(itertools.product(*values), count):
        expanded = create_sweep_command_args({"args": {name: {"value": value} for name, value in zip(names, chosen, strict=True)}})
        words = create_sweep_command(list(about["command"]))
        assert words[:4] == ["${env}", "accelerate", "launch", "${program}"] and words[-1] == "${args}"
        words = [str(ROOT / word) if word.startswith("configs/") else word for word in words[4:-1]]
        found.append([*words, "--config", str(ROOT / "configs/overlays/fast.yaml"), *FEW, *expanded["args"]])
    return found


def run_sweep(sweep: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Start the first runs of the grid, and the first one again, as the agent does after an interruption; their folders."""
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    runs = commands(sweep, count)
    for number, words in enumerate([*runs, runs[0]]):
        monkeypatch.setenv("WANDB_RUN_ID", f"run{number % count}")
        main(["train", *words])
    folders = sorted(Path("runs").iterdir())
    assert len(folders) == count and all("seed=" in folder.name and (folder / "emergence.json").is_file() for folder in folders)
    return folders


def test_sweep_names_a_run_after_its_values_and_resumes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (folder,) = run_sweep(ROOT / "configs/sweeps/copies.yaml", 1, monkeypatch)
    assert folder.name == "paired_arms-arm=0-copies=25-seed=0"


@pytest.mark.faults
@pytest.mark.parametrize("sweep", SWEEPS, ids=lambda path: path.stem)
def test_sweep_is_compared_by_one_command(sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folders = run_sweep(sweep, 4, monkeypatch)
    main(["compare", *map(str, folders)])
    assert "The runs differ in" in Path("comparison.html").read_text()
