"""Pid files: which process runs here, told apart from another one that got the same number later."""

import contextlib
import fcntl
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from atoll.errors import Refused
from atoll.host.files import refused


@dataclass(frozen=True, slots=True)
class Process:
    """A process by its number and its start, in clock ticks since boot (0: not known)."""

    pid: int
    started: int

    @property
    def alive(self) -> bool:
        """Whether this very process still runs; a zombie does not."""
        now = started_at(self.pid)
        return now is not None and self.started in (0, now)


def read(path: Path) -> Process | None:
    """Return the living process a pid file names, or None."""
    try:
        words = path.read_text().split()
        process = Process(int(words[0]), int(words[1]) if len(words) > 1 else 0)
    except (OSError, ValueError, IndexError):
        return None
    return process if process.alive else None


class PidFile:
    """The pid file of this process, locked as long as it lives."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1

    def take(self) -> None:
        """Write and lock the file; raise `Refused` when another process holds it."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._file, 0)
            os.write(self._file, f"{os.getpid()} {started_at(os.getpid())}\n".encode())
        except BlockingIOError as error:
            holder = self._path.read_text().split() or ["unknown"]
            os.close(self._file)
            raise Refused(
                f"a control plane (process {holder[0]}) already runs in {self._path.parent.parent}",
                hint="use it, or end it with `atoll down`",
            ) from error
        except OSError as error:
            raise refused(self._path, error) from error

    def drop(self) -> None:
        """Remove the file."""
        if self._file >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = -1


def end(process: Process, *, within_s: float) -> bool:
    """Send TERM and wait, then KILL; say whether it ended by itself. Well if it has gone."""
    _send(process, signal.SIGTERM)
    if _gone(process, within_s):
        return True
    _send(process, signal.SIGKILL)
    _gone(process, 5.0)
    return False


def started_at(pid: int) -> int | None:
    """Return when a process began, in clock ticks since boot; None when it does not run."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _send(process: Process, number: int) -> None:
    if process.alive:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


def _gone(process: Process, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while process.alive:
        if time.monotonic() > until:
            return False
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process.pid, os.WNOHANG)
        time.sleep(0.02)
    return True
