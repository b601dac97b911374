import contextlib
import errno
import logging
import os
import signal
import subprocess
import sys
import time

import pytest

from afterglow.cli.run_lock import RunLock, is_locked
from afterglow.errors import AfterglowError

HOLD = "import sys, time; from pathlib import Path; from afterglow.cli.run_lock import RunLock; lock = RunLock(); {then}"


def hold(folder, then="lock.acquire(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"):
    return subprocess.Popen([sys.executable, "-c", HOLD.format(then=then), str(folder)], stdout=subprocess.PIPE, text=True)


def test_acquire_while_another_process_lives_names_it_and_after_its_death_replaces_its_lock(tmp_path, caplog):
    holder = hold(tmp_path)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(AfterglowError, match=f"in use by process {holder.pid} on .* .since .*: wait until it ends, or choose another"):
            RunLock().acquire(tmp_path)
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    with caplog.at_level(logging.INFO, "afterglow"), RunLock() as lock:
        lock.acquire(tmp_path)
        assert f"Process {holder.pid} on " in caplog.text and "did not exit cleanly" in caplog.text
        assert f"process {os.getpid()}" in (tmp_path / "lock").read_text()


def test_release_empties_the_file_and_a_later_acquire_says_nothing(tmp_path, caplog):
    for _ in range(2):
        with RunLock() as lock:
            lock.acquire(tmp_path)
            lock.acquire(tmp_path)
        assert (tmp_path / "lock").read_text() == "" and not caplog.text


def test_acquire_is_not_inherited_by_children_that_outlive_the_process(tmp_path):
    fork = "lock.acquire(Path(sys.argv[1]))\nimport os\nif child := os.fork():\n    print(child, flush=True)\ntime.sleep(60)"
    holder = hold(tmp_path, f"exec({fork!r})")  # only the parent prints: a child's 0 would name the process group of the tests
    child = int(holder.stdout.readline())
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    try:
        with RunLock() as lock:
            lock.acquire(tmp_path)
    finally:
        with contextlib.suppress(ProcessLookupError):  # some systems end the children of a dead process
            os.kill(child, signal.SIGKILL)


def test_acquire_on_a_file_system_without_locks_warns_and_continues(tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.lockf", refuse)
    with RunLock() as lock:
        lock.acquire(tmp_path)
    assert "has no locks" in caplog.text


def test_acquire_of_many_processes_at_once_lets_one_in(tmp_path):
    start = time.time() + 1.5
    then = (
        f"time.sleep(max(0, {start} - time.time()))\ntry:\n    lock.acquire(Path(sys.argv[1]))\n    print('held', flush=True)\n"
        "    time.sleep(3)\nexcept ValueError:\n    print('refused', flush=True)"
    )
    processes = [hold(tmp_path, f"exec({then!r})") for _ in range(4)]
    said = sorted(process.stdout.readline().strip() for process in processes)
    for process in processes:
        process.kill()
        process.wait()
    assert said == ["held", "refused", "refused", "refused"]


def test_a_folder_is_locked_while_its_process_lives(tmp_path):
    assert not is_locked(tmp_path)
    holder = hold(tmp_path)
    try:
        assert holder.stdout.readline() == "held\n" and is_locked(tmp_path)
    finally:
        holder.kill()
        holder.wait()
    assert not is_locked(tmp_path)
