"""Memory and open files over a long training with evaluations."""

import gc
import os
from pathlib import Path

import pytest

STEPS, EVERY = 2000, 200


def record_memory(file: Path) -> None:
    """Append "step resident-bytes open-files" to a file every EVERY steps."""
    from afterglow.models.lightning_module import DenoiserModule

    original = DenoiserModule.training_step

    def recorded(self, *args):
        step = self.trainer.global_step
        if step and (step % EVERY == 0 or step == STEPS - 1):
            gc.collect()
            resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            with file.open("a") as stream:
                stream.write(f"{step} {resident} {len(os.listdir('/proc/self/fd'))}\n")
        return original(self, *args)

    DenoiserModule.training_step = recorded


@pytest.mark.faults
@pytest.mark.timeout(7200)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc")
def test_train_of_2000_steps_keeps_its_memory_and_open_files(whole, tmp_path):
    harness, _ = whole[0].beside(tmp_path)
    words = ("--trainer.max_steps", str(STEPS), "--checkpoint.every_n_train_steps", "100", "--monitor.first_fraction", "0.02")
    assert harness.train("long", *words, before=lambda: record_memory(tmp_path / "memory")) == 0, harness.text("long")
    numbers = [tuple(map(int, line.split())) for line in (tmp_path / "memory").read_text().splitlines()]
    for step, resident, files in numbers:
        print(f"step {step}: {resident / 2**20:.1f} MiB, {files} open files")
    first, last = numbers[0], numbers[-1]
    assert (first[0], last[0]) == (EVERY, STEPS - 1)
    assert last[1] <= 1.03 * first[1] and len({files for _, _, files in numbers}) == 1
