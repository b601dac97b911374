"""SIGTERM, SIGUSR1 and Ctrl-C in every phase of a training: what is saved, the exit code, the message, and the resumed run.

`make faults` prints the whole table.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from afterglow.callbacks import training_evaluation
from afterglow.cli import main
from afterglow.loggers.run_logger import RunLogger
from afterglow.models.lightning_module import DenoiserModule
from afterglow.planting.datamodule import PlantedDataModule

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = ["--model.unet.block_out_channels", "[8,16]", "--model.unet.norm_num_groups", "4", "--model.unet.attention_head_dim", "8"]
FEW = ["--monitor.measures", "[calibrated_l2,memorized]", "--monitor.num_unprompted", "4", "--monitor.batch_size", "8"]
STEPS = ["--trainer.max_steps", "4", "--checkpoint.every_n_train_steps", "2", "--monitor.first_fraction", "1"]
TRAIN = ["train", "--config", str(CONFIGS / "openmoji_ddpm.yaml"), "--config", str(CONFIGS / "overlays/fast.yaml"), *SMALL, *FEW, *STEPS]

# phase => (object, name of a method in which the signal arrives, the number of the call, step of last.ckpt afterwards)
PHASES: dict[str, tuple[object, str, int, int | None]] = {
    "preparation": (PlantedDataModule, "setup", 1, None),
    "training": (DenoiserModule, "training_step", 3, 3),
    "first evaluation": (training_evaluation, "denoising_loss_rows", 1, 0),
    "last evaluation": (training_evaluation, "denoising_loss_rows", 2, 4),
    "checkpoint write": (DenoiserModule, "on_save_checkpoint", 1, 3),
    "W&B finish": (RunLogger, "finish", 1, 4),
}
CODES = {signal.SIGTERM: 143, signal.SIGUSR1: 138, signal.SIGINT: 130}
QUICK = [
    ("preparation", signal.SIGTERM),
    ("training", signal.SIGUSR1),
    ("first evaluation", signal.SIGTERM),
    ("last evaluation", signal.SIGINT),
    ("checkpoint write", signal.SIGTERM),
    ("W&B finish", signal.SIGINT),
]


def send_during(patch: pytest.MonkeyPatch, phase: str, signum: signal.Signals) -> None:
    """Send the signal to this process when the phase calls its method."""
    owner, name, call, _ = PHASES[phase]
    original: Callable = getattr(owner, name)
    calls = []

    def method(*args, **options):
        calls.append(name)
        if len(calls) == call:
            signal.raise_signal(signum)
        return original(*args, **options)

    patch.setattr(owner, name, method)


def results(folder: Path) -> tuple[pd.DataFrame, dict, str]:
    """What must not depend on an interruption: the measurements, the checkpoint and the times of emergence."""
    table = pd.read_parquet(folder / "measurements.parquet").drop(columns="seconds")
    checkpoint = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    return table, checkpoint, (folder / "emergence.json").read_text()


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("signals"))
        main([*TRAIN, "--name", "whole"])
        return results(Path("runs/whole").resolve())


def interrupt(phase: str, signum: signal.Signals, capsys) -> str:
    """Train with a signal in a phase, and return a row of the table."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stop:
        send_during(patch, phase, signum)
        main([*TRAIN, "--name", "x"])
    printed = capsys.readouterr()
    message = printed.err.strip().splitlines()[-1]
    assert ("Report: runs/x/report.html" in printed.out) == (phase == "W&B finish")  # the result is printed before W&B is waited for
    last = Path("runs/x/checkpoints/last.ckpt")
    step = torch.load(last, weights_only=True)["global_step"] if last.exists() else None
    assert stop.value.code == CODES[signum] and step == PHASES[phase][3]
    assert message.startswith(f"Stopped by {signum.name} ") and len(message) <= 300
    assert not list(Path("runs").glob("**/hpc_ckpt*")) and not list(Path("runs").glob("**/*.tmp*"))
    saved = "none" if step is None else f"step {step}"
    return f"| {signum.name} | {phase} | {saved} | {stop.value.code} | {message} |"


def assert_same(found: tuple, expected: tuple) -> None:
    pd.testing.assert_frame_equal(found[0], expected[0])
    for name in ("state_dict", "current_model_state"):
        assert all(torch.equal(value, expected[1][name][key]) for key, value in found[1][name].items())
    assert found[1]["global_step"] == expected[1]["global_step"] and found[2] == expected[2]


@pytest.mark.parametrize("phase, signum", QUICK)
def test_signal_saves_the_step_and_the_resumed_run_is_equal(phase, signum, tmp_path, monkeypatch, capsys, expected):
    monkeypatch.chdir(tmp_path)
    if phase == "training":  # Lightning's own handlers of a SLURM job save a checkpoint that nothing reads
        for name, value in {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "0"}.items():
            monkeypatch.setenv(name, value)
    interrupt(phase, signum, capsys)
    main([*TRAIN, "--name", "x", "--resume", "auto"])
    assert_same(results(Path("runs/x")), expected)


