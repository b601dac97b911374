"""Two processes, plain python, and launchers that did not do what was asked."""

import multiprocessing as mp
import os
import signal
from typing import Any

import pandas as pd
import pytest
import torch
from fast_training import FAST, TRANSFORMER, accelerate

from afterglow import distributed
from afterglow.cli import main

TWENTY = ["--trainer.max_steps", "20", "--monitor.first_fraction", "1.0", "--monitor.seeds", "1"]


def losses(segments: list[list[dict]]) -> dict[int, float]:
    return {row["trainer/global_step"]: row["train/loss"] for segment in segments for row in segment if "train/loss" in row}


@pytest.mark.parametrize("recipe", [FAST, pytest.param(TRANSFORMER, marks=pytest.mark.faults)], ids=["unet", "transformer"])
def test_two_processes_are_one_run_with_the_numbers_of_one(recipe, tmp_path, history, monkeypatch):
    """One is this process; `accelerate launch` of one process is in test_resume.py."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_DATA_DIR", raising=False)
    main(["train", *recipe, *TWENTY, "--name", "one"])
    two = accelerate(tmp_path, "--multi_gpu", "--num_processes", "2", args=[*recipe, *TWENTY, "--name", "two"])
    assert two.returncode == 0, two.stderr[-3000:]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["one", "two"]
    assert len(list((tmp_path / "runs/two/wandb").glob("offline-run-*"))) == 1
    expected, found = (losses(history(tmp_path / "runs" / name)) for name in ("one", "two"))
    assert len(expected) >= 20 and expected.keys() == found.keys()
    assert all(abs(expected[step] - found[step]) <= 1e-4 for step in expected)
    keys = ["step", "plant_id", "seed", "measure"]
    table = [
        pd.read_parquet(tmp_path / f"runs/{name}/measurements.parquet").sort_values(keys).reset_index(drop=True) for name in ("one", "two")
    ]
    pd.testing.assert_frame_equal(table[0][keys], table[1][keys])
    smooth = table[0]["measure"].isin(
        ["distance", "calibrated_l2", "guidance_norm.all", "end_token_mean.all", "entropy.last", "denoising_loss"]
    )
    assert (table[0]["value"] - table[1]["value"])[smooth].abs().max() <= 1e-4


def test_two_asked_for_and_one_started_is_refused_with_the_command_that_works(tmp_path):
    done = accelerate(tmp_path, "--cpu", "--num_processes", "2", args=[*FAST, "--name", "x"])
    assert done.returncode != 0 and "--multi_gpu --num_processes 2" in done.stderr and not (tmp_path / "runs").exists()


def test_plain_python_trains_in_one_process(monkeypatch):
    for name in ("ACCELERATE_MIXED_PRECISION", "WORLD_SIZE", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert distributed.trainer_defaults() == {"use_distributed_sampler": False, "devices": 1} and distributed.rank_and_world_size() == (
        0,
        1,
    )


def test_the_launcher_decides_devices_nodes_and_precision(monkeypatch):
    for name, value in {
        "ACCELERATE_MIXED_PRECISION": "bf16",
        "WORLD_SIZE": "8",
        "LOCAL_WORLD_SIZE": "4",
        "MASTER_PORT": "1",
        "RANK": "5",
    }.items():
        monkeypatch.setenv(name, value)
    found = distributed.trainer_defaults()
    assert (found["devices"], found["num_nodes"], found["precision"]) == (4, 2, "bf16-mixed") and distributed.rank_and_world_size() == (
        5,
        8,
    )


@pytest.mark.parametrize("variable", list(distributed.UNSUPPORTED))
def test_other_launchers_are_refused_by_name(monkeypatch, variable):
    monkeypatch.setenv(variable, "true")
    with pytest.raises(ValueError, match=distributed.UNSUPPORTED[variable]):
        distributed.trainer_defaults()


@pytest.mark.parametrize("key, value", [("world_size", 2), ("precision", "bf16-mixed")])
def test_a_mismatch_between_launcher_and_trainer_raises(monkeypatch, key, value):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    good = {"world_size": 1, "precision": "32-true"}
    distributed.validate_trainer(type("Trainer", (), good))
    with pytest.raises(ValueError, match="launcher"):
        distributed.validate_trainer(type("Trainer", (), good | {key: value}))


def lose_a_process(rank: int, file: str, errors: Any) -> None:
    torch.distributed.init_process_group("gloo", f"file://{file}", rank=rank, world_size=2)
    torch.distributed.barrier()
    if rank:
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        torch.distributed.all_reduce(torch.zeros(1))
    except Exception as error:
        errors.put(distributed.is_lost_process(error))


def test_is_lost_process_knows_the_error_after_another_process_was_killed(tmp_path):
    context = mp.get_context("fork")
    errors = context.Queue()
    processes = [context.Process(target=lose_a_process, args=(rank, str(tmp_path / "store"), errors)) for rank in (0, 1)]
    for process in processes:
        process.start()
    assert errors.get(timeout=60) and not distributed.is_lost_process(RuntimeError("CUDA out of memory"))
    for process in processes:
        process.join()
