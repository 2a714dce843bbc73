"""What strangers, or one user, can cost a door: little, for a short time, and it says why."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from atoll.errors import AtollError
from tests.tunnel import virtual
from tests.tunnel.doors import SECRET, DoorSite, Remembering, permit
from tests.tunnel.ends import Echo, SeededChance, until
from tests.tunnel.test_direct import User, machine
from tests.tunnel.test_fuzz_doors import DOORS as BARE
from tests.tunnel.test_fuzz_doors import Pipe
from tunnel import directline, door, wire
from tunnel.acceptor import Acceptor
from tunnel.door import Way, framed, payload_of
from tunnel.grant import relay_key
from tunnel.identity import Authority
from tunnel.relay import Relay
from tunnel.userstream import Permit, enter, user_context

DOORS = ("a relay's", "an agent's own")


class Place:
    """A door with narrow limits."""

    def __init__(
        self, way: Way, permit: Callable[..., Permit], door: door.Door | directline.DirectDoor, acceptor: Acceptor
    ) -> None:
        self.way = way
        self.permit = permit
        self.door = door
        self.acceptor = acceptor

    @property
    def refused(self) -> Counter[str]:
        return self.door.refused

    def heads(self) -> int:
        """Return the most bytes that are kept of an opening."""
        inside = self.door._visits if isinstance(self.door, door.Door) else self.door._lines
        return max((len(each._head) for each in inside), default=0)

    def __len__(self) -> int:
        return len(self.door._visits if isinstance(self.door, door.Door) else self.door._lines)

    async def knock(self, authority: Authority) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Come without a word."""
        return await asyncio.open_connection(
            self.way.host, self.way.port, ssl=user_context(authority.ca_pem), server_hostname=self.way.server_name
        )


@asynccontextmanager
async def place(which: str, authority: Authority, folder: Path, **limits: float) -> AsyncIterator[Place]:
    if which == "a relay's":
        renamed = {
            {"lines": "visits", "lines_per_user": "visits_per_user"}.get(key, key): limits[key] for key in limits
        }
        given = door.Limits(**renamed)  # type: ignore[arg-type]
        async with DoorSite(authority, folder, Echo, given) as site:
            way = site.permit().ways[0]
            yield Place(way, site.permit, site.door, site.acceptor)
        return
    async with machine(authority, folder) as at:
        made, acceptor = at.direct._door, at.direct._acceptor
        assert made is not None
        assert acceptor is not None
        made._limits = directline.Limits(**limits)  # type: ignore[arg-type]
        yield Place(at.way, at.permit, made, acceptor)


async def told(reader: asyncio.StreamReader) -> str:
    """Return the code of the door's answer, and see that the connection ends after it."""
    async with asyncio.timeout(60):
        payload = payload_of(await reader.read())
    return wire.decode_answer(payload).code if payload is not None else ""


@pytest.mark.parametrize("which", DOORS)
@pytest.mark.parametrize("shown", [b"", framed(b"x" * 200)[:3], framed(b"x" * 200)[:100]])
async def test_who_is_slow_to_show_a_grant_is_told_and_closed(
    authority: Authority, tmp_path: Path, which: str, shown: bytes
) -> None:
    async with place(which, authority, tmp_path, opening_s=0.2) as at:
        reader, writer = await at.knock(authority)
        writer.write(shown)
        assert await told(reader) == "UNAVAILABLE"
        assert at.refused == {"UNAVAILABLE": 1}
        writer.transport.abort()
        await until(lambda: not len(at))


@pytest.mark.parametrize("which", DOORS)
@pytest.mark.parametrize("shown", [b"\xff\xff\xff\xff", framed(b"x")[:4] + b"xy", framed(b"\xc1" * 4096)])
async def test_what_comes_after_a_wrong_opening_is_not_kept(
    authority: Authority, tmp_path: Path, which: str, shown: bytes
) -> None:
    async with place(which, authority, tmp_path) as at:
        _, writer = await at.knock(authority)
        writer.write(shown)
        kept = 0
        try:
            async with asyncio.timeout(60):
                while True:  # it reads no answer, and hears of no end
                    writer.write(bytes(100_000))
                    await writer.drain()
                    kept = max(kept, at.heads())
                    await asyncio.sleep(0.01)
        except OSError:
            pass
        assert kept < 2_000_000
        assert at.refused == {"INVALID": 1}
        writer.transport.abort()
        await until(lambda: not len(at))


