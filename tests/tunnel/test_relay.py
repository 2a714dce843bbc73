"""Dials, tokens and pools: what goes wrong between an agent and a relay, and what must not pile up."""

import asyncio
import contextlib
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.errors import Unavailable
from tests.tunnel import virtual
from tests.tunnel.conftest import join
from tests.tunnel.ends import Echo, Recorder, until
from tests.tunnel.site import AGENT, MemorySite, TlsSite
from tests.tunnel.test_tls import trusting
from tunnel import wire
from tunnel.dataline import TOKEN, AgentLine
from tunnel.dialer import TlsDialer
from tunnel.identity import Authority
from tunnel.lanes import READY_LIMIT, Lane, Limits, Pool, Use
from tunnel.relay import Held, Opened, Relay
from tunnel.stream import StreamReset, StreamTransport

OPENING = wire.OpenStream(run="s-1.1.0", port=80)


class Plain(asyncio.Protocol):
    """The end of a bare lane."""

    def __init__(self) -> None:
        self.data = b""
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


class PlainEcho(Plain):
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.transport.write(data)


class Stranger(asyncio.Protocol):
    """A connection that shows whatever it likes."""

    def __init__(self, shows: bytes) -> None:
        self._shows = shows
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if self._shows:
            self.transport.write(self._shows)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


async def linked(limits: Limits | None = None) -> MemorySite:
    site = MemorySite(lambda _: PlainEcho(), limits=limits)
    await site.link()
    return site


async def bulk(site: MemorySite, protocol: Plain | None = None) -> Opened:
    return await site.relay.open(AGENT, OPENING, protocol or Plain(), use=Use.BULK)


def tokens(site: MemorySite) -> list[bytes]:
    return [token for message in site.agent.messages if isinstance(message, wire.Dial) for token in message.tokens]


async def shown(site: MemorySite, token: bytes) -> Stranger:
    stranger = Stranger(token)
    await site.network.dialer(AGENT, data=True).dial(lambda: stranger)
    await asyncio.sleep(0.1)
    return stranger


def test_short_traffic_takes_the_link_and_bulk_a_connection_of_its_own() -> None:
    async def main() -> None:
        site = await linked()
        short = await site.relay.open(AGENT, OPENING, Plain())
        assert (short.choice.lane, short.choice.why) == (Lane.MUX, "short or unknown traffic")
        assert tokens(site) == []
        user = Plain()
        first = await bulk(site, user)
        assert (first.choice.lane, first.choice.why) == (Lane.DATA, "bulk, a connection was dialled")
        first.transport.write(b"abc")
        await until(lambda: user.data == b"abc")
        await asyncio.sleep(0.5)
        second = await bulk(site)
        assert second.choice.why == "bulk, a connection was ready"
        first.transport.close()
        await until(lambda: user.lost)
        tallies = site.relay.tallies()
        assert (tallies[Lane.DATA].opens, tallies[Lane.DATA].sent, tallies[Lane.DATA].received) == (2, 3, 3)
        assert (tallies[Lane.MUX].opens, tallies[Lane.DATA].refused) == (1, {})

    virtual.run(main())


def test_the_pool_grows_with_use_and_empties_without() -> None:
    async def main() -> None:
        site = await linked()
        await asyncio.sleep(100)
        assert site.relay.held(AGENT) == Held()
        for _ in range(3):
            await asyncio.gather(*(bulk(site) for _ in range(12)))
        await asyncio.sleep(1)
        assert site.relay.held(AGENT) == Held(ready=READY_LIMIT, in_use=36)
        assert len(tokens(site)) == 36 + READY_LIMIT
        await asyncio.sleep(200)
        assert site.relay.held(AGENT) == Held(in_use=36)

    virtual.run(main())


