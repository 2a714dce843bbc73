"""TLS that is lifted: the words before come as TLS and what follows bare, however the bytes are cut on the way."""

import asyncio
import socket
import ssl
import time
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from atoll.errors import Unavailable
from tests.tunnel.conftest import join
from tests.tunnel.ends import until
from tests.tunnel.site import AGENT, TlsSite
from tests.tunnel.test_fuzz_doors import Pipe
from tests.tunnel.test_tls import trusting
from tunnel import wire
from tunnel.dataline import RelayLine
from tunnel.dialer import TlsDialer
from tunnel.envelope import veiled
from tunnel.identity import Authority
from tunnel.lanes import Lane, Limits
from tunnel.veil import Veil

WORDS = b"first words"
DATA = wire.ALPN_DATA_SPLICE


class Above(asyncio.Protocol):
    """Lifts its veil when it has heard the words, and answers bare."""

    def __init__(self, answer: bytes = b"") -> None:
        self.answer = answer
        self.got = bytearray()
        self.pieces = 0
        self.ended = False
        self.lost: list[Exception | None] = []
        self.transport: Veil | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("Veil", transport)

    def data_received(self, data: bytes) -> None:
        self.got += data
        self.pieces += 1
        if self.answer and bytes(self.got) == WORDS:
            assert self.transport is not None
            self.transport.lift()
            self.transport.write(self.answer)

    def eof_received(self) -> bool:
        self.ended = True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)


class Pair:
    """A client and a server, and the bytes between them."""

    def __init__(self, authority: Authority, answer: bytes, name: str = wire.CONTROL_NAME) -> None:
        self.user, self.served = Above(), Above(answer)
        self.client = Veil(trusting(authority, DATA), self.user, name)
        self.server = Veil(authority.stream_context(DATA), self.served)
        self.up, self.down = Pipe(), Pipe()
        self.server.connection_made(self.down)
        self.client.connection_made(self.up)

    def carry(self, cuts: list[int] | None = None) -> None:
        """Hand over everything, in pieces of these sizes as long as there are any."""
        sizes = list(cuts or [])
        while self.up.sent or self.down.sent:
            for sender, receiver in ((self.up, self.server), (self.down, self.client)):
                data, sender.sent = sender.sent, b""
                while data:
                    size = sizes.pop() if sizes else len(data)
                    receiver.data_received(data[:size])
                    data = data[size:]


@settings(max_examples=60)
@given(st.lists(st.integers(1, 400), max_size=60), st.binary(max_size=40_000), st.binary(min_size=1, max_size=5000))
def test_words_come_as_tls_and_the_rest_bare_however_it_is_cut(
    authority: Authority, cuts: list[int], more: bytes, answer: bytes
) -> None:
    async def main() -> None:
        pair = Pair(authority, answer)
        pair.carry()
        assert pair.client.shaken.done()
        assert pair.server.shaken.done()
        pair.client.write(WORDS)
        pair.client.lift()
        pair.client.write(more)
        assert WORDS not in pair.up.sent
        assert pair.up.sent.endswith(more)
        pair.carry(cuts)
        assert pair.served.got == WORDS + more
        assert pair.user.got == answer

    asyncio.run(main())


async def test_a_veil_that_nobody_lifts_is_tls_to_its_end(authority: Authority) -> None:
    pair = Pair(authority, b"")
    pair.carry()
    pair.client.write(b"question")
    pair.server.write(b"answer")
    assert b"question" not in pair.up.sent
    pair.carry()
    assert pair.served.got == b"question"
    assert pair.user.got == b"answer"
    pair.client.close()
    pair.carry()
    assert pair.served.ended


async def test_bare_bytes_before_it_is_lifted_end_the_connection(authority: Authority) -> None:
    pair = Pair(authority, b"")
    pair.carry()
    pair.client.lift()
    pair.client.write(b"too early for this")
    pair.carry()
    assert pair.down.closing
    assert pair.served.got == b""


