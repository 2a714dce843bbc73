"""Processes of the stack: each recorded by its pid below the stack's folder, ended by it, and bounded in time."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

END_S = 15.0


class Processes:
    """Processes with their pids and start times below `folder`, so that no other is ever taken for one.

    `bound` ones get TERM when the thread that started them dies, however it dies.
    """

    def __init__(self, folder: Path, *, bound: bool = False) -> None:
        self._folder = folder
        self._pids = folder / "pids"
        self._prefix = ["setpriv", "--pdeathsig", "TERM"] if bound else []
        self._started: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, name: str, argv: Sequence[str], environment: Mapping[str, str], cwd: Path) -> None:
        self._pids.mkdir(exist_ok=True)
        with (self._folder / f"{name}.out").open("ab") as out:
            process = subprocess.Popen(
                [*self._prefix, *argv],
                cwd=cwd,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self._started[process.pid] = process
        (self._pids / name).write_text(f"{process.pid} {_born(process.pid)}")

    def until(self, what: str, condition: Callable[[], bool], limit_s: float) -> None:
        """Wait for a condition; raise with the end of the logs where a process dies or time is up."""
        deadline = time.monotonic() + limit_s
        while not condition():
            dead = [name for name, pid, born in self._recorded() if not self._alive(pid, born)]
            if dead or time.monotonic() > deadline:
                raise RuntimeError(f"{what}: {f'{dead} ended' if dead else 'not in time'}\n{self._logs(dead)}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End all, in the reverse order of their start."""
        for name, pid, born in reversed(self._recorded()):
            sent, deadline = signal.SIGTERM, time.monotonic() + END_S
            while self._alive(pid, born):
                with suppress(ProcessLookupError):
                    os.kill(pid, sent)
                if time.monotonic() > deadline:
                    sent = signal.SIGKILL
                time.sleep(0.05)
            (self._pids / name).unlink()
        for process in self._started.values():
            process.wait(END_S)

    def alive(self) -> list[int]:
        return [pid for _, pid, born in self._recorded() if self._alive(pid, born)]

    def _recorded(self) -> list[tuple[str, int, str]]:
        files = sorted(self._pids.iterdir(), key=lambda path: path.stat().st_mtime_ns) if self._pids.exists() else []
        told = [(path.name, path.read_text().split()) for path in files]
        return [(name, int(pid), born) for name, (pid, born) in told]

    def _alive(self, pid: int, born: str) -> bool:
        if pid in self._started:
            return self._started[pid].poll() is None
        return _born(pid) == born

    def _logs(self, names: Sequence[str]) -> str:
        paths = [self._folder / f"{name}.out" for name in names] or sorted(self._folder.glob("*.out"))
        paths += sorted(self._folder.glob("*.log"))
        return "\n".join(f"--- {path}\n{path.read_text(errors='replace')[-1500:]}" for path in paths)


def _born(pid: int) -> str:
    """Return when a process was started, in clock ticks since boot; "" when it is gone.

    Not its environment: neutron writes its title over that.
    """
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state in "ZX" else fields[18]
