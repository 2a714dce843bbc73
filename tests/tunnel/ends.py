"""Ends of links and streams that write down what happens to them."""

import asyncio
import hashlib
import random
from collections.abc import Callable

from tunnel import wire
from tunnel.link import Link
from tunnel.resumable import ResumableTransport
from tunnel.stream import StreamTransport


async def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait for a condition; fail when it does not come true in time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not condition():
        assert loop.time() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.002)


class SeededChance:
    """Chance from a seed."""

    def __init__(self, seed: int = 1) -> None:
        self._random = random.Random(seed)

    def token_bytes(self, count: int) -> bytes:
        return self._random.randbytes(count)

    def uniform(self, low: float, high: float) -> float:
        return self._random.uniform(low, high)


class Owner:
    """A link owner that remembers."""

    def __init__(self, serve: Callable[[wire.OpenStream], asyncio.Protocol | None] | None = None) -> None:
        self.links: list[Link] = []
        self.messages: list[wire.FromAgent | wire.FromControl] = []
        self.losses: list[str] = []
        self.lost_at = 0.0
        self._serve = serve

    @property
    def link(self) -> Link:
        return self.links[-1]

    def linked(self, link: Link) -> None:
        self.links.append(link)

    def received(self, link: Link, message: wire.FromAgent | wire.FromControl) -> None:
        self.messages.append(message)

    def stream_opened(self, link: Link, opening: wire.OpenStream) -> asyncio.Protocol | None:
        return self._serve(opening) if self._serve else None

    def lost(self, link: Link, reason: str) -> None:
        self.losses.append(reason)
        self.lost_at = asyncio.get_running_loop().time()


class Recorder(asyncio.Protocol):
    """A stream's user: counts and hashes what it gets."""

    transport: StreamTransport | ResumableTransport

    def __init__(self, *, half_open: bool = True, slow: bool = False) -> None:
        self.half_open = half_open
        self.slow = slow
        self.size = 0
        self.digest = hashlib.sha256()
        self.tail = b""
        self.ended = False
        self.lost = False
        self.error: Exception | None = None
        self.writable = asyncio.Event()
        self.writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, StreamTransport | ResumableTransport)
        self.transport = transport
        if self.slow:
            transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        self.size += len(data)
        self.digest.update(data)
        self.tail = (self.tail + data)[-4096:]

    def eof_received(self) -> bool:
        self.ended = True
        return self.half_open

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        assert not self.lost, "connection_lost twice"
        self.lost = True
        self.error = exc
        self.writable.set()


class Echo(Recorder):
    """Sends everything back, held up when its transport is; ends when the peer does."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.transport.write(data)

    def eof_received(self) -> bool:
        super().eof_received()
        return False

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()
