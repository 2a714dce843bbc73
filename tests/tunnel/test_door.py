"""The users' door: who is let in, what they are told, what passes, and what must not pile up."""

import asyncio
import hashlib
import os
from pathlib import Path

import pytest
from msgspec import structs

from atoll.errors import AtollError, Forbidden, Invalid, Unauthorized, Unavailable
from atoll.host.system import SystemChance
from tests.tunnel.doors import DoorSite
from tests.tunnel.ends import Echo, Recorder, until
from tests.tunnel.site import TlsSite
from tests.tunnel.test_dialer import ConnectProxy
from tunnel import wire
from tunnel.door import Limits, Way, framed, payload_of
from tunnel.identity import Authority
from tunnel.stream import StreamReset
from tunnel.userstream import Permit, UserStream, enter, reach, user_context


class Nobody(asyncio.Protocol):
    """A lane's end that nobody looks at."""


def test_bytes_pass_both_ways_and_ends_are_the_streams_own(
    runner: asyncio.Runner, authority: Authority, tmp_path: Path
) -> None:
    async def main() -> None:
        async with DoorSite(authority, tmp_path, Echo) as site:
            user = Recorder()
            stream = site.stream(user)
            data = os.urandom(3_000_000)
            stream.write(data)
            await until(lambda: user.size == len(data))
            stream.write_eof()
            await until(lambda: user.ended)
            stream.close()
            await until(lambda: user.lost)
            assert user.error is None
            assert site.guard.users == ["ada"]
            await until(lambda: site.guard.left_by == ["ada"])

    runner.run(main())


def test_a_stream_survives_its_connection_and_goes_on_byte_for_byte(
    runner: asyncio.Runner, authority: Authority, tmp_path: Path
) -> None:
    async def main() -> None:
        async with DoorSite(authority, tmp_path, Echo) as site:
            user = Recorder()
            stream = site.stream(user)
            data = os.urandom(1_000_000)
            for turn in range(12):
                stream.write(data)
                await until(lambda: user.size > turn * len(data), 20)  # noqa: B023 - awaited before the next turn
                if turn % 3 == 2:
                    site.door.end(lambda grant: grant.user == "ada", "test")
            await until(lambda: user.size == 12 * len(data), 20)
            await until(lambda: stream.resumed == 4, 20)
            assert not user.lost
            assert user.digest.digest() == hashlib.sha256(data * 12).digest()
            stream.abort()

    runner.run(main())


