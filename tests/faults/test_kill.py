"""SIGKILL at chosen and random moments, then a resume: the rows and losses of one process that was not interrupted."""

import errno
import os
import random
import signal
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
QUICK = (("<plants", 1), ("half checkpoint", 2), ("<evaluation", 2), (">measurements", 1))
CHOSEN = (
    *(("<W&B folder", 1), ("<text", 1), (">text", 1), ("<plants", 1), (">plants", 1), (">rename", 1), ("<rename", 2), ("<step", 1)),
    *((moment, number) for number in (1, 2) for moment in ("half checkpoint", "<checkpoint", ">checkpoint", "<rotation", "<link", ">link")),
    *((moment, number) for number in (1, 2) for moment in ("<evaluation", ">evaluation", "<measurements", ">measurements", "<run files")),
    *((moment, number) for number in (1, 2, 3) for moment in ("<unlink", ">unlink", "<fsync", ">fsync", "<bytes", ">bytes")),
    *((moment, 1) for moment in (">run files", "<generations", ">generations", "<report", ">report")),
)
WANDB = (("<W&B", 1), (">W&B", 1), ("<W&B", 4), (">W&B", 7))
NUM_KILLS = 110


def full_disk() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def other_file_system(folder: Path) -> str | None:
    """A folder for temporary files on another file system than a folder, if the machine has one."""
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == folder.stat().st_dev:
        return None
    return tempfile.mkdtemp(dir=shared)


def test_train_killed_at_chosen_moments_and_stopped_by_a_full_disk_resumes_to_the_same_rows_and_losses(whole, tmp_path):
    harness, watched = whole[0].beside(tmp_path)
    for moment in QUICK:
        assert harness.killed("torn", moment, "--resume", "auto") == -signal.SIGKILL, harness.text("torn")
    assert harness.train("torn", "--resume", "auto", before=lambda: watched(("half checkpoint", 1), full_disk)) == 2
    assert "error: No space left on device: runs/torn/checkpoints/last.ckpt\n" in harness.text("torn")
    assert harness.train("torn", "--resume", "auto") == 0, harness.text("torn")
    harness.assert_equal("torn", whole[0])


@pytest.mark.faults
@pytest.mark.timeout(7200)
def test_train_killed_more_than_a_hundred_times_always_resumes_to_the_same_rows_and_losses(whole, tmp_path):
    generator = random.Random(0)
    moments: list = [*CHOSEN, *WANDB]
    moments += [(None, generator.randrange(1, len(whole[1]))) for _ in range(NUM_KILLS - 20 - len(moments))]
    moments += [("seconds", generator.uniform(0.5, 8)) for _ in range(30)]
    generator.shuffle(moments)
    shared, kills, runs = other_file_system(tmp_path), Counter(), 0
    while moments:
        runs += 1
        name = f"run{runs}"
        harness = whole[0].beside(tmp_path, WANDB_MODE="offline" if runs % 4 == 1 else "disabled", **_temporary(shared, runs))[0]
        code, begun = -signal.SIGKILL, False
        while moments and code == -signal.SIGKILL:
            moment = moments.pop()
            code = _interrupt(harness, name, moment)
            kills[str(moment[0] or "random")] += code == -signal.SIGKILL
            if code == 0 and begun:  # the moment was before those of this process: the next run begins with it
                moments.append(moment)
            begun = True
        if code == -signal.SIGKILL:
            code = harness.train(name, "--resume", "auto")
        assert code == 0, harness.text(name)
        harness.assert_equal(name, whole[0])
        print(f"{sum(kills.values())} kills, {runs} runs", flush=True)
    print(f"kills: {sum(kills.values())} in {runs} runs, by moment {dict(kills)}")
    print("not resumed: 0; rows lost, doubled or different: 0; losses that differ: 0")
    assert sum(kills.values()) >= 100


def _temporary(shared: str | None, number: int) -> dict[str, str]:
    return {"TMPDIR": shared} if shared and number % 2 else {}


def _interrupt(harness, name: str, moment: tuple) -> int:
    """Start or resume a run, kill it at a moment, and return its exit code: 0 if it ended before."""
    if moment[0] != "seconds":
        return harness.killed(name, moment, "--resume", "auto")
    process = harness.start(name, "--resume", "auto")
    end = time.monotonic() + moment[1]
    while time.monotonic() < end and (state := os.waitpid(process, os.WNOHANG))[0] == 0:
        time.sleep(0.01)
    if state[0] == 0:
        os.kill(process, signal.SIGKILL)
        state = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(state[1])


@pytest.mark.parametrize("step", [2, pytest.param(4, marks=pytest.mark.faults), pytest.param(8, marks=pytest.mark.faults)])
def test_resume_from_a_checkpoint_equals_what_the_process_that_wrote_it_did_next(whole, tmp_path, step):
    """The oracle is the process that wrote the checkpoint and continued past it."""
    reference = whole[0]
    harness, _ = reference.beside(tmp_path)
    checkpoint = reference.folder / f"runs/whole/checkpoints/step={step}.ckpt"
    assert harness.train("resumed", "--ckpt_path", str(checkpoint)) == 0, harness.text("resumed")
    assert harness.losses("resumed") == {number: loss for number, loss in reference.losses("whole").items() if number >= step}
    rows, first = harness.rows("resumed"), reference.rows("whole")
    assert rows.equals(first[first["step"] >= rows["step"].min()].reset_index(drop=True)) and rows["step"].max() == 10


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_resume_from_an_older_checkpoint_that_is_killed_resumes_to_the_same_rows_and_losses(whole, tmp_path):
    """What came after the older checkpoint must not be used again: its rows are gone."""
    harness, _ = whole[0].beside(tmp_path)
    assert harness.train("x", "--checkpoint.save_top_k", "-1") == 0, harness.text("x")
    assert harness.killed("x", ("<step", 4), "--ckpt_path", "runs/x/checkpoints/step=4.ckpt") == -signal.SIGKILL, harness.text("x")
    assert harness.train("x", "--resume", "auto") == 0, harness.text("x")
    harness.assert_equal("x", whole[0])


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_xl_killed_in_the_middle_resumes_to_the_same_rows_and_losses(whole, xl_folder, tmp_path):
    """Stable Diffusion XL's structure: before a step, in the middle of a checkpoint and after the last evaluation was written."""
    recipes = [f"--config={ROOT}/configs/{name}.yaml" for name in ("sd14_memorize", "overlays/small_sd", "overlays/fast")]
    few = ("--data.dataset", "openmoji", "--data.batch_size", "2", "--trainer.max_steps", "4", "--monitor.first_fraction", "0.5")
    few += ("--data.planting.num_global", "1", "--data.planting.num_local", "1", "--monitor.measures", "[calibrated_l2, end_token.*]")
    words = ("train", *recipes, *few, "--model.source", str(xl_folder))
    harness = replace(whole[0].beside(tmp_path, AFTERGLOW_CACHE=str(tmp_path / "cache"))[0], arguments=words, steps=4)
    assert harness.train("whole", "--checkpoint.save_top_k", "-1") == 0, harness.text("whole")
    for moment in (("<step", 2), ("<step", 4), ("half checkpoint", 1), (">measurements", 1)):
        assert harness.killed("torn", moment, "--resume", "auto") == -signal.SIGKILL, harness.text("torn")
    assert harness.train("torn", "--resume", "auto") == 0, harness.text("torn")
    harness.assert_equal("torn", harness)
