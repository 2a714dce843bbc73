"""Files written whole or not at all, readable by their owner only."""

import contextlib
import os
from pathlib import Path

from atoll.errors import Refused


def write_private(path: Path, data: str | bytes) -> None:
    """Replace `path` by `data` in one step, mode 0600, its folder (0700) made where missing.

    A reader sees the old or the new content, never a part. Raises `Refused` naming what the machine
    does not allow: read-only or full file system, missing rights.
    """
    raw = data.encode() if isinstance(data, str) else data
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)
            file.write(raw)
            file.flush()
            os.fsync(descriptor)
        fresh.replace(path)
        _write_out(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise refused(path, error) from error


def _write_out(folder: Path) -> None:
    """Make the names in a folder durable, where the file system knows of that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def refused(path: Path, error: OSError) -> Refused:
    """Return the error a person should see when the machine does not let Atoll write `path`."""
    return Refused(
        f"cannot write {path}: {(error.strerror or str(error)).lower()}",
        hint="point ATOLL_HOME to a folder that you may write and that has space left",
    )