@pytest.mark.parametrize("which", DOORS)
@pytest.mark.parametrize("limits", [{"opening": 3}, {"opening_per_source": 3}, {"lines": 3}])
async def test_a_crowd_of_strangers_is_told_and_closed_and_holds_up_nobody_later(
    authority: Authority, tmp_path: Path, which: str, limits: dict[str, float]
) -> None:
    async with place(which, authority, tmp_path, **limits) as at:
        came = [await at.knock(authority) for _ in range(3)]
        await until(lambda: len(at) == 3)
        crowd = await asyncio.gather(*(at.knock(authority) for _ in range(20)))
        answers = await asyncio.gather(*(told(reader) for reader, _ in crowd))
        assert answers == ["UNAVAILABLE"] * 20
        assert at.refused == {"UNAVAILABLE": 20}
        assert len(at) == 3
        for _, writer in [*came, *crowd]:
            writer.transport.abort()
        await until(lambda: not len(at))
        given = at.permit()
        await enter(at.way, given, {}, Leaving)


class Leaving(asyncio.Protocol):
    """Leaves at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.abort()  # type: ignore[attr-defined]


@pytest.mark.parametrize("which", DOORS)
async def test_one_users_flood_of_streams_leaves_room_for_others(
    authority: Authority, tmp_path: Path, which: str
) -> None:
    async with place(which, authority, tmp_path, lines_per_user=4) as at:

        async def come(user: str) -> str:
            given = at.permit(user=user)
            try:
                await enter(at.way, given, {}, User)
            except AtollError as error:
                return error.code
            return "in"

        answers = Counter(await asyncio.gather(*(come("ada") for _ in range(30))))
        assert answers == {"in": 4, "UNAVAILABLE": 26}
        assert await come("bo") == "in"
        await until(lambda: len(at) == 5)  # who was refused is gone


@pytest.mark.parametrize("which", DOORS)
async def test_half_a_handshake_lasts_no_longer_than_the_deadline(
    authority: Authority, tmp_path: Path, which: str
) -> None:
    async with place(which, authority, tmp_path) as at:
        at.acceptor._deadline_s = 0.3
        for said in (b"", b"\x16\x03\x01", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"):
            reader, writer = await asyncio.open_connection(at.way.host, at.way.port)
            writer.write(said)
            async with asyncio.timeout(60):
                with contextlib.suppress(ConnectionResetError):  # where something was said that nobody took
                    assert await reader.read() == b""
            writer.close()
        await until(lambda: at.acceptor.refused == {"timeout": 3})
        assert at.acceptor.pending == 0
        assert len(at) == 0


class Deaf(Pipe):
    """A connection whose peer never agrees to its end."""

    aborted = False

    def abort(self) -> None:
        self.aborted = True


@pytest.mark.parametrize("which", BARE)
@pytest.mark.parametrize("shown", [b"", framed(b"\xc1")])
def test_who_is_refused_and_will_not_go_is_cut_off(which: str, shown: bytes) -> None:
    async def main() -> None:
        made, pipe = BARE[which](), Deaf()
        visit = made.accept()
        visit.connection_made(pipe)
        visit.data_received(shown)
        await asyncio.sleep(10.5 if not shown else 0.1)
        assert pipe.closing
        await asyncio.sleep(2.5)
        assert pipe.aborted
        visit.connection_lost(None)

    virtual.run(main())


def test_a_door_that_fails_cuts_off_whom_it_cannot_answer() -> None:
    class Broken(Remembering):
        async def admit(self, visit: door.Visit) -> None:
            raise RuntimeError("the disk is on fire")

    async def main() -> None:
        failed: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context.get("exception")))
        made, pipe = door.Door(Relay(SeededChance()), relay_key(SECRET), time.time, guard=Broken()), Deaf()
        visit = made.accept()
        visit.connection_made(pipe)
        opening = permit(1, "").opening
        visit.data_received(framed(wire.encode(opening)))
        async with asyncio.timeout(5):
            while not pipe.aborted:
                await asyncio.sleep(0.01)
        visit.connection_lost(None)
        assert [str(each) for each in failed] == ["the disk is on fire"], "and it is told where failures are told"
        assert len(made) == 0

    asyncio.run(main())
