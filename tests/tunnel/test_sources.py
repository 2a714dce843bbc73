"""One address cannot use up the port, whatever it does: caps by source, counted and released."""

import asyncio
import socket
import ssl
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tunnel.conftest import join
from tests.tunnel.ends import until
from tunnel import acceptor as acceptors
from tunnel.acceptor import Acceptor, Route
from tunnel.identity import Authority
from tunnel.sources import SourceLimits, Sources, source_of
from tunnel.wire import ALPN_CONTROL, CONTROL_NAME

SMALL = SourceLimits(rate=2.0, burst=5.0, handshakes=3, connections=2, sources=4)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_is_one_source() -> None:
    assert source_of("192.0.2.1") == "192.0.2.1"
    assert source_of("::ffff:192.0.2.1") == "192.0.2.1"
    assert source_of("2001:db8:0:7::1") == source_of("2001:db8:0:7:ffff:2:3:4") == "2001:db8:0:7::/64"
    assert source_of("2001:db8:0:8::1") != source_of("2001:db8:0:7::1")
    assert source_of("fe80::1%eth0") == "fe80::/64"
    assert [source_of(each) for each in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1")] == [""] * 4


def test_a_burst_then_a_rate() -> None:
    clock = Clock()
    sources = Sources(clock, SMALL)
    told = []
    for _ in range(7):
        told.append(sources.came("192.0.2.1"))
        if not told[-1]:
            sources.settled("192.0.2.1")
    assert told == [""] * 5 + ["source_rate"] * 2
    assert sources.came("192.0.2.2") == "", "another one is not concerned"
    clock.now = 1.0
    assert [sources.came("192.0.2.1") for _ in range(3)] == ["", "", "source_rate"]


def test_handshakes_and_connections_at_a_time() -> None:
    sources = Sources(Clock(), SMALL)
    assert [sources.came("192.0.2.1") for _ in range(4)] == ["", "", "", "source_handshakes"]
    sources.settled("192.0.2.1")
    assert sources.came("192.0.2.1") == ""
    assert [sources.took("192.0.2.1") for _ in range(3)] == ["", "", "source_connections"]
    sources.left("192.0.2.1")
    assert sources.took("192.0.2.1") == ""
    assert all(sources.came("127.0.0.1") == sources.took("::1") == "" for _ in range(50)), "this machine itself"
    assert len(sources) == 1


def test_many_sources_take_little_memory_and_the_busy_are_kept() -> None:
    sources = Sources(Clock(), SMALL)
    sources.took("192.0.2.1")
    for number in range(100):
        assert sources.came(f"198.51.100.{number}") == ""
        sources.settled(f"198.51.100.{number}")
        assert len(sources) <= SMALL.sources
    sources.took("192.0.2.1")
    assert sources.took("192.0.2.1") == "source_connections"


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["came", "took"]), st.floats(0, 1)), max_size=200))
def test_no_more_at_a_time_than_allowed_and_all_is_given_back(acts: list[tuple[int, str, float]]) -> None:
    clock = Clock()
    sources = Sources(clock, SourceLimits(rate=5, burst=10, handshakes=3, connections=2, sources=50))
    held: dict[tuple[int, str], int] = {}
    for number, act, later in acts:
        clock.now += later
        if not getattr(sources, act)(f"192.0.2.{number}"):
            held[number, act] = held.get((number, act), 0) + 1
            assert held[number, act] <= {"came": 3, "took": 2}[act]
    for (number, act), count in held.items():
        for _ in range(count):
            getattr(sources, {"came": "settled", "took": "left"}[act])(f"192.0.2.{number}")
    assert all(not (source.handshakes or source.connections) for source in sources._known.values())


class Served(asyncio.Protocol):
    made = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        Served.made += 1


async def refused(url: tuple[str, int]) -> bool:
    """Connect, send nothing; say whether the other end closed at once."""
    reader, writer = await asyncio.open_connection(*url)
    try:
        async with asyncio.timeout(30):
            return not await reader.read(1)
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    finally:
        writer.close()


def strangers(limits: SourceLimits | None = None) -> Sources:
    """Count this machine's own addresses as others'."""
    return Sources(asyncio.get_running_loop().time, limits, name=str)


def test_the_port_closes_what_is_too_much_and_serves_on(
    authority: Authority, tmp_path: Path, runner: asyncio.Runner
) -> None:
    async def main() -> None:
        limits = SourceLimits(rate=1000, burst=1000, handshakes=5, connections=3)
        routes = {
            "http/1.1": Route(authority.http_context(), Served, counted=True),
            ALPN_CONTROL: Route(authority.control_context(), Served),
        }
        acceptor = Acceptor(routes, sources=strangers(limits))
        await acceptor.listen("127.0.0.1", 0)
        where = ("127.0.0.1", acceptor.port)
        silent = [await asyncio.open_connection(*where) for _ in range(5)]
        await until(lambda: acceptor.pending == 5)
        assert await refused(where)
        assert acceptor.refused == {"source_handshakes": 1}
        for _, writer in silent:
            writer.close()
        await until(lambda: acceptor.pending == 0)
        context = ssl.create_default_context(cadata=authority.ca_pem)
        context.set_alpn_protocols(["http/1.1"])
        users = [await asyncio.open_connection(*where, ssl=context, server_hostname=CONTROL_NAME) for _ in range(3)]
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await asyncio.open_connection(*where, ssl=context, server_hostname=CONTROL_NAME)
        assert acceptor.refused["source_connections"] == 1
        identity = join(authority, tmp_path, "https://x")
        agent = await asyncio.open_connection(*where, ssl=identity.context(), server_hostname=CONTROL_NAME)
        users[0][1].close()
        await until(lambda: acceptor.sources._known["127.0.0.1"].connections == 2)
        users.append(await asyncio.open_connection(*where, ssl=context, server_hostname=CONTROL_NAME))
        for _, writer in [agent, *users]:
            writer.close()
        await until(lambda: acceptor.sources._known["127.0.0.1"].connections == 0)
        await acceptor.close()

    runner.run(main())


def test_a_handshake_that_fails_gives_everything_back(authority: Authority, runner: asyncio.Runner) -> None:
    async def main() -> None:
        acceptor = Acceptor({"http/1.1": Route(authority.http_context(), Served, counted=True)}, sources=strangers())
        await acceptor.listen("127.0.0.1", 0)
        context = ssl.create_default_context()  # trusts others
        context.set_alpn_protocols(["http/1.1"])
        for _ in range(5):
            with pytest.raises(ssl.SSLError):
                await asyncio.open_connection("127.0.0.1", acceptor.port, ssl=context, server_hostname=CONTROL_NAME)
        await until(lambda: acceptor.pending == 0)
        source = acceptor.sources._known["127.0.0.1"]
        await until(lambda: source.connections == 0)
        assert source.handshakes == 0
        await acceptor.close()

    runner.run(main())


def test_loopback_is_not_capped(authority: Authority, runner: asyncio.Runner) -> None:
    async def main() -> None:
        limits = SourceLimits(rate=1, burst=1, handshakes=1, connections=1)
        acceptor = Acceptor(
            {"http/1.1": Route(authority.http_context(), Served)},
            sources=Sources(asyncio.get_running_loop().time, limits),
        )
        await acceptor.listen("127.0.0.1", 0)
        made = [socket.create_connection(("127.0.0.1", acceptor.port)) for _ in range(20)]
        await until(lambda: acceptor.pending == 20)
        assert acceptor.pending < acceptors.HANDSHAKES_LIMIT
        for each in made:
            each.close()
        await until(lambda: acceptor.pending == 0)
        await acceptor.close()

    runner.run(main())
