"""What the running process takes of its machine: memory, CPU time, descriptors; and how late its event loop is."""

import asyncio
import os
import resource
from collections.abc import Callable
from pathlib import Path

LAG_EVERY_S = 0.5


def memory() -> int:
    """Return the bytes of memory that are resident."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def cpu_seconds() -> float:
    """Return the seconds of CPU time used so far, by the kernel for this process too."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def descriptors() -> int:
    """Return how many file descriptors are open."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names alone, of a folder that changes meanwhile


class LoopLag:
    """Tells, every `LAG_EVERY_S`, how many seconds late the running loop called what was due."""

    def __init__(self, tell: Callable[[float], None]) -> None:
        self._tell = tell
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin, on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._arm()

    def stop(self) -> None:
        """End; well if it never began."""
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        due = self._loop.time() + LAG_EVERY_S
        self._timer = self._loop.call_at(due, self._late, due)

    def _late(self, due: float) -> None:
        self._tell(max(0.0, self._loop.time() - due))
        self._arm()
