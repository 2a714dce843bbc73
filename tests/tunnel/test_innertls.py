"""TLS inside a stream: who talks to whom is proved at both ends, and whoever carries it can only break it."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from tests.tunnel.conftest import join
from tests.tunnel.ends import until
from tests.tunnel.site import AGENT, MemorySite
from tunnel.identity import AgentIdentity, Authority
from tunnel.innertls import InnerTls, OwnKey, towards_agent, towards_user
from tunnel.stream import StreamReset


class End(asyncio.Protocol):
    """Remembers; with `echo` it sends back and ends when the peer does."""

    transport: asyncio.Transport | None = None

    def __init__(self, *, echo: bool = False) -> None:
        self.echo = echo
        self.got = bytearray()
        self.ended = False
        self.lost = False
        self.error: Exception | None = None
        self.full = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.got += data
        if self.echo and self.transport is not None:
            self.transport.write(data)

    def eof_received(self) -> bool:
        self.ended = True
        return not self.echo

    def pause_writing(self) -> None:
        self.full += 1
        if self.echo and self.transport is not None:
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.echo and self.transport is not None:
            self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        assert not self.lost
        self.lost = True
        self.error = exc


@pytest.fixture(scope="module")
def own() -> OwnKey:
    return OwnKey(time.time())


@pytest.fixture
def identity(authority: Authority, tmp_path: Path) -> AgentIdentity:
    return join(authority, tmp_path, "https://127.0.0.1:1", AGENT)


class Blind:
    """A site whose agent serves `End`s inside TLS, and the user's end of a stream to it."""

    def __init__(self, identity: AgentIdentity, client: bytes, *, echo: bool = True) -> None:
        self.served: list[End] = []

        def serve(_: object) -> asyncio.Protocol:
            self.served.append(End(echo=echo))
            return towards_user(identity.inner_context(client), client, self.served[-1])

        self.site = MemorySite(serve, latency=0.001)
        self.user = End()

    async def open(self, make: Callable[[asyncio.Protocol], InnerTls], kind: str = "resumable on mux") -> None:
        await self.site.link()
        self.stream = await self.site.open(kind, make(self.user))

    async def up(self) -> asyncio.Transport:
        await until(lambda: self.user.transport)
        assert self.user.transport is not None
        return self.user.transport

    async def close(self) -> None:
        await self.site.close()


def good(authority: Authority, own: OwnKey, agent: str = AGENT) -> Callable[[asyncio.Protocol], InnerTls]:
    return lambda above: towards_agent(own.context(authority.ca_pem), agent, above)


@pytest.mark.parametrize("kind", ["mux", "resumable on mux", "resumable on data"])
async def test_bytes_pass_and_each_direction_ends_by_itself(
    authority: Authority, own: OwnKey, identity: AgentIdentity, kind: str
) -> None:
    blind = Blind(identity, own.certificate)
    await blind.open(good(authority, own), kind)
    up = await blind.up()
    data = os.urandom(3_000_000)
    up.write(data)
    await until(lambda: len(blind.user.got) == len(data), 20)
    assert blind.user.got == data
    up.write(b"last")
    up.write_eof()
    await until(lambda: blind.user.ended)
    assert blind.user.got[-4:] == b"last"
    assert blind.served[0].ended
    up.close()
    await until(lambda: blind.user.lost and blind.served[0].lost)
    assert blind.user.error is blind.served[0].error is None
    await blind.close()


async def test_one_direction_goes_on_after_the_other_has_ended(
    authority: Authority, own: OwnKey, identity: AgentIdentity
) -> None:
    blind = Blind(identity, own.certificate, echo=False)
    await blind.open(good(authority, own))
    up = await blind.up()
    up.write(b"question")
    up.write_eof()
    await until(lambda: blind.served and blind.served[0].ended)
    answer = os.urandom(1_000_000)
    there = blind.served[0].transport
    assert there is not None
    there.write(answer)
    await until(lambda: len(blind.user.got) == len(answer))
    there.close()
    await until(lambda: blind.user.ended)
    assert blind.user.got == answer
    assert blind.served[0].got == b"question"
    up.close()
    await until(lambda: blind.user.lost)
    assert blind.user.error is None
    await blind.close()


