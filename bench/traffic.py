"""The traffic of the tunnel's benchmark, the same for all contenders: a server, and a load that measures what it gets.

`python -m bench.traffic serve HOST` prints its port; `python -m bench.traffic load` reads one order a line (JSON) and
answers in kind. Both can be told the kernel's congestion control, by name, for what they send. A connection begins with
a letter: `E` echoes what follows; `U` and `D`, each with a length and answered by `!`, take so many bytes and then say
so, or give them on a further byte.
"""

import asyncio
import hashlib
import json
import math
import os
import random
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, cast

import uvloop

from bench.processes import cpu_of

BLOCK = 256 * 1024
_HEAD = struct.Struct("!cQ")
_WAIT_S = 60.0
GAP_S = 0.01
"""A digest run writes down every pause of the echo that is longer than this."""


class Served(asyncio.BufferedProtocol):
    """One connection of the server."""

    _block = bytes(BLOCK)
    _buffer = memoryview(bytearray(BLOCK))  # of all: what was read is used before anybody else reads

    def __init__(self) -> None:
        self._mode = b""
        self._head = b""
        self._left = 0
        self._writable = True
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=2 * BLOCK)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        """Read here."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came."""
        if self._mode == b"U":
            self._took(nbytes)
        elif self._mode == b"E":
            self._transport.write(bytes(self._buffer[:nbytes]))
        elif self._mode == b"D":
            self._give()
        else:
            self._begin(bytes(self._buffer[:nbytes]))

    def pause_writing(self) -> None:
        """Give no more, and echo no more."""
        self._writable = False
        if self._mode == b"E":
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        self._writable = True
        if self._mode == b"E":
            self._transport.resume_reading()
        self._give()

    def _begin(self, data: bytes) -> None:
        self._head += data
        if self._head[:1] == b"E":
            self._mode, rest = b"E", self._head[1:]
            if rest:
                self._transport.write(rest)
        elif len(self._head) >= _HEAD.size:
            self._mode, self._left = _HEAD.unpack(self._head[: _HEAD.size])
            self._transport.write(b"!")

    def _took(self, count: int) -> None:
        self._left -= count
        if not self._left:
            self._transport.write(b"!")

    def _give(self) -> None:
        while self._mode == b"D" and self._left and self._writable and not self._transport.is_closing():
            size = min(BLOCK, self._left)
            self._left -= size
            self._transport.write(self._block if size == BLOCK else self._block[:size])


async def serve(host: str, congestion: str = "") -> None:
    """Serve until standard input ends."""
    listening = socket.create_server((host, 0), backlog=4096)
    control(listening, congestion)  # what it accepts inherits it
    server = await asyncio.get_running_loop().create_server(Served, sock=listening, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


def control(connection: socket.socket, congestion: str) -> None:
    """Set what controls congestion for bytes that leave by this socket; "" leaves the kernel's default."""
    if congestion:
        connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, "TCP_CONGESTION", 13), congestion.encode())


