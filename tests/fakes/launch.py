"""Starting real processes in tests, and being sure that none is left."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


class Launcher:
    """A `launch` for drivers that remembers what it started."""

    def __init__(self) -> None:
        self.started: list[subprocess.Popen[bytes]] = []

    def __call__(self, argv: Sequence[str], cwd: Path, env: Mapping[str, str]) -> int:
        process = subprocess.Popen(
            list(argv),
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.started.append(process)
        return process.pid

    def close(self) -> None:
        """End and collect everything that was started."""
        for process in self.started:
            process.kill()
            process.wait()


def processes_below(folder: Path) -> list[int]:
    """Return the live processes that name `folder` in their environment or command line."""
    mark = str(folder).encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            told = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if mark in told and state not in "ZX":
            found.append(int(entry.name))
    return found
