"""A full disk at every kind of write: one sentence that names the file, exit code 2, and a resume to the same rows and losses."""

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest

WRITES = ("half checkpoint", "<fsync", "<rename", "<text", "<bytes", "<link")
NUM_WRITES = 15


def full_disk() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fill_and_resume(whole, folder: Path, moment: tuple) -> str:
    """Let a write of a training fail, resume it, compare it with the unbroken run, and return the sentence of the failure."""
    harness, watched = whole[0].beside(folder)
    code = harness.train("disk", before=lambda: watched(moment, full_disk))
    text = harness.text("disk")
    (line,) = [line for line in text.splitlines() if line.startswith("error: ")]
    assert code == 2 and "Traceback" not in text and len(line) <= 310, text
    assert harness.train("disk", "--resume", "auto") == 0, harness.text("disk")
    harness.assert_equal("disk", whole[0])
    return line


@pytest.mark.faults
@pytest.mark.timeout(7200)
def test_train_on_a_disk_that_is_full_at_every_kind_of_write_names_the_file_and_resumes(whole, tmp_path):
    moments = [(name, whole[1][: row + 1].count(name)) for row, name in enumerate(whole[1]) if name in WRITES]
    chosen = moments[:: -(-len(moments) // NUM_WRITES)]
    for number, moment in enumerate(chosen):
        folder = tmp_path / str(number)
        folder.mkdir()
        line = fill_and_resume(whole, folder, moment)
        assert line.startswith("error: No space left on device: runs/disk/"), line
        print(f"{moment[0].strip('<')} {moment[1]}: {line}", flush=True)
    print(f"full at {len(chosen)} writes: not resumed 0, differing rows or losses 0")


@pytest.mark.faults
@pytest.mark.timeout(7200)
def test_train_on_a_small_file_system_names_the_file_and_resumes_when_there_is_room(whole, tmp_path):
    """Real ENOSPC: a tmpfs that is smaller than the run needs."""
    used = sum(path.stat().st_blocks * 512 for path in (whole[0].folder / "runs").rglob("*"))
    sizes = [int(used * part) for part in (0.05, 0.15, 0.25, 0.35, 0.45)]  # it kept 6 checkpoints; 3 of them suffice
    for size in sizes:
        harness, _ = whole[0].beside(tmp_path / str(size))
        mount = harness.folder / "runs"
        mount.mkdir(parents=True)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", mount], capture_output=True).returncode:
            pytest.skip("this user may not mount a tmpfs")
        try:
            code, text = harness.train("disk"), harness.text("disk")
            assert code == 2 and "No space left on device: runs/disk/" in text and "Traceback" not in text, text
            subprocess.run(["mount", "-o", f"remount,size={10 * used}", mount], check=True)
            assert harness.train("disk", "--resume", "auto") == 0, harness.text("disk")
            harness.assert_equal("disk", whole[0])
            print(f"{size / 1e3:.0f} kB: {text.splitlines()[-1]}", flush=True)
        finally:
            subprocess.run(["umount", mount], check=True)
        shutil.rmtree(harness.folder)
