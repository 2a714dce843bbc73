"""Resumable streams over TLS and a proxy process that is killed or stopped under them."""

import asyncio
import contextlib
import hashlib
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.tunnel.conftest import join
from tests.tunnel.ends import Echo, SeededChance
from tunnel.identity import Authority
from tunnel.redial import RedialledTransport
from tunnel.resumable import ANSWER_S, QUIET_S
from tunnel.resumables import Resumables
from tunnel.wire import CONTROL_NAME

ID = b"0123456789abcdef"
ROOT = Path(__file__).parents[2]
BLOCK = bytes(range(256)) * 1024
START_S = 10.0


class Proxy:
    """A relay of bytes in a process of its own."""

    def __init__(self, target: int, port: int = 0) -> None:
        self.target = target
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.tunnel.proxy", str(port), str(target)], cwd=ROOT, stdout=subprocess.PIPE
        )
        self.port = port

    async def started(self) -> "Proxy":
        assert self.process.stdout is not None
        line = await asyncio.to_thread(self.process.stdout.readline)
        self.port = int(line)
        return self

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


class User(asyncio.Protocol):
    """Sends blocks, each numbered; checks what comes back by digest; measures the longest silence."""

    def __init__(self, size: int) -> None:
        self.left = size
        """Bytes yet to be sent in all."""
        self.allowed = size
        """Bytes that may be sent now."""
        self.sent, self.got = hashlib.sha256(), hashlib.sha256()
        self.size = 0
        self.heard = time.monotonic()
        self.silences: list[float] = []
        self.writable = True
        self.error: Exception | None = None
        self.done = asyncio.Event()
        self.number = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, RedialledTransport)
        self.transport = transport

    def send(self) -> None:
        while self.writable and self.allowed > 0 and self.left > 0:
            block = self.number.to_bytes(8, "big") + BLOCK[8:]
            self.number += 1
            self.left -= len(block)
            self.allowed -= len(block)
            self.sent.update(block)
            self.transport.write(block)
        if self.left <= 0:
            self.transport.write_eof()

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self.send()

    def data_received(self, data: bytes) -> None:
        self.got.update(data)
        self.size += len(data)
        now = time.monotonic()
        self.silences.append(now - self.heard)
        self.heard = now

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.error = exc
        self.done.set()


@contextlib.asynccontextmanager
async def agent(server: ssl.SSLContext) -> AsyncIterator[int]:
    """Serve the stream on a free port."""
    table = Resumables()
    served = await asyncio.get_running_loop().create_server(
        lambda: table.lane(ID, "run", Echo), "127.0.0.1", 0, ssl=server
    )
    try:
        yield served.sockets[0].getsockname()[1]
    finally:
        table.close("test over")
        served.close()
        await served.wait_closed()
        await asyncio.sleep(0.05)


def dialer(client: ssl.SSLContext, port: Callable[[], int]) -> Callable[[Callable[[], asyncio.Protocol]], object]:
    async def dial(make: Callable[[], asyncio.Protocol]) -> None:
        loop = asyncio.get_running_loop()
        await loop.create_connection(make, "127.0.0.1", port(), ssl=client, server_hostname=CONTROL_NAME)

    return dial


@pytest.fixture
def contexts(authority: Authority, tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    identity = join(authority, tmp_path, "https://127.0.0.1:1")
    server = authority.http_context()
    server.set_alpn_protocols([])
    client = identity.context()
    client.set_alpn_protocols([])
    return server, client


def test_a_large_echo_outlives_proxies_that_are_killed(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], runner: asyncio.Runner
) -> None:
    kills = 5

    async def main() -> None:
        stock = isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop)
        part = (6 if stock else 34) * 1024 * 1024
        async with agent(contexts[0]) as target:
            current, standby = await Proxy(target).started(), await Proxy(target).started()
            user = User((kills + 1) * part)
            user.allowed = 0
            stream = RedialledTransport(
                ID,
                dialer(contexts[1], lambda: current.port),  # type: ignore[arg-type]
                chance=SeededChance(),
            )
            stream.attach(user)
            stream.start()
            stalls: list[float] = []
            try:
                for kill in range(kills + 1):
                    user.allowed = part
                    user.silences.clear()
                    user.heard = time.monotonic()
                    user.send()
                    while user.size < kill * part + part // 2:
                        await asyncio.sleep(0.001)
                    if kill == kills:
                        break
                    current.kill()
                    current, standby = standby, Proxy(target)
                    while user.size < (kill + 1) * part:
                        await asyncio.sleep(0.01)
                    stalls.append(max(user.silences))
                    await standby.started()
                await asyncio.wait_for(user.done.wait(), 60)
            finally:
                current.kill()
                standby.kill()
            assert user.error is None
            assert user.size == (kills + 1) * part
            assert user.got.digest() == user.sent.digest()
            assert stream.resumed == kills
            print(f"stalls {[round(stall, 3) for stall in stalls]}")
            assert sorted(stalls)[kills // 2] <= 0.5

    runner.run(main())


def test_a_proxy_that_is_stopped_is_noticed_and_left(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], runner: asyncio.Runner
) -> None:
    size = 40 * 1024 * 1024

    async def main() -> None:
        async with agent(contexts[0]) as target:
            current, standby = await Proxy(target).started(), await Proxy(target).started()
            stuck = current
            user = User(size)
            stream = RedialledTransport(
                ID,
                dialer(contexts[1], lambda: current.port),  # type: ignore[arg-type]
                chance=SeededChance(),
            )
            stream.attach(user)
            stream.start()
            user.send()
            try:
                while user.size < size // 2:
                    await asyncio.sleep(0.002)
                os.kill(stuck.process.pid, signal.SIGSTOP)
                current = standby
                user.silences.clear()
                await asyncio.wait_for(user.done.wait(), 60)
                print(f"noticed and resumed after {max(user.silences):.2f} s")
                assert QUIET_S <= max(user.silences) <= QUIET_S + ANSWER_S + 2
            finally:
                stuck.kill()
                standby.kill()
            assert user.error is None
            assert user.got.digest() == user.sent.digest()
            assert stream.resumed == 1

    runner.run(main())
