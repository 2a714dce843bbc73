"""One at a time on this machine: a lock per intent, so that two of its processes do not race at the cloud."""

import asyncio
import fcntl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from atoll.clock import Clock
from providers.errors import Unknown

POLL_S = 0.1


@asynccontextmanager
async def turn(path: Path, clock: Clock, limit_s: float) -> AsyncIterator[None]:
    """Wait for the lock file's lock and hold it; raise `Unknown` when it stays taken for `limit_s` seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = clock.monotonic() + limit_s
    with path.open("w") as file:
        while not _taken(file.fileno()):
            if clock.monotonic() > deadline:
                raise Unknown("another process of this machine has been creating it for too long")
            await asyncio.sleep(POLL_S)
        yield
        # The file stays: whoever waits holds it open, and a removed one would let two in at once.


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
