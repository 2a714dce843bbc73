"""Session output in files, one per run and channel: `<directory>/<session>/<attempt>.<rank>.<channel>`.

A write is in the kernel at once and returns when it is on the disk: neither the end of the process nor a
power cut loses what was acknowledged. The disk is asked in a few threads (`fdatasync` can take long), once
for all the writes to a file that came meanwhile: many small chunks cost about as much as few.
"""

import asyncio
import os
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from atoll.errors import Invalid
from atoll.ids import split_run_id
from federation.store.disk import of_os

CHANNELS = ("out", "err")
_FILES_OPEN = 128
_SYNC_THREADS = 4


@dataclass(eq=False, slots=True)
class _File:
    """An open log: bytes below `durable` are on the disk, those below `size` in the kernel.

    `users` counts who works with it now: it stays open for them.
    """

    path: Path
    fd: int
    size: int
    durable: int = 0
    users: int = 0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class FileLogs:
    """A `LogStore` in a directory. Reads and writes are short and stay on the event loop; syncs do not."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: OrderedDict[Path, _File] = OrderedDict()
        self._threads = ThreadPoolExecutor(_SYNC_THREADS, thread_name_prefix="logs")

    async def size(self, run: str, channel: str) -> int:
        """Return how many bytes are kept durably. Raises `Unavailable` where the disk fails."""
        path = self._path(run, channel)
        if path not in self._files and not path.exists():
            return 0
        file = self._open(path)
        return await self._durable(file, file.size)

    async def write(self, run: str, channel: str, offset: int, data: bytes) -> int:
        """Keep `data` at `offset`; return the new durable size.

        Bytes below the size are ignored; a gap is filled with one line and padded with NULs that take no
        space. Raises `Unavailable` where the disk is full or fails, with the log as it was.
        """
        file = self._open(self._path(run, channel))
        before = file.size
        fresh = data[max(0, before - offset) :]
        if fresh or offset > before:
            try:
                if offset > before:
                    _write(file, gap_line(offset - before), before)
                    os.ftruncate(file.fd, offset)
                _write(file, fresh, max(offset, before))
            except OSError as error:
                os.ftruncate(file.fd, before)
                raise of_os(error, str(file.path)) from error
            file.size = max(offset, before) + len(fresh)
        return await self._durable(file, file.size)

    async def read(self, run: str, channel: str, offset: int, limit: int) -> bytes:
        """Return up to `limit` bytes from `offset`; empty at the end."""
        path = self._path(run, channel)
        try:
            with path.open("rb", buffering=0) as file:
                return os.pread(file.fileno(), limit, offset)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise of_os(error, str(path)) from error

    async def close(self) -> None:
        """Sync and close all files."""
        for file in list(self._files.values()):
            await self._durable(file, file.size)
            os.close(file.fd)
        self._files.clear()
        self._threads.shutdown()

    def _path(self, run: str, channel: str) -> Path:
        session, attempt, rank = split_run_id(run)
        if channel not in CHANNELS or "/" in session or "\0" in session:
            raise Invalid(f"there is no log {channel!r} of run {run!r}")
        return self._directory / session / f"{attempt}.{rank}.{channel}"

    def _open(self, path: Path) -> _File:
        file = self._files.get(path)
        if file is None:
            try:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise of_os(error, str(path)) from error
            # What an earlier process wrote may not be on the disk yet: durable begins at 0.
            file = self._files[path] = _File(path, fd, os.fstat(fd).st_size)
            self._close_idle()
        self._files.move_to_end(path)
        return file

    def _close_idle(self) -> None:
        for path, file in list(self._files.items())[: max(0, len(self._files) - _FILES_OPEN)]:
            if not file.users and file.durable == file.size:
                os.close(file.fd)
                del self._files[path]

    async def _durable(self, file: _File, size: int) -> int:
        """Wait until `size` bytes are on the disk; return how many are."""
        file.users += 1
        try:
            async with file.turn:
                if file.durable < size:
                    await self._sync(file)
            return file.durable
        finally:
            file.users -= 1

    async def _sync(self, file: _File) -> None:
        size = file.size
        loop = asyncio.get_running_loop()
        syncing = loop.run_in_executor(self._threads, _to_disk, file.fd, file.path.parent, file.durable == 0)
        try:
            await asyncio.shield(syncing)
        except OSError as error:
            # The kernel forgets what it could not write: only what was on the disk before still counts.
            file.size = file.durable
            os.ftruncate(file.fd, file.durable)
            raise of_os(error, str(file.path)) from error
        file.durable = size


def gap_line(count: int) -> bytes:
    """Return the line that stands where `count` bytes were dropped, at most that long."""
    line = f"[atoll: {count} bytes of output were dropped here]\n".encode()
    return line if len(line) <= count else line[: count - 1] + b"\n"


def _write(file: _File, data: bytes, offset: int) -> None:
    while data:
        done = os.pwrite(file.fd, data, offset)
        data, offset = data[done:], offset + done


def _to_disk(fd: int, directory: Path, new: bool) -> None:
    os.fdatasync(fd)
    if not new:
        return
    for path in (directory, directory.parent):
        entry = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(entry)
        finally:
            os.close(entry)
