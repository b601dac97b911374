"""The lock that keeps a second process out of the run folder of a live training."""

import errno
import fcntl
import logging
import os
import socket
from datetime import datetime
from pathlib import Path
from typing import TextIO

from afterglow.cache import errors_naming
from afterglow.errors import AfterglowError

log = logging.getLogger(__name__)


class RunLock:
    """A lock of the operating system on runs/NAME/lock, which ends with the process that holds it, however that ends."""

    def __init__(self) -> None:
        self._stream: TextIO | None = None

    def __enter__(self) -> "RunLock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def acquire(self, folder: Path) -> None:
        """Lock a run folder, which must exist, and write who holds the lock: process, host and time.

        Raises:
            AfterglowError: another process holds the lock.
        """
        if self._stream is not None:
            return
        stream = (folder / "lock").open("a+", encoding="utf-8")
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            stream.seek(0)
            if error.errno in (errno.EACCES, errno.EAGAIN):
                holder = stream.read() or "another process"
                raise AfterglowError(f"'{folder}' is in use by {holder}: wait until it ends, or choose another --name.") from error
            log.warning("The file system of '%s' has no locks: make sure that no other process trains in it.", folder)
        stream.seek(0)
        if killed := stream.read():
            log.info("%s did not exit cleanly; its lock on '%s' is replaced.", killed[:1].upper() + killed[1:], folder)
        with errors_naming(folder / "lock"):
            stream.truncate(0)
            stream.write(f"process {os.getpid()} on {socket.gethostname()} (since {datetime.now():%Y-%m-%d %H:%M:%S})")
            stream.flush()
        self._stream = stream

    def release(self) -> None:
        """Empty the file and end the lock; the file stays, since another process may have opened it."""
        if self._stream is not None:
            self._stream.truncate(0)
            self._stream.close()
            self._stream = None


def is_locked(folder: Path) -> bool:
    """Whether a process on this host trains in the run folder now."""
    try:
        with (folder / "lock").open("r+", encoding="utf-8") as stream:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError as error:
        return error.errno in (errno.EACCES, errno.EAGAIN)
    return False