def test_dials_that_never_come_do_not_pile_up() -> None:
    async def main() -> None:
        site = await linked()
        site.agent.dials = False
        most = 0
        for _ in range(300):
            opened = [asyncio.ensure_future(bulk(site)) for _ in range(10)]
            await asyncio.sleep(0.2)
            most = max(most, site.relay.held(AGENT).pending)
            assert {(await each).choice.lane for each in opened} == {Lane.MUX}
            for each in opened:
                each.result().transport.abort()
        assert 0 < most <= Limits().pending
        await asyncio.sleep(60)
        assert site.relay.held(AGENT) == Held()
        site.agent.dials = True
        await bulk(site)
        await asyncio.sleep(1)
        assert (await bulk(site)).choice.lane is Lane.DATA

    virtual.run(main())


def test_a_bulk_stream_waits_a_second_at_most_and_not_again_soon() -> None:
    async def main() -> None:
        site = await linked()
        site.agent.dials = False
        loop = asyncio.get_running_loop()
        start = loop.time()
        opened = await bulk(site)
        assert loop.time() - start == pytest.approx(1.0, abs=0.01)
        assert opened.choice.lane is Lane.MUX
        assert opened.choice.why == "bulk, but the agent made no data connection in time"
        await asyncio.sleep(15)
        start = loop.time()
        assert (await bulk(site)).choice.lane is Lane.MUX
        assert loop.time() == start
        assert site.relay.tallies()[Lane.DATA].refused == {"NO_DATA_CONNECTION": 2}

    virtual.run(main())


def test_who_needs_a_data_connection_waits_longer_and_hears_why_there_is_none() -> None:
    async def main() -> None:
        site = await linked()
        site.agent.dials = False
        with pytest.raises(Unavailable, match="no data connection in time") as refused:
            await site.relay.open(AGENT, OPENING, Plain(), lane=Lane.DATA)
        assert refused.value.hint
        site.control.relay.unlinked(AGENT, site.control.link)
        with pytest.raises(Unavailable, match="not connected"):
            await bulk(site)
        with pytest.raises(Unavailable, match="not connected"):
            await site.relay.open("a-2", OPENING, Plain())

    virtual.run(main())


def test_a_token_is_good_once() -> None:
    async def main() -> None:
        site = await linked()
        await bulk(site)
        await asyncio.sleep(0.5)
        before = site.relay.held(AGENT)
        for token in tokens(site):
            assert (await shown(site, token)).lost
        assert site.relay.held(AGENT) == before

    virtual.run(main())


@given(st.binary(max_size=80))
def test_what_is_no_token_is_closed(shows: bytes) -> None:
    async def main() -> None:
        site = await linked()
        stranger = await shown(site, shows)
        await asyncio.sleep(Limits().token_s + 1)
        assert stranger.lost
        assert site.relay.held(AGENT) == Held()

    virtual.run(main())


def test_a_late_token_is_refused() -> None:
    async def main() -> None:
        site = await linked()
        site.agent.dials = False
        await bulk(site)
        token = tokens(site)[0]
        await asyncio.sleep(Limits().dial_s + 1)
        assert (await shown(site, token)).lost

    virtual.run(main())


def test_tokens_die_with_their_link() -> None:
    async def main() -> None:
        site = await linked()
        site.agent.dials = False
        opening = asyncio.ensure_future(bulk(site))
        await asyncio.sleep(0.1)
        token = tokens(site)[0]
        site.network.reset(AGENT)
        with pytest.raises(Unavailable) as refused:
            await opening
        assert refused.value.hint
        assert (await shown(site, token)).lost
        await site.link()
        assert (await shown(site, token)).lost

    virtual.run(main())


def test_an_agent_that_says_more_than_its_token_is_closed() -> None:
    async def main() -> None:
        site = await linked()
        site.agent.dials = False
        opening = asyncio.ensure_future(bulk(site))
        await asyncio.sleep(0.1)
        assert (await shown(site, tokens(site)[0] + b"!")).lost
        assert (await opening).choice.lane is Lane.MUX

    virtual.run(main())