async def test_a_slow_reader_holds_the_writer_up(authority: Authority, own: OwnKey, identity: AgentIdentity) -> None:
    blind = Blind(identity, own.certificate, echo=False)
    await blind.open(good(authority, own))
    up = await blind.up()
    await until(lambda: blind.served and blind.served[0].transport)
    there = blind.served[0].transport
    assert there is not None
    there.pause_reading()
    sent = 0
    while not blind.user.full:
        up.write(bytes(100_000))
        sent += 100_000
        assert sent < 50_000_000
        await asyncio.sleep(0)
    await asyncio.sleep(0.2)
    assert len(blind.served[0].got) == 0
    there.resume_reading()
    up.write_eof()
    await until(lambda: blind.served[0].ended, 20)
    assert len(blind.served[0].got) == sent
    await blind.close()


async def failing(blind: Blind) -> str:
    await until(lambda: blind.user.lost, 10)
    assert isinstance(blind.user.error, StreamReset)
    assert blind.user.transport is None
    assert all(end.transport is None for end in blind.served)
    await blind.close()
    return str(blind.user.error)


async def test_another_agent_is_not_taken_for_it(authority: Authority, own: OwnKey, identity: AgentIdentity) -> None:
    blind = Blind(identity, own.certificate)
    await blind.site.link()
    blind.stream = await blind.site.open("resumable on mux", good(authority, own, "a-2")(blind.user))
    await until(lambda: blind.user.lost)
    assert "another agent than a-2" in str(blind.user.error)
    assert blind.user.transport is None
    await blind.close()


async def test_an_agent_of_another_installation_is_refused(authority: Authority, own: OwnKey, tmp_path: Path) -> None:
    other = Authority.load_or_create(tmp_path / "other", now=time.time())
    (tmp_path / "agent").mkdir()
    blind = Blind(join(other, tmp_path / "agent", "https://x", AGENT), own.certificate)
    await blind.open(good(authority, own))
    assert "did not prove who it is" in await failing(blind)


async def test_who_has_only_seen_the_grant_cannot_come_in(
    authority: Authority, own: OwnKey, identity: AgentIdentity
) -> None:
    thief = OwnKey(time.time())
    blind = Blind(identity, own.certificate)
    await blind.open(good(authority, thief))
    await until(lambda: blind.user.lost, 10)
    await until(lambda: blind.served[0].lost)
    assert blind.served[0].transport is None
    assert blind.served[0].got == b""
    await blind.close()


async def test_what_is_no_tls_gets_nowhere(authority: Authority, own: OwnKey, identity: AgentIdentity) -> None:
    blind = Blind(identity, own.certificate)
    await blind.site.link()
    stream = await blind.site.open("resumable on mux", blind.user)
    stream.write(b"GET / HTTP/1.1\r\n\r\n")
    await until(lambda: blind.user.lost)
    await until(lambda: blind.served[0].lost)
    assert blind.served[0].transport is None
    await blind.close()


async def test_a_stream_that_is_cut_short_or_changed_is_an_error(
    authority: Authority, own: OwnKey, identity: AgentIdentity
) -> None:
    for changed in (False, True):
        blind = Blind(identity, own.certificate, echo=False)
        await blind.open(good(authority, own))
        up = await blind.up()
        up.write(b"a part of the whole")
        await until(lambda blind=blind: blind.served and blind.served[0].got)  # type: ignore[misc]
        if changed:
            blind.stream.write(b"\x17\x03\x03\x00\x20" + bytes(32))  # a record that nobody has sealed
        else:
            blind.stream.write_eof()  # the end, as whoever carries it could forge it
        await until(lambda blind=blind: blind.served[0].lost)  # type: ignore[misc]
        assert isinstance(blind.served[0].error, StreamReset)
        assert ("tampered" if changed else "cut off") in str(blind.served[0].error)
        assert not blind.served[0].ended
        await blind.close()


async def test_whoever_carries_it_sees_nothing_of_it(
    authority: Authority, own: OwnKey, identity: AgentIdentity
) -> None:
    blind = Blind(identity, own.certificate)
    seen = bytearray()
    await blind.site.link()

    def spied(above: asyncio.Protocol) -> InnerTls:
        inner = good(authority, own)(above)
        received = inner.data_received
        inner.data_received = lambda data: (seen.extend(data), received(data))[1]  # type: ignore[method-assign,func-returns-value]
        return inner

    blind.stream = await blind.site.open("resumable on mux", spied(blind.user))
    up = await blind.up()
    up.write(b"a secret of some length")
    await until(lambda: blind.user.got == b"a secret of some length")
    assert seen
    assert b"secret" not in seen
    assert AGENT.encode() not in seen  # TLS 1.3: the certificates are encrypted, too
    await blind.close()
