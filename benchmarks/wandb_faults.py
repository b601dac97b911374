"""Speed of a training while the W&B server fails, relative to one that is logged offline, and the delay at its end.

    python benchmarks/wandb_faults.py
    python benchmarks/wandb_faults.py --faults hang close

The server is a stand-in on the loopback. It accepts the run and then fails. Two processes train in turns, one of them offline; printed
are the ratio of their seconds (median and 95 % interval over interleaved pairs) and the seconds until the run with the failing server has
ended. Seconds in which the training waits for a core that another process of the machine has do not count (/proc/thread-self/schedstat);
those in which it computes, or waits for anything else, do. All code but the logger is the same in both processes, so that the difference
of the logger's shares is the more exact measure on a machine with other work. Bounds: 1.02 or +2 %, and 30 seconds.
"""

import argparse
import multiprocessing as mp
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from timing import median_interval, time_ratio, undisturbed_seconds

ROOT = Path(__file__).parents[1]


def train(folder: Path, environment: dict[str, str], turns: Any) -> None:
    """Train for some steps whenever a number of steps arrives, and answer with its seconds and those of the logger; None ends the run."""
    os.environ.update(environment)
    from afterglow.loggers.run_logger import RunLogger

    torch.set_num_threads(1)
    logger, step = RunLogger(), 0
    logger.use_folder(folder)
    layers = torch.nn.Sequential(*(torch.nn.Linear(512, 512) for _ in range(4)))
    logger.log_metrics({"train/loss": 0.0}, 0)
    turns.send("ready")
    while (count := turns.recv()) is not None:
        begin, logged = undisturbed_seconds(), 0.0
        for _ in range(count):
            step += 1
            loss = layers(torch.randn(64, 512)).square().mean()
            loss.backward()
            if step % 10 == 0:
                called = undisturbed_seconds()
                logger.log_metrics({"train/loss": float(loss.detach())}, step)
                logged += undisturbed_seconds() - called
        turns.send((undisturbed_seconds() - begin, logged))
    begin = time.perf_counter()
    logger.finish()
    turns.send(time.perf_counter() - begin)


def measure(fault: str, pairs: int, steps: int) -> str:
    """One line of the result."""
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    from wandb_server import wandb_server

    with tempfile.TemporaryDirectory() as folder, wandb_server() as server:
        online = {"WANDB_MODE": "online", "WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": server.url}
        ends = []
        for name, environment in (("failing", online), ("offline", {"WANDB_MODE": "offline"})):
            here, there = mp.Pipe()
            mp.get_context("spawn").Process(target=train, args=(Path(folder) / name, environment, there), daemon=False).start()
            here.recv()
            ends.append(here)
        while not server.runs:
            time.sleep(0.1)
        server.fault = fault

        shares: list[list[float]] = [[], []]

        def turn(number: int) -> float:
            ends[number].send(steps)
            taken, logged = ends[number].recv()
            shares[number].append(logged / taken)
            return taken

        median, low, high = time_ratio(lambda: turn(0), lambda: turn(1), pairs=pairs, seconds=lambda way: way())
        added = median_interval([failing - offline for failing, offline in zip(*shares, strict=True)])
        for end in ends:
            end.send(None)
        delay = ends[0].recv()
        ends[1].recv()
    speed = f"seconds relative to offline {median:.3f} [{low:.3f}, {high:.3f}]"
    logger = f"added by the logger {added[0]:+.2%} [{added[1]:+.2%}, {added[2]:+.2%}]"
    return f"{fault:8} {speed}, {logger}, delay at the end {delay:.1f} s"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", nargs="+", default=["401", "500", "garbage", "slow", "hang", "close"])
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--steps", type=int, default=10, help="steps of a turn")
    args = parser.parse_args()
    for name in args.faults:
        print(measure(name, args.pairs, args.steps), flush=True)
