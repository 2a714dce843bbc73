"""A guest: a process that a user starts beside a run, as a part of it, by way of the run's shim."""

import asyncio
import contextlib
import os
import signal
import socket
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.runtime import shim

ANSWER_S = 5.0
"""A shim that does not answer for this long is taken for stuck."""
_CREDENTIALS = struct.Struct("3i")


class ShimGuest:
    """A guest that a shim started; see `agent.runtime.port.Guest`."""

    def __init__(self, pid: int, shim_pid: int, connection: socket.socket, early: bytes) -> None:
        self.pid = pid
        self._shim = shim_pid
        self._connection = connection
        self._early = early
        self._over = False

    async def ended(self) -> int:
        """Wait for the end; see the port."""
        loop = asyncio.get_running_loop()
        told = self._early
        while b"\n" not in told:
            data = await loop.sock_recv(self._connection, 64)
            if not data:
                told = b"%d\n" % -signal.SIGKILL  # the run ended, and its shim with all of it
            told += data
        self._over = True
        return int(told)

    def signal(self, number: int) -> None:
        """Send its process group a signal; see the port."""
        if not self._over:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def leave(self) -> None:
        """Want it no more; see the port."""
        self._connection.close()
        if not self._over:  # else its shim, too, may be gone, and its id another's
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self._shim, shim.ENTER)


async def enter(
    folder: Path, shim_pid: int, argv: Sequence[str], env: Mapping[str, str], descriptors: Sequence[int], *, tty: bool
) -> ShimGuest:
    """Let the shim of the run in `folder` start a guest; one at a time for each run. Raises `OSError`."""
    loop = asyncio.get_running_loop()
    with _listener(folder) as listener:
        os.kill(shim_pid, shim.ENTER)
        try:
            async with asyncio.timeout(ANSWER_S):
                connection = await _accept(loop, listener, shim_pid)
                try:
                    words = ["tty" if tty else "", str(len(argv)), *argv, *(f"{k}={v}" for k, v in env.items())]
                    order = os.fsencode("\0".join(words))
                    if len(order) > shim.ORDER_LIMIT:
                        raise OSError(0, "the command is too long")
                    socket.send_fds(connection, [len(order).to_bytes(4, "big")], list(descriptors))
                    await loop.sock_sendall(connection, order)
                    pid, early = await _answer(loop, connection)
                except BaseException:
                    connection.close()
                    raise
        except TimeoutError:
            raise OSError(0, "the run's supervisor does not answer") from None
    return ShimGuest(pid, shim_pid, connection, early)


class _listener:
    """The socket `enter` in a run's folder, there while it is listened on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> socket.socket:
        self._directory = os.open(self._folder, os.O_RDONLY)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            path = f"/proc/self/fd/{self._directory}/enter"  # a socket's own path may be too long
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)  # noqa: PTH108
            self._socket.setblocking(False)
            self._socket.bind(path)
            self._socket.listen(1)
        except OSError:
            self.__exit__()
            raise
        return self._socket

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            os.unlink("enter", dir_fd=self._directory)
        self._socket.close()
        os.close(self._directory)


async def _accept(loop: asyncio.AbstractEventLoop, listener: socket.socket, shim_pid: int) -> socket.socket:
    """Return the shim's connection; anyone else of this machine is turned away."""
    while True:
        connection, _ = await loop.sock_accept(listener)
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        if _CREDENTIALS.unpack(raw)[0] == shim_pid:
            return connection
        connection.close()


async def _answer(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> tuple[int, bytes]:
    """Return the guest's pid, and what came behind it."""
    told = b""
    while b"\n" not in told:
        data = await loop.sock_recv(connection, 64)
        if not data:
            raise OSError(0, "the run's supervisor could not start it")
        told += data
    line, _, rest = told.partition(b"\n")
    return int(line), rest
