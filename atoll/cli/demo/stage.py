"""The demo's stage: a temporary home with a control plane and an agent, and its removal without a trace."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from atoll.client import profile
from atoll.client.synchronous import Client
from atoll.errors import Refused

CONFIG = """
[times]
schedule_s = 1.0
launch_s = 1.0
observe_s = 1.0
settle_s = 6.0
backoff_s = 4.0
backoff_max_s = 4.0
"""


class Stage:
    """A control plane with a local agent of two cores under a folder of its own."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="atoll-demo-"))
        self.port = _free_port()
        self._environ = {k: v for k, v in os.environ.items() if not k.startswith("ATOLL_")}
        self._environ["ATOLL_HOME"] = str(self.home)

    def up(self) -> Client:
        """Start everything; return a client of it. Raises `Refused` with what the start said."""
        config = self.home / "demo.toml"
        config.write_text(CONFIG)
        self._atoll(
            "up",
            "--detach",
            "--listen",
            f"127.0.0.1:{self.port}",
            "--agent-slots",
            "cpu=2,memory=1GiB,disk=1GiB",
            "--config",
            str(config),
        )
        known = profile.load(self.home / "client.json")
        return Client(known.url, known.token, ca=known.ca)

    def down(self) -> None:
        """Stop everything."""
        self._atoll("down")

    def reclaim(self, provider: str, machine: str, *, notice: float) -> None:
        """Take a machine back, as the cloud's operator; raise `Refused` with what the pretend cloud said."""
        folder = self.home / "providers" / provider
        argv = [sys.executable, "-m", "providers.sim", str(folder), "reclaim", machine, "--notice", str(notice)]
        done = subprocess.run(argv, env=self._environ, capture_output=True, text=True, timeout=30, check=False)
        if done.returncode:
            raise Refused(f"the machine could not be reclaimed: {done.stderr.strip()[-300:]}")

    def processes(self) -> list[int]:
        """Return the ids of all processes that were started under this home, ours excepted."""
        return sorted(_under(self.home, os.getpid()))

    def wait_empty(self, seconds: float) -> list[int]:
        """Return the processes that are left after at most `seconds`."""
        limit = time.monotonic() + seconds
        while (left := self.processes()) and time.monotonic() < limit:
            time.sleep(0.1)
        return left

    def kill(self) -> None:
        """End what is left, by id: each was started under this home."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        self.wait_empty(5)

    def remove(self) -> bool:
        """Remove the folder; say whether it is gone."""
        shutil.rmtree(self.home, ignore_errors=True)
        return not self.home.exists()

    def _atoll(self, *words: str) -> None:
        # Output goes to a file: a pipe would stay open in the processes that live on.
        told = self.home / f"{words[0]}.out"
        with told.open("wb") as out:
            code = subprocess.run(
                [sys.executable, "-m", "atoll", *words],
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                timeout=60,
                check=False,
            ).returncode
        if code:
            raise Refused(f"`atoll {words[0]}` failed: {told.read_text(errors='replace').strip()[-500:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _under(home: Path, own: int) -> Iterator[int]:
    mark = os.fsencode(home)
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == own:
            continue
        with contextlib.suppress(OSError):
            # A zombie has neither any more: it is over, its parent only has not looked yet.
            if mark in (entry / "cmdline").read_bytes() or mark in (entry / "environ").read_bytes():
                yield int(entry.name)
