"""How long a launched machine may live without a word from its agent: the file that its dead-man reads."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

MARGIN_S = 30.0
"""The dead-man comes this much after the agent's own end of the machine, which it leaves time for: grace and logs."""
_UPTIME = Path("/proc/uptime")


class Deadline(Protocol):
    """What ends this machine from outside the agent, unless the agent puts it off."""

    def put_off(self, seconds: float) -> None:
        """Let the machine live that many seconds from now, plus a margin. Raises `OSError`."""
        ...


def uptime() -> float:
    """Return the seconds since this machine's boot, on the clock the dead-man reads."""
    return float(_UPTIME.read_text().split()[0])


class DeadlineFile:
    """`federation/control/boot.sh` reads the file: a whole second of `/proc/uptime`, in a line of one width."""

    def __init__(self, path: Path, clock: Callable[[], float] = uptime) -> None:
        self._path = path
        self._clock = clock

    def put_off(self, seconds: float) -> None:
        """See `Deadline`."""
        self._write(int(self._clock() + seconds + MARGIN_S))

    def over(self) -> None:
        """Let the machine end now. Raises `OSError`."""
        self._write(0)

    def _write(self, second: int) -> None:
        # In place and of one width: a full disk takes it, and a reader sees the old or the new line.
        with self._path.open("r+b" if self._path.exists() else "wb", buffering=0) as file:
            file.write(b"%-19d\n" % second)