def test_an_agent_that_dies_between_dial_and_connection() -> None:
    async def main() -> None:
        site = await linked()
        site.agent.dials = False
        opening = asyncio.ensure_future(bulk(site))
        await asyncio.sleep(0.1)
        site.network.crash_agent(AGENT)
        with pytest.raises(Unavailable, match="not connected"):
            await opening
        assert site.relay.held(AGENT) == Held()
        await asyncio.sleep(Limits().grace_s + 1)
        assert site.relay.held(AGENT) == Held()

    virtual.run(main())


def test_connections_stay_while_the_same_process_links_again() -> None:
    async def main() -> None:
        site = await linked()
        user = Plain()
        opened = await bulk(site, user)
        site.control.link.close("lost on the way")
        await asyncio.sleep(5)
        opened.transport.write(b"still")
        await until(lambda: user.data == b"still")
        await site.link()
        opened.transport.write(b" here")
        await until(lambda: user.data == b"still here")
        await asyncio.sleep(200)
        assert not user.lost

    virtual.run(main())


def test_connections_end_when_another_process_or_nobody_links_again() -> None:
    async def main() -> None:
        site = await linked()
        user, second = Plain(), Plain()
        await bulk(site, user)
        site.control.boot = "second"
        await site.link()
        await until(lambda: user.lost, 1)
        await bulk(site, second)
        site.control.link.close("lost on the way")
        await asyncio.sleep(Limits().grace_s - 5)
        assert not second.lost
        await asyncio.sleep(10)
        assert second.lost
        assert site.relay.held(AGENT) == Held()

    virtual.run(main())


def test_revocation_ends_everything_within_a_second() -> None:
    async def main() -> None:
        site = await linked()
        users = [Plain() for _ in range(5)]
        await asyncio.gather(*(bulk(site, user) for user in users))
        linked_user = Recorder()
        await site.relay.open(AGENT, OPENING, linked_user)
        site.agent.dials = False
        waiting = asyncio.ensure_future(site.relay.open(AGENT, OPENING, Plain(), lane=Lane.DATA))
        site.relay.revoke(AGENT, "its owner took it out")
        await until(lambda: all(user.lost for user in users) and linked_user.lost, 1)
        assert isinstance(linked_user.error, StreamReset)
        await asyncio.gather(waiting, return_exceptions=True)
        with pytest.raises(Unavailable, match="not connected"):
            await bulk(site)
        assert site.control.losses == ["its owner took it out"]

    virtual.run(main())


def test_a_relay_that_starts_anew_serves_again() -> None:
    async def main() -> None:
        site = await linked()
        user = Plain()
        await bulk(site, user)
        old = tokens(site)
        site.network.crash_control()
        await until(lambda: site.agent.losses)
        site.relay = site.control.relay = Relay(site.relay._chance)
        site.listen()
        assert (await shown(site, old[0])).lost
        await site.link()
        opened = await bulk(site, fresh := Plain())
        opened.transport.write(b"again")
        await until(lambda: fresh.data == b"again")

    virtual.run(main())


def test_an_agent_of_protocol_2_is_served_over_its_link() -> None:
    async def main() -> None:
        site = MemorySite(lambda _: Echo())
        site.control.dialled_by = False
        await site.link()
        user = Recorder()
        opened = await site.relay.open(AGENT, OPENING, user, use=Use.BULK)
        assert isinstance(opened.transport, StreamTransport)
        assert opened.choice.why == "bulk, but its agent is too old for data connections"
        opened.transport.write(b"old friend")
        await until(lambda: user.tail == b"old friend")
        await asyncio.sleep(100)
        assert tokens(site) == []

    virtual.run(main())


