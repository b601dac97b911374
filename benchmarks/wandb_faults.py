"""What a W&B server that fails costs a training, counted: seconds in the calls that log, CPU seconds beside them, the wait at the end.

    python benchmarks/wandb_faults.py
    python benchmarks/wandb_faults.py --states hang close --steps 200

A small training that logs every 10 steps runs once in each state of a server, a stand-in on the loopback that accepts the run and then
fails; once while the process that uploads is stopped by a signal, so that a call that waits for it would never return; and twice offline,
which shows what two equal runs differ by. The columns:

seconds: those of the training by the clock, less those in which its thread waits for a core that another process has
    (/proc/thread-self/schedstat, Linux only).
logger: such seconds in the calls of RunLogger, of those of the training.
threads: CPU seconds of all other threads of the training process, of the same.
longest: the longest call.
upload: CPU seconds of the processes that upload, beside the training.
delay: seconds of the wait after the result is printed. Bound: 30.

The last line is the largest sum of `logger` and `threads`, less the smallest one offline. Bound: 2 %.
"""

import argparse
import multiprocessing as mp
import os
import signal
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import psutil
import torch
from timing import LOGGING, timed, undisturbed_seconds

ROOT = Path(__file__).parents[1]
STATES = ("offline", "401", "500", "garbage", "slow", "hang", "close", "stopped", "offline")
RECIPE = [
    *("train", "--config", str(ROOT / "configs/demo.yaml"), "--config", str(ROOT / "configs/overlays/fast.yaml"), "--name", "x"),
    *("--model.unet.block_out_channels", "[8,16]", "--monitor.measures", "[calibrated_l2]", "--monitor.first_fraction", "1"),
    *("--trainer.log_every_n_steps", "10", "--checkpoint.every_n_train_steps", "50", "--trainer.max_steps"),
]

FORKS = mp.get_context("forkserver")  # of a process that has imported everything, once
FORKS.set_forkserver_preload(["afterglow.cli.lightning_cli"])


def train(folder: str, environment: dict[str, str], stopped: bool, steps: int, answer: Any) -> None:
    """Train in a folder, and send the seconds of the training, its calls, the CPU seconds of other threads and uploads, and the delay."""
    os.chdir(folder)
    os.environ.update(environment)
    import lightning as L

    from afterglow.cli import main
    from afterglow.loggers.run_logger import RunLogger
    from afterglow.loggers.uploader import Uploader

    torch.set_num_threads(1)
    calls, ends, counts, uploads = list[float](), list[float](), list[float](), list[psutil.Process]()
    for name in LOGGING:
        setattr(RunLogger, name, timed(getattr(RunLogger, name), calls))
    finish, fit, start = timed(RunLogger.finish, ends), L.Trainer.fit, Uploader.__init__

    def started(self: Any, *args: Any) -> None:
        start(self, *args)
        uploads.append(psutil.Process(self._process.pid))
        if stopped:
            os.killpg(self._process.pid, signal.SIGSTOP)

    def fitted(*args: Any, **options: Any) -> None:
        calls.clear()
        begin = undisturbed_seconds(), time.process_time() - time.thread_time()
        fit(*args, **options)
        counts.extend((undisturbed_seconds() - begin[0], time.process_time() - time.thread_time() - begin[1]))
        counts.extend((sum(calls), max(calls), sum(map(cpu_seconds, uploads))))

    RunLogger.finish, L.Trainer.fit, Uploader.__init__ = finish, fitted, started  # type: ignore[method-assign]
    with Path("log").open("w") as log, redirect_stdout(log):
        main([*RECIPE, str(steps)])
    answer.send((*counts, *ends))


def cpu_seconds(process: psutil.Process) -> float:
    """CPU seconds of a process and its descendants."""
    return sum(sum(each.cpu_times()[:4]) for each in (process, *process.children(recursive=True)))


def measure(state: str, steps: int) -> list[float]:
    """What one training counted."""
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    from wandb_server import wandb_server

    with tempfile.TemporaryDirectory() as folder, wandb_server() as server:
        online = {"WANDB_MODE": "online", "WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": server.url}
        here, there = mp.Pipe()
        options = (folder, {"WANDB_MODE": "offline"} if state == "offline" else online, state == "stopped", steps, there)
        process = FORKS.Process(target=train, args=options, daemon=True)
        process.start()
        there.close()
        while state not in ("offline", "stopped") and not server.runs and process.is_alive():
            time.sleep(0.1)
        server.fault = None if state in ("offline", "stopped") else state
        process.join()
        return here.recv()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", nargs="+", default=STATES, choices=STATES)
    parser.add_argument("--steps", type=int, default=600, help="of each training")
    args = parser.parse_args()
    print("| state | seconds | logger | threads | longest | upload | delay |\n| --- | --- | --- | --- | --- | --- | --- |")
    shares: dict[str, list[float]] = {}
    for state in args.states:
        seconds, threads, logged, longest, upload, delay = measure(state, args.steps)
        shares.setdefault(state, []).append((logged + threads) / seconds)
        counts = f"{logged / seconds:.2%} | {threads / seconds:.2%} | {longest:.2f} s | {upload:.1f} s"
        print(f"| {state} | {seconds:.0f} | {counts} | {delay:.1f} s |", flush=True)
    if "offline" in shares:
        print(f"added at most: {max(map(max, shares.values())) - min(shares['offline']):+.2%}")
