"""One at a time on this machine: a lock per intent, so that two of its processes do not race at the cloud."""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TextIO

from atoll.clock import Clock
from providers.errors import Unknown

POLL_S = 0.1


@asynccontextmanager
async def turn(path: Path, clock: Clock, limit_s: float) -> AsyncIterator[None]:
    """Wait for the lock file's lock and hold it; raise `Unknown` when it stays taken for `limit_s` seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = clock.monotonic() + limit_s
    while (file := _taken(path)) is None:
        if clock.monotonic() > deadline:
            raise Unknown("another process of this machine has been creating it for too long")
        await asyncio.sleep(POLL_S)
    with file:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)  # before the lock goes: whoever gets it then sees that its file is gone


def _taken(path: Path) -> TextIO | None:
    """Return the file, locked; None while somebody else has it."""
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
    except (BlockingIOError, FileNotFoundError):
        pass
    file.close()
    return None
