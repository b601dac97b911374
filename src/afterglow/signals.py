"""The signals that end a training in order: SIGTERM, SIGUSR1 and SIGINT (Ctrl-C)."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

HANDLED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
REPEAT_SECONDS = 1.0  # launchers repeat a signal that the terminal or the scheduler has sent to all processes already
PREPARING = "before the first step, so that there is nothing to save: start the same command again"


class Stopped(BaseException):
    """A signal asks the process to end; a BaseException, so that no handler of errors takes it for one."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum  # the convention of shells: 143, 138, 130


class StopSignals:
    """Turns the first signal into Stopped, at once or where the training can be saved; a second one ends the process.

    Attributes:
        received: number of the signal, 0 before it.
        deferred: the signal waits until the training reads `received`.
        state: what the signal interrupts and how to continue, for the message.
    """

    def __init__(self) -> None:
        self.received, self.deferred, self.state = 0, False, PREPARING
        self._time, self._pid = 0.0, os.getpid()

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handle the signals inside the block."""
        before = {signum: signal.getsignal(signum) for signum in HANDLED}
        self._install()
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def defer(self) -> None:
        """Let signals wait from here on."""
        self.deferred = True
        self._install()  # again: Lightning has installed its own handlers, which save hpc_ckpt_N.ckpt in a SLURM job

    def act(self) -> None:
        """Raise Stopped for a signal that waits, and for later ones at once."""
        self.deferred = False
        if self.received:
            raise Stopped(self.received)

    def _install(self) -> None:
        for signum in HANDLED:
            if signum != signal.SIGINT or signal.getsignal(signum) != signal.SIG_IGN:  # a shell's background job ignores Ctrl-C
                signal.signal(signum, self._handle)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a worker of the data loader; the training ends it
            return
        if self.received and time.monotonic() - self._time > REPEAT_SECONDS:
            os.write(2, b"\nEnded at once by a second signal; the last checkpoint is unchanged.\n")
            os._exit(128 + signum)
        if self.received:
            return
        self.received, self._time = signum, time.monotonic()
        if not self.deferred:
            raise Stopped(signum)
