"""Processes of a benchmark: started with the say of where, asked for one line, timed by the kernel, ended by id."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.processes import alive, family

ROOT = Path(__file__).resolve().parent.parent
_READY_S = 60.0


@dataclass(frozen=True)
class Place:
    """Where a process runs: the command in front of its own, and the address it has there."""

    host: str = "127.0.0.1"
    prefix: tuple[str, ...] = ()


LOOPBACK = Place()


class Process:
    """A process with its family. It ends with its `with` block, or when this process does (its input ends then)."""

    def __init__(self, argv: Sequence[str], place: Place = LOOPBACK) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `__exit__`
        self._running = subprocess.Popen(
            [*place.prefix, *argv], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
        )

    @classmethod
    def python(cls, module: str, *arguments: object, place: Place = LOOPBACK) -> "Process":
        """Start a module of ours."""
        return cls([sys.executable, "-m", module, *map(str, arguments)], place)

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._errors.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._running.pid

    def line(self) -> str:
        """Return the next line it prints; raise with its errors where it prints none."""
        assert self._running.stdout
        line = self._running.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._running.args!r} ended: {self.errors()}")
        return line.decode().strip()

    def answer(self) -> Any:
        """Return the next line, which is JSON."""
        return json.loads(self.line())

    def tell(self, order: dict[str, Any]) -> None:
        """Give it a line of JSON."""
        assert self._running.stdin
        self._running.stdin.write(json.dumps(order).encode() + b"\n")
        self._running.stdin.flush()

    def ask(self, **order: Any) -> dict[str, Any]:
        """Give an order and return the answer; raise when it failed."""
        self.tell(order)
        answer: dict[str, Any] = self.answer()
        if "failed" in answer:
            raise RuntimeError(f"{order}: {answer['failed']}")
        return answer

    def signal(self, number: int) -> None:
        """Send it (alone) a signal."""
        os.kill(self.pid, number)

    def errors(self) -> str:
        """Return the end of what it wrote to standard error."""
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - 2000))
        return self._errors.read().decode(errors="replace")

    def cpu(self) -> float:
        """Return the processor seconds that its living family has used so far."""
        return cpu_of(self.pid)

    def running(self) -> bool:
        """Whether it still runs."""
        return self._running.poll() is None

    def kill(self) -> None:
        """`kill -9`, its descendants too, one by one; wait until they are gone."""
        pids = family(self.pid) if self.running() else []
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pipe in (self._running.stdin, self._running.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._running.wait(10)
        until(lambda: not any(map(alive, pids)), "processes to end", 10)


def until(condition: Any, what: str, seconds: float = _READY_S) -> None:
    """Wait for a condition; raise when it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(0.01)


def cpu_of(pid: int) -> float:
    """Return the processor seconds that a process and its living descendants have used so far."""
    total = 0
    for one in family(pid):
        for task in Path(f"/proc/{one}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):
                total += int(task.read_text().split()[0])
    return total / 1e9
