"""Two connections joined in the kernel: bytes, ends, slow readers, and no descriptor left behind."""

import asyncio
import contextlib
import hashlib
import os
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from tests.tunnel.ends import until
from tunnel import passthrough
from tunnel.passthrough import PARTING_S, Passthrough


class Side(asyncio.Protocol):
    """The middle's end of one connection: a byte that comes here came past the kernel."""

    def __init__(self) -> None:
        self.joined: Passthrough | None = None
        self.got = b""
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.got += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if self.joined is not None:
            self.joined.close()


class Middle:
    """Two connections over TCP and what joins them; `left` and `right` are the sockets at their far ends."""

    def __init__(self) -> None:
        self.sides = [Side(), Side()]
        self.moved = [0, 0]

    async def connect(self, local: bool = False) -> list[socket.socket]:
        """Connect both; the first may be what comes out of a WebSocket: a `local` pair."""
        loop = asyncio.get_running_loop()
        ends = []
        for number, side in enumerate(self.sides):
            if local and not number:
                far, near = socket.socketpair()
            else:
                with socket.create_server(("127.0.0.1", 0)) as listener:
                    far = socket.create_connection(listener.getsockname())
                    near, _ = listener.accept()
            far.setblocking(False)
            near.setblocking(False)
            await loop.connect_accepted_socket(lambda side=side: side, near)  # type: ignore[misc]
            ends.append(far)
        return ends

    def join(self, parting_s: float) -> None:
        def moved(there: int, back: int) -> None:
            self.moved[0] += there
            self.moved[1] += back

        joined = Passthrough(self.sides[0].transport, self.sides[1].transport, moved, parting_s=parting_s)
        for side in self.sides:
            side.joined = joined
        joined.start()

    @property
    def over(self) -> bool:
        return all(side.lost for side in self.sides)


def descriptors() -> int:
    """How many sockets and pipes are open but for the spare pipes, which stay."""
    kinds = []
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # that of the listing itself is gone
            kinds.append(str(each.readlink()).partition(":")[0])
    return kinds.count("socket") + kinds.count("pipe") - 2 * len(passthrough._Pipe._spare)


@contextlib.asynccontextmanager
async def joined(
    words: bytes = b"", parting_s: float = PARTING_S, local: bool = False
) -> AsyncIterator[tuple[Middle, socket.socket, socket.socket]]:
    before = descriptors()
    middle = Middle()
    left, right = await middle.connect(local)
    try:
        if words:
            middle.sides[1].transport.write(words)
        middle.join(parting_s)
        yield middle, left, right
    finally:
        left.close()
        right.close()
        await until(lambda: middle.over)
        assert [side.got for side in middle.sides] == [b"", b""]
    await until(lambda: descriptors() <= before)


async def digest(connection: socket.socket) -> str:
    loop, seen = asyncio.get_running_loop(), hashlib.sha256()
    while data := await loop.sock_recv(connection, 65536):
        seen.update(data)
    return seen.hexdigest()


async def send(connection: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(connection, data)
    connection.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("local", [False, True])
def test_bytes_go_both_ways_at_once_and_end(runner: asyncio.Runner, local: bool) -> None:
    async def main() -> None:
        there, back = os.urandom(9_000_001), os.urandom(5_000_003)
        async with joined(local=local) as (middle, left, right), asyncio.timeout(30):
            _, _, got, answer = await asyncio.gather(send(left, there), send(right, back), digest(right), digest(left))
            assert got == hashlib.sha256(there).hexdigest()
            assert answer == hashlib.sha256(back).hexdigest()
            await until(lambda: middle.over)
            assert middle.moved == [len(there), len(back)]

    runner.run(main())


@pytest.mark.parametrize("size", [7, 20_000_000])
def test_what_was_written_before_comes_first(runner: asyncio.Runner, size: int) -> None:
    async def main() -> None:
        words = os.urandom(size)  # the larger one does not fit into the kernel's buffers
        async with joined(words) as (_, left, right), asyncio.timeout(30):
            await send(left, b"hello")
            assert await digest(right) == hashlib.sha256(words + b"hello").hexdigest()

    runner.run(main())


def test_a_reader_that_does_not_read_stops_the_sender(runner: asyncio.Runner) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        data = os.urandom(64_000_000)
        async with joined() as (middle, left, right), asyncio.timeout(60):
            sending = loop.create_task(send(left, data))
            moved = -1
            while moved < middle.moved[0]:  # until it moves no more
                moved = middle.moved[0]
                await asyncio.sleep(0.2)
            assert not sending.done()
            assert moved < len(data) / 2  # what the kernel's buffers hold, and one pipe
            await loop.sock_sendall(right, b"still there")  # the other direction is not held up
            assert await loop.sock_recv(left, 100) == b"still there"
            assert await digest(right) == hashlib.sha256(data).hexdigest()
            await sending

    runner.run(main())


@pytest.mark.parametrize("way", ["reset", "aborted", "closed"])
def test_what_breaks_one_side_ends_the_other(runner: asyncio.Runner, way: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with joined() as (middle, left, right), asyncio.timeout(30):
            await loop.sock_sendall(left, b"hello")
            assert await loop.sock_recv(right, 100) == b"hello"
            if way == "reset":
                left.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                left.close()
            elif way == "aborted":
                middle.sides[0].transport.abort()
                middle.sides[1].transport.abort()
            else:
                left.close()
            with contextlib.suppress(ConnectionResetError):
                assert await loop.sock_recv(right, 100) == b""
            right.close()
            await until(lambda: middle.over)

    runner.run(main())


async def test_a_side_that_does_not_end_when_the_other_has_is_ended() -> None:
    async with joined(parting_s=0.05) as (middle, left, right):
        left.shutdown(socket.SHUT_WR)
        assert await asyncio.get_running_loop().sock_recv(right, 100) == b""
        await until(lambda: middle.over)
        assert await asyncio.get_running_loop().sock_recv(left, 100) == b""
