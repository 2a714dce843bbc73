"""The machines behind a test cloud: each runs its user data for real, as processes in a folder of its own.

Test servers call this as a cloud calls its hypervisors. Standard library only: nova's process imports it too.
A guest knows nothing of the harness: it sees an empty home (its disk), a clean environment, `python3` and
the programs of this machine, but no `atoll` command. `poweroff` in it ends the guest, as in a machine.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

CONSOLE_BYTES = 64 * 1024
_GRACE_S = 3.0
_POWEROFF = """#!/bin/sh
touch '{base}/off'
exec '{python}' '{module}' '{base}'
"""


class Guests:
    """Guests by key, below `directory`. `prefix` stands before each guest's command (`ip netns exec NAME`).

    `slots` says what a guest pretends to have (`ATOLL_AGENT_SLOTS`), by key.
    """

    def __init__(
        self,
        directory: Path,
        *,
        prefix: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        slots: Callable[[str], str] = lambda key: "cpu=2,memory=2GiB,disk=10GiB",
    ) -> None:
        self._directory = directory
        self.prefix = tuple(prefix)
        self.environment = dict(environment or {})
        self._slots = slots
        self._booted: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = threading.RLock()

    def boot(self, key: str, user_data: str) -> None:
        """Switch a guest on: its user data runs now, on the disk of its last boot if it had one."""
        with self._lock:
            if self.running(key):
                return
            self.stop(key)
            base = self._prepare(key, user_data)
            with (base / "console").open("ab") as console:
                self._booted[key] = subprocess.Popen(
                    [*self.prefix, "/bin/sh", str(base / "user-data")],
                    cwd=base / "home",
                    env=self._environment(key, base),
                    stdin=subprocess.DEVNULL,
                    stdout=console,
                    stderr=console,
                    start_new_session=True,
                )

    def _prepare(self, key: str, user_data: str) -> Path:
        base = self._base(key)
        for name in ("home", "bin", "tmp"):
            (base / name).mkdir(parents=True, exist_ok=True)
        (base / "off").unlink(missing_ok=True)
        (base / "user-data").write_text(user_data)
        python = base / "bin" / "python3"
        if not python.exists():
            python.symlink_to(Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}")
        for name in ("poweroff", "shutdown"):
            (base / "bin" / name).write_text(_POWEROFF.format(base=base, python=sys.executable, module=__file__))
            (base / "bin" / name).chmod(0o755)
        return base

    def _environment(self, key: str, base: Path) -> dict[str, str]:
        return {
            "PATH": f"{base / 'bin'}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(base / "home"),
            "TMPDIR": str(base / "tmp"),
            "ATOLL_HOME": str(base / "home" / ".atoll"),
            "ATOLL_AGENT_SLOTS": self._slots(key),
            "ATOLL_TEST_GUEST": str(base),
            **self.environment,
        }

    def running(self, key: str) -> bool:
        """Whether anything of the guest runs and it did not switch itself off.

        A guest whose script ended while nothing else runs counts as running: a machine idles on.
        """
        with self._lock:
            booted = self._booted.get(key)
            if booted is not None:
                booted.poll()
            return booted is not None and not (self._base(key) / "off").exists()

    def stop(self, key: str) -> None:
        """Switch a guest off; its disk stays."""
        with self._lock:
            booted = self._booted.pop(key, None)
        _end(self._base(key))
        while booted is not None and booted.poll() is None:
            # A process in the middle of its exec shows no environment: it was missed.
            with suppress(ProcessLookupError):
                os.killpg(booted.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                booted.wait(0.2)
        _end(self._base(key))

    def discard(self, key: str) -> None:
        """Switch a guest off and delete its disk; what it printed stays."""
        self.stop(key)
        for name in ("home", "bin", "tmp", "user-data"):
            path = self._base(key) / name
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    def console(self, key: str) -> str:
        """Return the last 64 KiB of what a guest printed."""
        try:
            raw = (self._base(key) / "console").read_bytes()
        except OSError:
            return ""
        return raw[-CONSOLE_BYTES:].decode(errors="replace")

    def processes(self) -> list[int]:
        """Return every live process of every guest here."""
        return _of(self._directory)

    def close(self) -> None:
        """Switch all off."""
        for key in list(self._booted):
            self.stop(key)
        _end(self._directory)

    def _base(self, key: str) -> Path:
        return self._directory / key


def _end(base: Path) -> None:
    """TERM, then KILL everything that carries this folder in its environment."""
    deadline = time.monotonic() + _GRACE_S
    sent = signal.SIGTERM
    while pids := _of(base):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, sent)
        if time.monotonic() > deadline:
            sent = signal.SIGKILL
        time.sleep(0.02)


def _of(base: Path) -> list[int]:
    # A process that ends during a scan may have left children that were not there when it began.
    return _scan(base) or _scan(base)


def _scan(base: Path) -> list[int]:
    mark, below = f"ATOLL_TEST_GUEST={base}\0".encode(), f"ATOLL_TEST_GUEST={base}/".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            told = (entry / "environ").read_bytes() + b"\0"
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if (mark in told or below in told) and state not in "ZX":
            found.append(int(entry.name))
    return found


if __name__ == "__main__":  # a guest switches itself off
    _end(Path(sys.argv[1]))