def connect(host: str, port: int, congestion: str = "") -> socket.socket:
    """Return a connection; it waits for nothing longer than a minute."""
    connection = socket.create_connection((host, port), timeout=_WAIT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    control(connection, congestion)
    return connection


def _expect(connection: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size:
        part = connection.recv(size - len(got))
        if not part:
            raise ConnectionError("the stream ended early")
        got += part
    return got


class Bulk:
    """Many bytes on several streams, one way: every stream is open before the clock starts.

    What comes down may be cut off after `most` seconds; `moved` counts the bytes, `cpu` the processor seconds that the
    processes `relays` used for them.
    """

    def __init__(self, order: dict[str, Any]) -> None:
        self._mode, self._size = order["mode"], order["bytes"] // order["streams"]
        self._most = float(order.get("most", math.inf))
        congestion = order.get("congestion", "")
        self._streams = [connect(order["host"], order["port"], congestion) for _ in range(order["streams"])]
        self._relays = order.get("relays", ())
        self.moved = 0
        self.cpu = 0.0
        self._failures: list[Exception] = []

    def run(self) -> float:
        """Return the seconds until all has arrived, or was cut off."""
        for stream in self._streams:
            stream.sendall(_HEAD.pack(self._mode.encode(), self._size))
        for stream in self._streams:
            _expect(stream, 1)
        threads = [threading.Thread(target=self._one, args=(stream,)) for stream in self._streams]
        self.cpu -= sum(map(cpu_of, self._relays))
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.perf_counter() - began
        self.cpu += sum(map(cpu_of, self._relays))
        for stream in self._streams:
            stream.close()
        if self._failures:
            raise self._failures[0]
        return took

    def _one(self, stream: socket.socket) -> None:
        try:
            (self._up if self._mode == "U" else self._down)(stream)
        except OSError as error:
            self._failures.append(error)

    def _up(self, stream: socket.socket) -> None:
        block, left = memoryview(bytes(BLOCK)), self._size
        while left:
            left -= stream.send(block[: min(BLOCK, left)])
        _expect(stream, 1)
        self.moved += self._size

    def _down(self, stream: socket.socket) -> None:
        block, left = memoryview(bytearray(BLOCK)), self._size
        deadline = time.perf_counter() + self._most
        stream.sendall(b"!")
        while left:
            got = stream.recv_into(block)
            if not got:
                raise ConnectionError("the stream ended early")
            left -= got
            if time.perf_counter() > deadline:
                break
        self.moved += self._size - left


def bulk(order: dict[str, Any]) -> dict[str, Any]:
    """Move `bytes` over `streams` streams, `mode` U or D, for at most `most` seconds (D), by the processes `relays`."""
    moving = Bulk(order)
    return {"seconds": moving.run(), "bytes": moving.moved, "cpu": moving.cpu}


def echo(order: dict[str, Any]) -> dict[str, Any]:
    """Send `size` bytes `count` times, each when the one before is back."""
    data, times = b"x" * order["size"], []
    with connect(order["host"], order["port"]) as stream:
        stream.sendall(b"E")
        for number in range(-order["count"] // 10, order["count"]):
            began = time.perf_counter()
            stream.sendall(data)
            _expect(stream, len(data))
            if number >= 0:
                times.append(time.perf_counter() - began)
    times.sort()
    return {"p50": times[len(times) // 2], "p99": times[len(times) * 99 // 100]}


def opens(order: dict[str, Any]) -> dict[str, Any]:
    """For some seconds, `parallel` at a time: connect, two bytes there and back, close.

    The kernel's own poll and nothing above it: an event loop would cost as much as what is measured.
    """
    address, began = (order["host"], order["port"]), time.perf_counter()
    going: dict[int, tuple[socket.socket, float]] = {}
    times: list[float] = []

    def begin(poll: select.epoll) -> None:
        at, connection = time.perf_counter(), socket.socket()
        connection.connect(address)
        connection.sendall(b"Ehi")
        poll.register(connection, select.EPOLLIN)
        going[connection.fileno()] = connection, at

    with select.epoll() as poll:
        for _ in range(order["parallel"]):
            begin(poll)
        while going:
            ready = poll.poll(_WAIT_S)
            if not ready:
                raise TimeoutError("the streams stand still")
            for descriptor, _ in ready:
                connection, at = going.pop(descriptor)
                with connection:
                    _expect(connection, 2)
                times.append(time.perf_counter() - at)
                if time.perf_counter() < began + order["seconds"]:
                    begin(poll)
    times.sort()
    return {"count": len(times), "seconds": time.perf_counter() - began, "p50": times[len(times) // 2]}


def digest(order: dict[str, Any]) -> dict[str, Any]:
    """Echo random bytes, `rate` a second, until the next line comes; compare digests, write down the gaps."""
    with connect(order["host"], order["port"]) as stream:
        stream.sendall(b"E")
        reader, stop, failures = _Digest(stream), threading.Event(), list[str]()
        reader.start()
        writer = threading.Thread(target=_paced, args=(stream, order["rate"], stop, sent := _Sent(), failures))
        writer.start()
        sys.stdin.readline()
        stop.set()
        writer.join()
        reader.join(_WAIT_S)
    same = reader.size == sent.size and reader.digest.digest() == sent.digest.digest()
    return {"equal": same, "bytes": sent.size, "came": reader.size, "gaps": reader.gaps,
            "error": " ".join([*failures, reader.error])}  # fmt: skip


class _Sent:
    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.size = 0


def _paced(stream: socket.socket, rate: float, stop: threading.Event, sent: _Sent, failures: list[str]) -> None:
    chance, began = random.Random(5), time.monotonic()
    try:
        while not stop.is_set():
            if sent.size > (time.monotonic() - began) * rate:
                time.sleep(0.001)
                continue
            block = chance.randbytes(BLOCK // 8)
            stream.sendall(block)
            sent.digest.update(block)
            sent.size += len(block)
        stream.shutdown(socket.SHUT_WR)
    except OSError as error:
        failures.append(repr(error))


class _Digest(threading.Thread):
    def __init__(self, stream: socket.socket) -> None:
        super().__init__(daemon=True)
        self._stream = stream
        self.digest = hashlib.sha256()
        self.size = 0
        self.gaps: list[tuple[float, float]] = []
        self.error = ""

    def run(self) -> None:
        last = time.monotonic()
        try:
            while data := self._stream.recv(BLOCK):
                now = time.monotonic()
                if now - last > GAP_S:
                    self.gaps.append((last, now))
                last = now
                self.digest.update(data)
                self.size += len(data)
        except OSError as error:
            self.error = repr(error)


ORDERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "bulk": bulk,
    "echo": echo,
    "opens": opens,
    "digest": digest,
}


def load() -> None:
    """Carry out orders until standard input ends."""
    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer = ORDERS[order.pop("do")](order)
        except (OSError, ExceptionGroup) as error:
            answer = {"failed": repr(error)}
        print(json.dumps(answer), flush=True)


def main(argv: list[str]) -> None:
    """Run one of the two ends."""
    if argv[:1] == ["load"]:
        load()
        os._exit(0)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(*argv[1:]))


if __name__ == "__main__":
    main(sys.argv[1:])