async def test_lifted_it_passes_everything_on(authority: Authority) -> None:
    pair = Pair(authority, b"answer")
    pair.carry()
    pair.client.write(WORDS)
    pair.client.lift()
    pair.client.writelines([b"one", b"two"])
    pair.carry()
    assert pair.served.got == WORDS + b"onetwo"
    assert pair.served.transport is not None
    assert pair.served.transport.get_extra_info("ssl_object").version() == "TLSv1.3"
    assert not pair.server.eof_received()
    assert pair.served.ended
    pair.client.close()
    assert (pair.up.closing, pair.up.sent) == (True, b"")  # TLS would have said goodbye


@pytest.mark.parametrize("wrong", ["name", "authority"])
async def test_a_server_that_is_another_is_not_spoken_to(authority: Authority, tmp_path: Path, wrong: str) -> None:
    theirs = Authority.load_or_create(tmp_path, now=time.time()) if wrong == "authority" else authority
    pair = Pair(authority, b"", "another.internal" if wrong == "name" else wire.CONTROL_NAME)
    pair.server = Veil(theirs.stream_context(DATA), pair.served)
    pair.server.connection_made(pair.down)
    pair.carry()
    assert pair.up.closing
    pair.client.connection_lost(None)
    with pytest.raises(ssl.SSLCertVerificationError):
        await pair.client.shaken
    assert pair.user.transport is None


async def test_a_handshake_that_breaks_off_is_an_error(authority: Authority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection = socket.create_connection(listener.getsockname())
        connection.setblocking(False)
        far, _ = listener.accept()
        calling = asyncio.ensure_future(veiled(connection, Above(), trusting(authority, DATA), wire.CONTROL_NAME))
        await asyncio.sleep(0.05)
        far.close()
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(calling, 5)


OPENING = wire.OpenStream(run="s-1.1.0", port=80, resume=b"r" * 16)


async def test_an_agent_serves_nothing_bare_that_is_not_encrypted_already(authority: Authority, tmp_path: Path) -> None:
    served: list[wire.OpenStream] = []

    def serve(opening: wire.OpenStream) -> asyncio.Protocol:
        served.append(opening)
        return Above()

    async with TlsSite(authority, tmp_path, serve) as site:
        site.agent.lines._serve = serve
        user = Above()
        await site.relay.open(AGENT, OPENING, user, lane=Lane.SPLICE)
        await until(lambda: user.lost)
        assert served == []
        user = Above()
        blind = structs.replace(OPENING, client=b"a certificate")
        opened = await site.relay.open(AGENT, blind, user, lane=Lane.SPLICE)
        await until(lambda: served)
        assert served == [blind]
        opened.transport.abort()


async def test_a_token_for_one_lane_is_none_for_another(authority: Authority, tmp_path: Path) -> None:
    async with TlsSite(authority, tmp_path, lambda _: Above(), Limits(dial_s=0.5)) as site:
        site.agent.dials = False
        with pytest.raises(Unavailable):
            await site.relay.open(AGENT, OPENING, Above(), lane=Lane.SPLICE)
        asking = asyncio.ensure_future(site.relay.open(AGENT, OPENING, Above(), lane=Lane.SPLICE))
        await until(lambda: [each for each in site.agent.messages if isinstance(each, wire.Dial)][1:])
        *_, dial = (each for each in site.agent.messages if isinstance(each, wire.Dial))
        assert dial.splice
        site.agent.lines.dial(dial.tokens)  # by a connection that stays TLS
        with pytest.raises(Unavailable):
            await asking
        assert not site.relay.held(AGENT).ready
        assert not any(isinstance(line, RelayLine) for line in site.relay._owners)


async def test_the_dialer_says_what_an_old_relay_lacks(authority: Authority, tmp_path: Path) -> None:
    async with TlsSite(authority, tmp_path, lambda _: Above()) as site:
        site.acceptor._routes = {k: v for k, v in site.acceptor._routes.items() if k != DATA}
        url = f"https://127.0.0.1:{site.acceptor.port}"
        dialer = TlsDialer(url, join(authority, tmp_path / "agent", url), {}, data=True)
        with pytest.raises(OSError):  # it is closed, or reset
            await dialer.dial(Above, splice=True)
