"""Forwarded ports: local connections over streams that resume, and what people are told meanwhile."""

import asyncio
import base64
import os
from pathlib import Path

import pytest

from atoll.client.views import StreamPermitView, WayView
from atoll.errors import AtollError, Conflict, Unavailable
from atoll.host.system import SystemChance
from tests.tunnel.doors import DoorSite
from tests.tunnel.ends import Echo, Recorder, until
from tunnel import wire
from tunnel.echo import echo
from tunnel.forward import Forwarding
from tunnel.identity import Authority
from tunnel.lanes import Lane
from tunnel.splice import Leg

CHUNK = 65536


class House:
    """A forwarded port 80 of a site's agent."""

    def __init__(self, site: DoorSite, *, blind: bool = False) -> None:
        self.site = site
        self.notes: list[str] = []
        self.asked: list[bytes] = []
        self.refusals: list[AtollError] = []
        self.life_s = 600.0
        self.forwarding = Forwarding(
            self.ask,
            ("127.0.0.1", site.acceptor.port),
            {},
            SystemChance(),
            self.notes.append,
            verbose=True,
            blind=blind,
            look_s=0.05,
        )

    async def ask(self, port: int, stream: bytes, client: bytes) -> StreamPermitView:
        self.asked.append(stream)
        if self.refusals:
            raise self.refusals.pop()
        made = self.site.permit(**({"resume": stream} if stream else {}), client=client)
        opening = made.opening
        return StreamPermitView(
            agent="a-1", run=opening.run, app="", port=opening.port, resume=opening.resume.hex(),
            grant=base64.b64encode(opening.grant).decode(), expires_at=0.0, valid_s=self.life_s,
            ways=[WayView(host="127.0.0.1", port=1, server_name="relay.internal")], ca=made.ca,
        )  # fmt: skip

    async def __aenter__(self) -> "House":
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(lambda: self.forwarding.accept(80), "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        await self.forwarding.close()
        await until(lambda: not len(self.site.door))


async def talk(port: int, data: bytes, *, end: bool = True) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    if end:
        writer.write_eof()
    try:
        async with asyncio.timeout(60):
            return await reader.read()
    finally:
        writer.close()


class Counting(Leg):
    """Says how many bytes it got once they have ended; the other direction stays open until then."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0

    def data_received(self, data: bytes) -> None:
        self.size += len(data)

    def eof_received(self) -> bool:
        assert self.transport is not None
        self.transport.write(str(self.size).encode())
        self.transport.close()
        return True


def test_a_connection_comes_and_goes_with_its_half_closes(
    runner: asyncio.Runner, authority: Authority, tmp_path: Path
) -> None:
    async def main() -> None:
        async with DoorSite(authority, tmp_path, Counting) as site, House(site) as house:
            data = os.urandom(5_000_000)
            assert await talk(house.port, data) == b"5000000"
            assert await asyncio.gather(*(talk(house.port, b"x" * n) for n in (1, 2, 3))) == [b"1", b"2", b"3"]
            # Everything is let go of: no connection stays when both ends have said all they had to.
            await until(lambda: not len(site.door))
            assert any("by 127.0.0.1" in note for note in house.notes)

    runner.run(main())


def test_what_comes_before_the_stream_is_there_waits(
    runner: asyncio.Runner, authority: Authority, tmp_path: Path
) -> None:
    async def main() -> None:
        async with DoorSite(authority, tmp_path, Counting) as site, House(site) as house:
            house.refusals = [Unavailable("not yet")] * 1000
            reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
            data = bytes(30_000_000)
            writer.write(data)
            # It is not taken in meanwhile, beyond what this machine's kernel holds.
            await asyncio.sleep(0.1)
            assert writer.transport.get_write_buffer_size() > 10_000_000
            house.refusals.clear()
            writer.write_eof()
            assert await reader.read() == b"30000000"
            writer.close()

    runner.run(main())


@pytest.mark.parametrize(
    ("lacks", "lane"), [("", "splice"), (wire.ALPN_DATA_SPLICE, "data"), (wire.ALPN_USER_SPLICE, "data")]
)
def test_a_blind_stream_goes_on_over_broken_connections(
    runner: asyncio.Runner, authority: Authority, tmp_path: Path, lacks: str, lane: str
) -> None:
    async def main() -> None:
        async with DoorSite(authority, tmp_path, echo, blind=True) as site, House(site, blind=True) as house:
            site.acceptor._routes = {name: route for name, route in site.acceptor._routes.items() if name != lacks}
            reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
            data = os.urandom(1_000_000)
            for _ in range(6):
                writer.write(data)
                assert await reader.readexactly(len(data)) == data
                site.door.end(lambda _: True, "test")
            writer.write_eof()
            assert await reader.read() == b""
            assert any("resumed 5" in note for note in house.notes)
            assert any(f"{lane} lane" in note for note in house.notes), house.notes
            tallies = site.relay.tallies()
            carried = {each for each in tallies if tallies[each].received > 6_000_000}
            assert carried == {lane}
            assert tallies[Lane(lane)].sent > 6_000_000
            writer.close()

    runner.run(main())


async def test_a_connection_waits_for_a_control_plane_that_is_away(authority: Authority, tmp_path: Path) -> None:
    async with DoorSite(authority, tmp_path, Echo) as site, House(site) as house:
        house.refusals = [Unavailable("no control plane answers"), Unavailable("no control plane answers")]
        assert await talk(house.port, b"hello") == b"hello"
        waits = [note for note in house.notes if "new connections" in note]
        assert waits == ["port 80: new connections wait: no control plane answers", "new connections go on"]


async def test_what_cannot_be_had_is_said(authority: Authority, tmp_path: Path) -> None:
    async with DoorSite(authority, tmp_path, Echo) as site, House(site) as house:
        house.refusals = [Conflict("nb has ended", hint="start it again")]
        with pytest.raises(ConnectionResetError):
            await talk(house.port, b"hello", end=False)
        assert house.notes == ["port 80: nb has ended (start it again)"]


async def test_a_stream_that_is_lost_is_said(authority: Authority, tmp_path: Path) -> None:
    served: list[Recorder] = []

    def serve() -> Recorder:
        served.append(Recorder())
        return served[0]

    async with DoorSite(authority, tmp_path, serve) as site, House(site) as house:
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(b"hello")
        await until(lambda: served and served[0].tail == b"hello")
        site.agent.streams.end("s-1.1.0", "the run is over")
        with pytest.raises(ConnectionResetError):
            await reader.read()
        assert "port 80: the run is over" in house.notes
        writer.transport.abort()
        await asyncio.sleep(0.02)


async def test_permits_are_renewed_at_half_their_life(authority: Authority, tmp_path: Path) -> None:
    async with DoorSite(authority, tmp_path, Echo) as site, House(site) as house:
        house.life_s = 0.4
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        await until(lambda: len(house.asked) >= 3)
        assert house.asked[0] == b""
        assert len(set(house.asked[1:])) == 1  # the same stream's, again and again
        writer.transport.abort()
        await asyncio.sleep(0.02)


async def test_there_is_no_way_where_there_is_no_door(authority: Authority, tmp_path: Path) -> None:
    async with DoorSite(authority, tmp_path, Echo) as site, House(site) as house:
        await house.forwarding.reach(80)
        del site.acceptor._routes["atoll-user/1"]  # type: ignore[attr-defined]
        with pytest.raises(OSError, match=str(site.acceptor.port)):
            await house.forwarding.reach(80)