@pytest.fixture
def late_third_step(monkeypatch):
    """A clock that jumps by eleven days in the third step."""
    original, calls = DenoiserModule.training_step, []

    def training_step(self, batch, batch_idx):
        calls.append(batch_idx)
        if len(calls) == 3:
            monkeypatch.setattr(time, "monotonic", lambda now=time.monotonic: now() + 1e6)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(DenoiserModule, "training_step", training_step)


def test_max_time_ends_with_an_evaluation_and_a_report_and_the_training_resumes(tmp_path, monkeypatch, late_third_step, caplog, expected):
    monkeypatch.chdir(tmp_path)
    limit = ["--trainer.max_time", "01:00:00:00", "--name", "limited"]
    with caplog.at_level(logging.INFO):
        main([*TRAIN, *limit])
    run = Path("runs/limited")
    assert "trainer.max_time is over at step 3 of 4" in caplog.text and (run / "report.html").exists()
    assert torch.load(run / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 3
    assert json.loads((run / "emergence.json").read_text())["evaluation_steps"] == [0, 3]
    main([*TRAIN, *limit, "--resume", "auto"])
    assert_same(results(run), expected)


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_table_of_signals_and_phases(tmp_path, monkeypatch, capsys):
    rows = ["| signal | phase | checkpoint | exit code | message |", "| --- | --- | --- | --- | --- |"]
    for phase in PHASES:
        for signum in CODES:
            folder = tmp_path / f"{phase.replace(' ', '_')}_{signum.name}"
            folder.mkdir()
            monkeypatch.chdir(folder)
            rows.append(interrupt(phase, signum, capsys))
    with capsys.disabled():
        print("\n" + "\n".join(rows))


LAUNCH = ["accelerate", "launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
LONG = ["--trainer.max_steps", "2000", "--monitor.first_fraction", "1.0", "--checkpoint.every_n_train_steps", "5"]


def signal_one_of_two(folder: Path, signum: signal.Signals, arrived: Callable[[], bool]) -> str:
    """Start the training x on two processes, send one of them a signal when `arrived`, and return what was printed."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "WANDB_MODE": "offline"}
    with (folder / "log").open("w") as stream:
        command = [*LAUNCH, str(CONFIGS.parent / "train.py"), *TRAIN[1:], *LONG, "--name", "x"]
        launcher = subprocess.Popen(command, cwd=folder, env=environment, stdout=stream, stderr=stream)
        while not arrived() and launcher.poll() is None:
            time.sleep(0.05)
        processes = subprocess.run(["pgrep", "-P", str(launcher.pid)], capture_output=True, text=True).stdout.split()
        os.kill(int(max(processes, key=int)), signum)
        assert launcher.wait(timeout=120) == 1
    return (folder / "log").read_text()


@pytest.mark.faults
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("phase", ["first evaluation", "training"])
def test_signal_to_one_of_two_processes_stops_both_at_the_same_step(phase, tmp_path):
    last = tmp_path / "runs/x/checkpoints/last.ckpt"
    text = signal_one_of_two(
        tmp_path, signal.SIGTERM, last.exists if phase == "training" else lambda: "Evaluating the model" in (tmp_path / "log").read_text()
    )
    step = torch.load(last, weights_only=True)["global_step"]
    assert text.count("Stopped by ") == 1 and f"Stopped by SIGTERM at step {step}," in text
    assert (step == 0) == (phase == "first evaluation") and text.count("exitcode  : 143") + text.count("exitcode: 143") >= 1


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_process_whose_peer_is_killed_says_so_in_one_line_and_resumes(tmp_path, monkeypatch):
    text = signal_one_of_two(tmp_path, signal.SIGKILL, (tmp_path / "runs/x/checkpoints/last.ckpt").exists)
    own = text.partition("Traceback")[0]  # the launcher's follows, with "Signal 9 (SIGKILL)"
    assert "error: Another process of this training has ended" in own and text.count("Traceback") == 1 and "Signal 9" in text
    print(f"\n{text.count(chr(10))} lines, {own.count(chr(10))} of them not of the launcher")
    monkeypatch.chdir(tmp_path)
    last = torch.load("runs/x/checkpoints/last.ckpt", weights_only=True)["global_step"]
    main([*TRAIN, *LONG, "--trainer.max_steps", str(last + 3), "--name", "x", "--resume", "auto"])
    assert torch.load("runs/x/checkpoints/last.ckpt", weights_only=True)["global_step"] == last + 3
