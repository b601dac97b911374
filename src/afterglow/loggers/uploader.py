"""Upload of an offline W&B run by a process beside the training, so that no state of the server can delay or end the training."""

import fcntl
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

SECONDS_AFTER_END = 20  # the longest wait for the upload of a run that has ended
SECONDS_TO_STOP = 5
RETRY_SECONDS, LONGEST_PAUSE = 30, 600  # each attempt costs seconds of a core; the pauses double
LOW, LOWEST = 10, 19  # niceness of an upload before and after its first failure
RUN = re.compile(r"View run .* at \S+?//[^/]+/(.+)/runs/(.+)")
WITHOUT = ("WANDB_SERVICE", "WANDB_MODE", "WANDB_SILENT", "WANDB_QUIET", "WANDB_RUN_ID", "WANDB_SWEEP_ID")  # of this process's own run


class Uploader:
    """A process that uploads the offline runs of a folder while the last of them is still recorded.

    Args:
        folder: the wandb folder of a run folder; the output of the upload goes to its upload.log.
        workspace: also save a workspace for runs, unless the project has one.
    """

    def __init__(self, folder: Path, workspace: bool = False) -> None:
        self._log = folder / "upload.log"
        self._log.write_bytes(b"")
        environment = {name: value for name, value in os.environ.items() if name not in WITHOUT}
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(folder), str(SECONDS_AFTER_END), *["workspace"] * workspace],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment | {"PYTHONUNBUFFERED": "1", "WANDB_DIR": str(folder.parent.resolve())},  # its logs stay in the run folder
                start_new_session=True,  # Ctrl-C ends the training only
            )

    @property
    def url(self) -> str | None:
        """Address of the run, as soon as the server has answered."""
        address = re.search(r"View run .* at (\S+)", self._text())
        return address and address.group(1)

    @property
    def error(self) -> str | None:
        """The last error of the upload, on one line."""
        errors = re.findall(r"ERROR (.+)", self._text())
        return str(errors[-1])[:200] if errors else None

    def finish(self) -> str | None:
        """Wait for the upload of a run that has ended, at most SECONDS_AFTER_END + SECONDS_TO_STOP; return why it failed, or None."""
        assert self._process.stdin is not None
        self._process.stdin.close()  # tells the process that the run has ended
        try:
            uploaded = self._process.wait(SECONDS_AFTER_END + SECONDS_TO_STOP) == 0
        except subprocess.TimeoutExpired:
            uploaded = False
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        return None if uploaded else self.error or f"see {self._log}"

    def _text(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")


class _Upload:
    """What the process does. The end of its standard input is the end of the run, or of the process that recorded it."""

    def __init__(self, folder: Path, seconds: float, workspace: bool) -> None:
        self.folder, self.seconds, self.workspace = folder, seconds, workspace
        self.ended = threading.Event()
        self.deadline = float("inf")
        self.connected = False
        self.saving: threading.Thread | None = None
        threading.Thread(target=self._wait_for_end, daemon=True).start()

    def run(self) -> bool:
        """Upload until everything has arrived, or the run has ended and its time is over."""
        lock = os.open(self.folder, os.O_RDONLY)
        with suppress(OSError):  # some file systems have no locks
            fcntl.flock(lock, fcntl.LOCK_EX)  # until the process of a run that was killed has ended
        pause = RETRY_SECONDS
        while not self._attempt():
            if self.ended.is_set():
                return False
            lower_priority(LOWEST)  # of a core that it shares with the training, it then gets 1.5 %
            self.ended.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        if self.saving is not None:
            self.saving.join(SECONDS_TO_STOP)
        return True

    def _wait_for_end(self) -> None:
        begin = time.monotonic()
        sys.stdin.read()
        self.deadline = self.seconds + (time.monotonic() if self.connected else begin)  # a server that never answered had its time
        self.ended.set()

    def _attempt(self) -> bool:
        """Upload all runs that have not arrived yet; whether they arrived."""
        recorded = sorted(self.folder.glob("offline-run-*/*.wandb"))
        files = [file for file in recorded if not _marker(file).exists()]
        if not files:
            return bool(recorded)
        output = self._command("sync", "--yes", *map(str, files[:-1])) if files[:-1] else ""
        output += self._command("beta", "sync", "--live", "--yes", str(files[-1]))
        if complete := all(_marker(file).exists() for file in files):
            for file in files:
                _marker(file).unlink()  # W&B writes it even if the server refused everything or is no W&B server
            runs = RUN.findall(output)
            complete = "ERROR" not in output and bool(runs) and self._confirmed(runs[-1])
        for file in files if complete else ():
            _marker(file).touch()
        return complete

    def _command(self, *arguments: str) -> str:
        """Run `wandb` until it ends or the time is over; return its output."""
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "wandb", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        output: list[str] = []
        reader = threading.Thread(target=self._copy, args=(process, output), daemon=True)
        reader.start()
        while process.poll() is None:
            if time.monotonic() > self.deadline:
                process.kill()
                process.wait()
                print("ERROR the server did not answer in time", flush=True)
            time.sleep(0.1)
        reader.join(1)
        return "".join(output)

    def _copy(self, process: subprocess.Popen, output: list[str]) -> None:
        for line in process.stdout or ():
            output.append(line)
            self.connected |= "View run" in line
            print(line, end="", flush=True)
            if self.workspace and (run := RUN.search(line)):
                self.workspace = False
                self.saving = threading.Thread(target=self._save_workspace, args=run.group(1).split("/"), daemon=True)
                self.saving.start()

    def _save_workspace(self, entity: str, project: str) -> None:
        from afterglow.loggers.workspace import save_first  # only here, since this process begins with every training

        try:
            print("workspace:", save_first(entity, project) or "the project has one", flush=True)
        except Exception as error:  # the upload goes on without it
            print("WARNING", " ".join(str(error).split()), flush=True)

    def _confirmed(self, path: tuple[str, str]) -> bool:
        """Whether the server knows that the run (entity/project, id) has ended, which is the last thing that it receives."""
        import wandb

        while time.monotonic() < self.deadline:
            try:
                if wandb.Api(timeout=SECONDS_TO_STOP).run("/".join(path)).state != "running":
                    return True
            except Exception as error:  # whatever it is, there is no confirmation
                print("ERROR the server does not confirm the upload:", " ".join(str(error).split()))
                return False
            time.sleep(1)
        return False


def lower_priority(nice: int) -> None:
    """Let the processes of other sessions, such as the training, go before this one where there is no free core."""
    os.nice(max(0, nice - os.nice(0)))
    with suppress(OSError):  # Linux may share the cores among sessions first
        Path("/proc/self/autogroup").write_text(str(nice), encoding="utf-8")


def _marker(file: Path) -> Path:
    """The file with which W&B marks an uploaded run."""
    return file.with_suffix(".wandb.synced")


if __name__ == "__main__":
    lower_priority(LOW)
    raise SystemExit(0 if _Upload(Path(sys.argv[1]), float(sys.argv[2]), "workspace" in sys.argv[3:]).run() else 1)
