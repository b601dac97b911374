"""configs/launch/: every file is parsed by the program that reads it, and the SLURM scripts run with stand-ins for SLURM."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser

ROOT = Path(__file__).parents[1]
LAUNCH = ROOT / "configs/launch"
SCRIPTS = sorted(LAUNCH.glob("*.sh"))
JOBS = sorted(LAUNCH.glob("slurm_*.sh"))
# options of sbatch that begin with one of these words, from its manual page
SBATCH = {
    "job-name", "nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task", "time", "signal", "requeue", "open-mode", "output",
}  # fmt: skip
NODE = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "host", "SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_GPUS_ON_NODE": "2"}
WORKER = """
import pathlib, time
from afterglow.signals import Stopped, StopSignals
try:
    with StopSignals().handled():
        pathlib.Path("started").touch()
        time.sleep(60)
except Stopped as stop:
    pathlib.Path("stopped").write_text(str(stop))
    raise SystemExit(stop.exit_code)
"""
STAND_INS = {
    "srun": 'exec "$@"',
    "scontrol": 'if [ "$1" = show ]; then echo localhost; else echo "scontrol $*"; fi',
    "accelerate": f'echo "accelerate $*"\n"{sys.executable}" worker.py || exit 1',
}


@pytest.mark.parametrize("file", sorted(LAUNCH.glob("*.yaml")), ids=lambda file: file.stem)
def test_accelerate_configuration_is_accepted_by_accelerate(file):
    config = load_config_from_file(str(file))
    assert config.mixed_precision in ("no", "bf16") and config.num_processes >= config.num_machines
    comment = " ".join(line.strip("# \\") for line in file.read_text().splitlines() if line.startswith("#"))
    arguments = launch_command_parser().parse_args(shlex.split(comment.partition("accelerate launch ")[2]))
    assert (arguments.config_file, arguments.training_script) == (f"configs/launch/{file.name}", "train.py")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_script_is_accepted_by_bash(script):
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.parametrize("script", JOBS, ids=lambda script: script.stem)
def test_directives_are_options_of_sbatch_and_precede_all_commands(script):
    head, _, body = script.read_text().partition("export ")
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)=?(.*)$", head, re.MULTILINE))
    assert set(options) <= SBATCH and "#SBATCH" not in body and head.count("#SBATCH") == len(options)
    assert re.fullmatch(r"B:USR1@\d+", options["signal"]) and options["requeue"] == "" and re.fullmatch(r"\d\d:\d\d:\d\d", options["time"])
    config = load_config_from_file(str(ROOT / re.search(r"CONFIG=(\S+)", script.read_text())[1]))
    assert config.distributed_type.value == "MULTI_GPU" and (config.num_machines > 1) == (options["nodes"] != "1")


def test_task_passes_only_options_of_accelerate():
    text = (LAUNCH / "task.sh").read_text().replace("\\\n", " ")
    command = re.search(r"exec accelerate launch (.*) train.py", text)[1]
    known = {option for action in launch_command_parser()._actions for option in action.option_strings}
    assert set(re.findall(r"--\w+", command)) <= known


@pytest.mark.parametrize("script", JOBS, ids=lambda script: script.stem)
def test_signal_of_slurm_reaches_the_training_and_the_job_is_queued_again(script, tmp_path):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "worker.py").write_text(WORKER)
    for name, text in STAND_INS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    environment = os.environ | NODE | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "src")}
    job = subprocess.Popen(["bash", script, "--name", "x"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    job.send_signal(signal.SIGUSR1)
    output, _ = job.communicate(timeout=60)
    assert job.returncode == 1 and (tmp_path / "stopped").read_text() == "SIGUSR1"
    assert "--num_processes 2 " in output and output.splitlines()[-1] == "scontrol requeue 7" and "--name x --resume auto" in output