REFUSED: dict[str, tuple[dict[str, object], type[AtollError], str]] = {
    "expired": ({"life_s": -1.0}, Unauthorized, "expired"),
    "forged": ({"relay": b"x" * 32}, Unauthorized, "not made for this place"),
    "for another port": ({"port": 81}, Unauthorized, "another stream"),
    "for another run": ({"run": "s-2.1.0"}, Unauthorized, "another stream"),
    "not resumable": ({"resume": b""}, Invalid, "resumed"),
    "of an agent that is not there": ({"agent": "a-9"}, Unavailable, "not connected"),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_a_refusal_says_why(authority: Authority, tmp_path: Path, what: str) -> None:
    fields, kind, text = REFUSED[what]
    async with DoorSite(authority, tmp_path, Echo) as site:
        given = site.permit(**fields)
        with pytest.raises(kind, match=text):
            await enter(given.ways[0], given, {}, Nobody)
        await until(lambda: not len(site.door))
        assert site.guard.left_by == site.guard.users


async def test_a_grant_that_the_agent_does_not_know_is_refused_by_it_alone(
    authority: Authority, tmp_path: Path
) -> None:
    async with DoorSite(authority, tmp_path, Echo) as site:
        given = site.permit()
        sealed = given.opening.grant
        forged = structs.replace(given.opening, grant=bytes(32) + sealed[32:])  # the relay's tag stays good
        user = Recorder()

        async def ask(stream: bytes) -> Permit:
            raise Forbidden("no other is given")

        stream = UserStream(Permit(given.agent, forged, given.ways, given.ca, 60.0), ask, {}, chance=SystemChance())
        stream.attach(user)
        stream.start()
        await until(lambda: user.lost, 10)
        assert isinstance(user.error, StreamReset)
        assert "refused by the agent" in str(user.error)
        assert len(site.agent.streams) == 0


async def test_a_permit_that_failed_is_exchanged_for_another(authority: Authority, tmp_path: Path) -> None:
    async with DoorSite(authority, tmp_path, Echo) as site:
        user = Recorder()
        stream = site.stream(user, site.permit(life_s=-1.0))
        stream.write(b"hello")
        await until(lambda: user.tail == b"hello")
        stream.abort()


async def test_the_guard_may_refuse(authority: Authority, tmp_path: Path) -> None:
    async with DoorSite(authority, tmp_path, Echo) as site:
        site.guard.refusal = Forbidden("not you")
        given = site.permit()
        with pytest.raises(Forbidden, match="not you"):
            await enter(given.ways[0], given, {}, Nobody)


async def test_a_slow_reader_costs_a_bounded_amount(authority: Authority, tmp_path: Path) -> None:
    async with DoorSite(authority, tmp_path, Recorder) as site:
        user = Recorder()
        stream = site.stream(user)
        slow: list[Recorder] = []
        await until(lambda: len(site.agent.streams))
        served = next(iter(site.agent.streams._live.values()))
        slow.append(served.get_protocol())  # type: ignore[arg-type]
        served.pause_reading()
        sent = 0
        while user.writable.is_set() and sent < 200_000_000:
            stream.write(bytes(1_000_000))
            sent += 1_000_000
            await asyncio.sleep(0.01)
        assert sent < 60_000_000
        served.resume_reading()
        await until(lambda: slow[0].size == sent, 20)
        stream.abort()


async def strangers(site: DoorSite, count: int) -> list[asyncio.StreamWriter]:
    made = []
    for _ in range(count):
        _, writer = await asyncio.open_connection(
            "127.0.0.1", site.acceptor.port, ssl=user_context(site.authority.ca_pem), server_hostname=wire.CONTROL_NAME
        )
        made.append(writer)
    return made


async def leave(writers: list[asyncio.StreamWriter]) -> None:
    for writer in writers:
        writer.transport.abort()
    await asyncio.sleep(0.05)


@pytest.mark.parametrize("limits", [Limits(opening=3), Limits(opening_per_source=3), Limits(visits=3)])
async def test_strangers_are_few(authority: Authority, tmp_path: Path, limits: Limits) -> None:
    async with DoorSite(authority, tmp_path, Echo, limits) as site:
        waiting = await strangers(site, 3)
        await until(lambda: len(site.door) == 3)
        given = site.permit()
        with pytest.raises(Unavailable, match="too many"):
            await enter(given.ways[0], given, {}, Nobody)
        await leave(waiting)
        await until(lambda: not len(site.door))
        user = Recorder()
        stream = site.stream(user)
        stream.write(b"x")
        await until(lambda: user.tail == b"x")
        stream.abort()


async def test_a_user_has_so_many_streams(authority: Authority, tmp_path: Path) -> None:
    async with DoorSite(authority, tmp_path, Echo, Limits(visits_per_user=1)) as site:
        user = Recorder()
        stream = site.stream(user)
        stream.write(b"x")
        await until(lambda: user.tail == b"x")
        given = site.permit()
        with pytest.raises(Unavailable, match="ada has 1 streams"):
            await enter(given.ways[0], given, {}, Nobody)
        other = site.permit(user="bo")
        _, answer = await enter(other.ways[0], other, {}, Leaving)
        assert answer.lane in ("data", "mux")
        stream.abort()


class Leaving(asyncio.Protocol):
    """Leaves at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.abort()  # type: ignore[attr-defined]


async def test_who_shows_nothing_is_closed(authority: Authority, tmp_path: Path) -> None:
    async with DoorSite(authority, tmp_path, Echo, Limits(opening_s=0.2)) as site:
        waiting = await strangers(site, 2)
        await until(lambda: not len(site.door), 5)
        await leave(waiting)


@pytest.mark.parametrize("shown", [b"\xff" * 8, framed(b"\xc1nonsense"), framed(b"") + b"x", b"GET / HTTP/1.1\r\n\r\n"])
async def test_nonsense_gets_a_typed_answer(authority: Authority, tmp_path: Path, shown: bytes) -> None:
    async with DoorSite(authority, tmp_path, Echo) as site:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", site.acceptor.port, ssl=user_context(authority.ca_pem), server_hostname=wire.CONTROL_NAME
        )
        writer.write(shown)
        async with asyncio.timeout(30):
            got = await reader.read()
        payload = payload_of(got)
        assert payload is not None
        assert wire.decode_answer(payload).code == "INVALID"
        await leave([writer])


async def test_a_way_without_a_door_is_told(authority: Authority, tmp_path: Path) -> None:
    async with TlsSite(authority, tmp_path, lambda _: Echo()) as site:
        with pytest.raises(OSError, match=str(site.acceptor.port)):
            await reach([Way("127.0.0.1", site.acceptor.port)], authority.ca_pem, {})


async def test_the_next_way_is_taken_where_one_is_dead(authority: Authority, tmp_path: Path) -> None:
    async with DoorSite(authority, tmp_path, Echo) as site:
        good = site.permit()
        ways = [Way("127.0.0.1", 1), Way("127.0.0.1", site.acceptor.port, "relay.other"), good.ways[0]]
        assert await reach(ways, authority.ca_pem, {}) == good.ways[0]
        user = Recorder()
        stream = site.stream(user, Permit(good.agent, good.opening, ways, good.ca, 60.0))
        stream.write(b"x")
        await until(lambda: user.tail == b"x")
        assert stream.entered == good.ways[0]
        stream.abort()


async def test_an_http_proxy_is_the_way_where_the_environment_names_one(authority: Authority, tmp_path: Path) -> None:
    async with DoorSite(authority, tmp_path, Echo) as site, ConnectProxy(site.acceptor.port, "me:secret") as proxy:
        given = site.permit()
        environ = {"HTTPS_PROXY": f"http://me:secret@127.0.0.1:{proxy.port}", "NO_PROXY": "other.example"}
        user = Recorder()
        ways = [Way("relay.example", 443)]

        async def ask(stream: bytes) -> Permit:
            raise Forbidden("no other is given")

        permit = Permit(given.agent, given.opening, ways, given.ca, 60.0)
        stream = UserStream(permit, ask, environ, chance=SystemChance())
        stream.attach(user)
        stream.start()
        stream.write(b"x")
        await until(lambda: user.tail == b"x")
        assert proxy.asked == ["CONNECT relay.example:443 HTTP/1.1"]
        stream.abort()
        await until(lambda: not len(site.door))


async def test_a_stream_leaves_a_relay_that_hangs(authority: Authority, tmp_path: Path) -> None:
    """The way that was lost is tried last: a relay that takes connections and is silent holds nobody up."""
    async with DoorSite(authority, tmp_path, Echo) as site, Hanging(site.acceptor.port) as relay:
        given = site.permit()
        ways = [Way("127.0.0.1", relay.port), given.ways[0]]
        stream = site.stream(user := Recorder(), Permit(given.agent, given.opening, ways, given.ca, 60.0))
        stream.write(b"x")
        await until(lambda: user.tail == b"x")
        assert stream.entered == ways[0]
        began = asyncio.get_running_loop().time()
        relay.hang()
        stream.write(b"y")
        await until(lambda: user.tail == b"xy", 20)
        print(f"went on after {asyncio.get_running_loop().time() - began:.2f} s")
        assert stream.entered == ways[1]
        stream.abort()


class Hanging:
    """A TCP proxy that, once it hangs, passes nothing on, in neither direction, and still takes connections."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._tasks: set[asyncio.Task[None]] = set()
        self._hung = asyncio.Event()

    async def __aenter__(self) -> "Hanging":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def hang(self) -> None:
        self._hung.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            self._tasks.add(asyncio.create_task(self._copy(source, sink)))

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while (data := await source.read(65536)) and not self._hung.is_set():
                sink.write(data)
            while self._hung.is_set():
                await asyncio.sleep(1)
        finally:
            sink.close()
