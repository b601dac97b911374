"""`kill -9` in the middle, then `--ckpt_path last`: the same run, the same losses, no evaluation doubled or missing."""

import fcntl
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from fast_training import ENDS, ENVIRONMENT, FAST, OVERLAYS, TRANSFORMER, launcher

from afterglow.cli import main

ROOT = Path(__file__).parent.parent
STEPS = [
    "--trainer.max_steps",
    "24",
    "--checkpoint.every_n_train_steps",
    "7",
    "--monitor.first_fraction",
    "0.125",
]  # at 0, 3, 8, 24


def losses(segment: list[dict]) -> dict[int, float]:
    return {row["trainer/global_step"]: row["train/loss"] for row in segment if "train/loss" in row}


def kill_at_first_checkpoint(command: list[str], where: Path) -> None:
    """Start a training in processes of their own and kill them as soon as its first checkpoint is complete."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=where, env=ENVIRONMENT, start_new_session=True, **quiet)
    last = where / "runs/torn/checkpoints/last.ckpt"
    deadline = time.monotonic() + 200
    while not last.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None, "the run ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)  # the launcher and the training
    process.wait()
    with (where / "runs/torn/lock").open("a") as lock:  # the training, a child of the launcher, can end a moment later
        fcntl.lockf(lock, fcntl.LOCK_EX)
    assert not (where / "runs/torn/emergence.json").exists()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("resume")
    with pytest.MonkeyPatch.context() as patch:  # whole and resumed in this process, which has the libraries already
        patch.chdir(where)
        patch.setenv("WANDB_MODE", "offline")
        patch.delenv("WANDB_DATA_DIR", raising=False)
        main(["train", *FAST, *STEPS, "--name", "whole"])
        patch.delenv("WANDB_DATA_DIR", raising=False)
        kill_at_first_checkpoint([*launcher("--num_processes", "1"), *FAST, *STEPS, "--name", "torn"], where)
        main(["train", *FAST, *STEPS, "--name", "torn", "--ckpt_path", "last"])
    return where / "runs"


def test_every_later_loss_is_that_of_an_uninterrupted_run(folder, history):
    (whole,), torn = ([losses(segment) for segment in history(folder / name)] for name in ("whole", "torn"))
    assert len(torn) == 2 and len(whole) >= 24
    for segment in torn:
        assert segment and all(whole[step] == loss for step, loss in segment.items())
    # what was logged before a checkpoint was flushed; only the loss of the step itself is logged after it
    assert len(set(whole) - set(torn[0]) - set(torn[1])) <= 1
    assert set(torn[1]) == {step for step in whole if step >= min(torn[1])} and min(torn[1]) <= 20


def test_no_evaluation_is_doubled_or_missing_and_the_numbers_are_the_same(folder):
    keys = ["step", "plant_id", "kind", "caption", "seed", "measure", "value"]
    whole, torn = (pd.read_parquet(folder / name / "measurements.parquet")[keys] for name in ("whole", "torn"))
    pd.testing.assert_frame_equal(whole, torn)
    assert (folder / "whole/emergence.json").read_text() == (folder / "torn/emergence.json").read_text()


def test_the_run_id_stays(folder):
    segments = [path.name for path in (folder / "torn/wandb").glob("offline-run-*")]
    assert len(segments) == 2 and all((folder / "torn/wandb/run_id").read_text() in name for name in segments)


def test_a_kill_before_the_first_checkpoint_starts_anew(tmp_path, monkeypatch):
    """A step-0 probe without a checkpoint is made again, once."""
    monkeypatch.chdir(tmp_path)
    base = ["train", *FAST, *ENDS, "--trainer.max_steps", "2", "--name", "early"]
    main(base)
    for path in (tmp_path / "runs/early/checkpoints").iterdir():
        path.unlink()
    main([*base, "--resume", "auto"])
    rows = pd.read_parquet(tmp_path / "runs/early/measurements.parquet")
    assert not rows.duplicated(["step", "plant_id", "seed", "measure"]).any()


@pytest.mark.parametrize("words", [FAST, TRANSFORMER], ids=["unet", "transformer"])
def test_a_text_encoder_that_is_trained_along_resumes_bit_by_bit(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny = "{hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2}"
    causal = ["--model.text", tiny, "--trainer.max_steps", "4", *ENDS]
    main(["train", *words, *causal, "--checkpoint.save_top_k=-1", "--name", "whole"])
    shutil.copytree("runs/whole", "runs/half")
    for name in ("last", "step=4"):
        Path(f"runs/half/checkpoints/{name}.ckpt").unlink()
    main(["train", *words, *causal, "--checkpoint.save_top_k=-1", "--name", "half", "--resume", "auto"])
    states = [torch.load(f"runs/{name}/checkpoints/last.ckpt", weights_only=True) for name in ("whole", "half")]
    whole, half = (state["state_dict"] | {f"raw.{k}": v for k, v in state["current_model_state"].items()} for state in states)
    trained = [name for name in whole if ".text.model." in name]
    early = torch.load("runs/half/checkpoints/step=2.ckpt", weights_only=True)["state_dict"]
    assert whole.keys() == half.keys() and all(torch.equal(whole[name], half[name]) for name in whole)
    assert trained and any(not torch.equal(early[name], whole[name]) for name in trained if name in early)


def test_a_model_without_captions_resumes_with_the_same_completions(tmp_path, monkeypatch):
    """From an intact checkpoint in the middle: every row of the later evaluations is that of the uninterrupted run."""
    monkeypatch.chdir(tmp_path)
    plain = ["--config", str(ROOT / "configs/openmoji_ddpm.yaml"), *OVERLAYS, "--trainer.max_steps", "4", "--checkpoint.save_top_k=-1"]
    plain += ["--monitor.num_audited", "4"]
    main(["train", *plain, "--name", "whole"])
    shutil.copytree("runs/whole", "runs/half")
    for file in ("checkpoints/last.ckpt", "checkpoints/step=4.ckpt", "emergence.json"):
        Path("runs/half", file).unlink()
    main(["train", *plain, "--name", "half", "--resume", "auto"])
    whole, half = (pd.read_parquet(f"runs/{name}/measurements.parquet").drop(columns="seconds") for name in ("whole", "half"))
    pd.testing.assert_frame_equal(whole, half)
    assert {"plant_memorized.outpainted", "plant_memorized.outpainted_fresh"} <= set(half.loc[half["step"] == 4, "measure"])
    audits = [pd.read_parquet(f"runs/{name}/audit/audit.parquet") for name in ("whole", "half")]
    pd.testing.assert_frame_equal(*audits)
    assert audits[0]["checkpoint"].unique().tolist() == ["step=0", "step=1", "step=4"]