def test_caps() -> None:
    async def main() -> None:
        site = await linked(Limits(streams=3, strangers=4, waiting=2))
        for _ in range(3):
            assert (await bulk(site)).choice.lane is Lane.DATA
        full = await bulk(site)
        assert full.choice.why == "bulk, but the agent carries 3 data streams already"
        with pytest.raises(Unavailable, match="3 data streams already"):
            await site.relay.open(AGENT, OPENING, Plain(), lane=Lane.DATA)
        strangers = [await shown(site, b"") for _ in range(6)]
        assert [stranger.lost for stranger in strangers] == [False] * 4 + [True] * 2

    virtual.run(main())


def test_an_opener_that_gives_up_leaves_its_connection_to_others() -> None:
    async def main() -> None:
        site = await linked()
        opening = asyncio.ensure_future(bulk(site))
        await asyncio.sleep(0)
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        await asyncio.sleep(1)
        held = site.relay.held(AGENT)
        assert (held.waiting, held.in_use, held.pending) == (0, 0, 0)
        assert held.ready >= 1
        assert (await bulk(site)).choice.why == "bulk, a connection was ready"

    virtual.run(main())


def test_early_bytes_wait_for_a_protocol_that_is_not_ready() -> None:
    class Late(Plain):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self.transport.pause_reading()

    async def main() -> None:
        late = Late()
        site = MemorySite(lambda _: late)
        await site.link()
        opened = await bulk(site)
        opened.transport.write(b"early")
        await asyncio.sleep(1)
        assert late.data == b""
        opened.transport.write(b" bird")
        late.transport.resume_reading()
        await until(lambda: late.data == b"early bird")

    virtual.run(main())


def test_revocation_and_a_wrong_token_over_tls(authority: Authority, tmp_path: Path, runner: asyncio.Runner) -> None:
    async def main() -> None:
        async with TlsSite(authority, tmp_path, lambda _: PlainEcho()) as site:
            user = Plain()
            opened = await site.relay.open(AGENT, OPENING, user, use=Use.BULK)
            assert opened.choice.lane is Lane.DATA
            opened.transport.write(b"x" * 1_000_000)
            await until(lambda: len(user.data) == 1_000_000)
            port = site.acceptor.port
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=trusting(authority, wire.ALPN_DATA), server_hostname=wire.CONTROL_NAME
            )
            writer.write(bytes(TOKEN))
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.wait_for(reader.read(), 30) == b""
            writer.close()
            site.relay.revoke(AGENT, "over")
            await until(lambda: user.lost, 5)  # at once: nothing else would end it

    runner.run(main())


def test_data_connections_go_through_the_proxy_too(authority: Authority, tmp_path: Path) -> None:
    asked: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0])
        writer.write(b"HTTP/1.1 503 Not today\r\n\r\n")
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(proxy, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        identity = join(authority, tmp_path, "https://control.example", AGENT)
        dialer = TlsDialer(identity.url, identity, {"HTTPS_PROXY": f"http://127.0.0.1:{port}"}, data=True)
        with pytest.raises(OSError, match="503"):
            await dialer.dial(lambda: AgentLine(bytes(TOKEN), lambda _: None, lambda _: None))
        server.close()
        assert asked == [b"CONNECT control.example:443 HTTP/1.1"]

    asyncio.run(main())


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 60)), max_size=60))
def test_a_pool_is_never_larger_than_it_may_be(steps: list[tuple[bool, float]]) -> None:
    pool = Pool()
    now, ready = 0.0, 0
    for number, (missed, pause) in enumerate(steps):
        now += pause
        pool.rest(now)
        pool.used(now, missed=missed)
        for extra in range(pool.wanted(ready, 1)):
            pool.promise(bytes([number, extra]), now)
        assert 1 <= pool.size <= READY_LIMIT
        assert len(pool.pending) <= pool.limits.pending
        assert pool.wanted(ready, 1) == 0
        if pool.pending and missed:
            ready += pool.redeem(next(iter(pool.pending)), now)
    pool.rest(now + 1000)
    assert (pool.size, pool.pending, pool.next_rest()) == (0, {}, None)
