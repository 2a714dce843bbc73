"""An agent's home: where it keeps its identity, journal and sessions, and the lock that one process holds."""

import contextlib
import fcntl
import json
import os
import shutil
from pathlib import Path

from agent.runtime.shim import boot_id, start_time
from atoll.errors import Conflict, Refused
from atoll.host.config import atoll_home
from atoll.host.files import refused

_IDENTITY = ("agent.json", "cert.pem", "key.pem", "ca.pem")


class AgentHome:
    """The files of one agent under `path`, `$ATOLL_HOME/agent` by default."""

    def __init__(self, path: Path | None = None, pid_file: Path | None = None) -> None:
        self.path = (path or atoll_home() / "agent").expanduser().absolute()
        self.pid_file = (pid_file or self.path / "agent.pid").expanduser().absolute()
        self._lock = -1

    @property
    def journal(self) -> Path:
        """Where runs are written down."""
        return self.path / "journal"

    @property
    def sessions(self) -> Path:
        """Where runs have their folders."""
        return self.path / "sessions"

    @property
    def mesh(self) -> Path:
        """What this machine's owner permits as a gateway of meshes, and its WireGuard keys."""
        return self.path / "mesh"

    @property
    def direct(self) -> Path:
        """Where this machine's owner permits users to reach it without a relay."""
        return self.path / "direct.json"

    @property
    def log(self) -> Path:
        """What an agent in the background says."""
        return self.path / "agent.log"

    @property
    def joined(self) -> bool:
        """Whether there is an identity."""
        return (self.path / "agent.json").exists()

    def prepare(self) -> None:
        """Make the home, 0700; raise `Refused` where it cannot be written."""
        probe = self.path / ".probe"
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            probe.write_bytes(b"\0" * 4096)  # a full disk takes an empty file, so write more
            probe.unlink()
        except OSError as error:
            with contextlib.suppress(OSError):
                probe.unlink()
            raise refused(self.path, error) from error

    def take(self) -> None:
        """Become the one agent process of this home until it ends; raise `Conflict` when there is another."""
        try:
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            line = f"{os.getpid()} {start_time(os.getpid())}\n"
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, line.encode(), 0)
            self.pid_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh = self.pid_file.with_suffix(".new")
            fresh.write_text(line)
            fresh.replace(self.pid_file)
        except BlockingIOError:
            os.close(self._lock)
            self._lock = -1
            raise Conflict(
                f"an agent (process {self.running()}) already runs in {self.path}",
                hint="use it, or give this one a home of its own with --home",
            ) from None
        except OSError as error:
            raise refused(self.path, error) from error

    def give_back(self) -> None:
        """Remove the pid file and let go of the lock."""
        if self._lock >= 0:
            self.pid_file.unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = -1

    def running(self) -> int | None:
        """Return the process id of the agent that holds this home, or None."""
        try:
            words = (self.path / "lock").read_text().split()
        except OSError:
            return None
        alive = len(words) == 2 and start_time(words[0]) == words[1]
        return int(words[0]) if alive else None

    def born_at(self, monotonic: float) -> float:
        """Return the monotonic time at which an agent first ran here in this boot of the machine."""
        path = self.path / "boot"
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            noted = json.loads(path.read_text())
            if noted["boot"] == boot_id():
                return float(noted["monotonic"])
        try:
            path.write_text(json.dumps({"boot": boot_id(), "monotonic": monotonic}))
        except OSError as error:
            raise refused(path, error) from error
        return monotonic

    def clear(self) -> None:
        """Remove the identity and everything kept of runs; raise `Refused` where that fails."""
        try:
            for name in (*_IDENTITY, "boot", "direct.json"):
                (self.path / name).unlink(missing_ok=True)
            for folder in (self.journal, self.sessions, self.mesh):
                shutil.rmtree(folder, ignore_errors=True)
        except OSError as error:
            raise Refused(
                f"the identity in {self.path} could not be removed: {(error.strerror or str(error)).lower()}",
                hint="remove the folder by hand",
            ) from error
