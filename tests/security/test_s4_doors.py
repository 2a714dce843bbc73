"""S4 at the doors for streams (the control plane's, a relay's, an agent's): without a good grant nothing is learnt."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import WSMsgType
from msgspec import structs

from tests.security.doors import DOORS, GONE, Door, Sealing, Showing, port_of, speaking
from tests.security.house import house
from tests.tunnel.conftest import join
from tests.tunnel.ends import until
from tunnel import wire
from tunnel.door import framed
from tunnel.envelope import PATH
from tunnel.identity import Authority

STRANGE = b"x" * 32
UNKNOWN = "s-never-was"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.load_or_create(tmp_path_factory.mktemp("ca"), now=time.time())


SHOWN: dict[str, Showing] = {
    "nothing": lambda door, session: wire.OpenStream(run=f"{session}.1.0", port=door.port, resume=b"r" * 16, grant=b""),
    "noise": lambda door, session: wire.OpenStream(
        run=f"{session}.1.0", port=door.port, resume=b"r" * 16, grant=b"\xa5" * 200
    ),
    "a grant that has expired": lambda door, session: door.ask(session, expires_at=time.time() - 1),
    "a grant of another session": lambda door, session: door.ask(session, run="s-other.1.0", session="s-other"),
    "a grant of another run": lambda door, session: door.ask(session, run=f"{session}.2.0"),
    "a grant of another port": lambda door, session: door.ask(session, port=door.port ^ 1),
    "a grant of an app": lambda door, session: door.ask(session, app="web", port=0),
    "a grant of a program": lambda door, session: door.ask(session, exec=True),
    "a grant of an echo": lambda door, session: door.ask(session, echo=True, run=""),
    "a grant of another stream's echo": lambda door, session: structs.replace(door.ask(session), echo=True),
    "a grant of a blind stream": lambda door, session: door.ask(session, client=b"c" * 32),
    "a grant of another installation": lambda door, session: door.ask(
        session, sealing=Sealing(relay=STRANGE, agent=STRANGE)
    ),
    "a grant of a token that was deleted": lambda door, session: door.ask(session, token=GONE),
}
NOBODYS: dict[str, Showing] = {
    "no user": lambda door, session: door.ask(session, user=""),
    "no token": lambda door, session: door.ask(session, token=""),
}
"""Grants of the installation itself: for its own doors, not for these."""
FOR_THE_AGENT: dict[str, Showing] = {
    "made by a relay": lambda door, session: door.ask(session, sealing=Sealing(agent=STRANGE)),
    "of another generation of the agent": lambda door, session: door.ask(session, sealing=Sealing(generation=1)),
    "of another agent": lambda door, session: door.ask(session, agent="a-other"),
}
"""What a relay cannot tell from a good grant, or passes on to somebody else: the agent knows."""


@asynccontextmanager
async def at(which: str, authority: Authority, folder: Path) -> AsyncIterator[Door]:
    async with DOORS[which](authority, folder) as door:
        yield door
        assert door.served == [], "not a byte came to the session"


@pytest.mark.parametrize("which", DOORS)
async def test_who_shows_no_good_grant_is_refused_and_counted_and_learns_nothing(
    authority: Authority, tmp_path: Path, which: str
) -> None:
    async with at(which, authority, tmp_path) as door:
        for code, shown in (("UNAUTHORIZED", SHOWN), ("FORBIDDEN", NOBODYS)):
            for what, show in shown.items():
                before = door.refused[code]
                answers = [await door.enter(show(door, session)) for session in (door.session, UNKNOWN)]
                assert answers[0].startswith(code), what
                assert answers[0] == answers[1], f"{what}: whether the session exists"
                assert door.refused[code] == before + 2, what


async def test_a_good_grant_gets_in_everywhere(authority: Authority, tmp_path: Path) -> None:
    """Else nothing here would show anything."""
    for number, (which, door_of) in enumerate(DOORS.items()):
        async with door_of(authority, tmp_path / str(number)) as door:
            assert await door.enter(door.ask(door.session)) == "in", which


async def test_the_agent_judges_for_itself(authority: Authority, tmp_path: Path) -> None:
    async with at("an agent's own", authority, tmp_path / "own") as door:
        for what, show in FOR_THE_AGENT.items():
            answers = [await door.enter(show(door, session)) for session in (door.session, UNKNOWN)]
            assert answers[0].startswith("UNAUTHORIZED"), what
            assert answers[0] == answers[1]
    async with at("a relay's", authority, tmp_path / "relay") as door:
        for show in FOR_THE_AGENT.values():
            await door.enter(show(door, door.session))
        await asyncio.sleep(0.2)  # and `at` sees that nothing came to the session


@pytest.mark.parametrize("which", [each for each in DOORS if "WebSocket" not in each])
async def test_who_speaks_something_else_gets_no_certificate_to_see(
    authority: Authority, tmp_path: Path, which: str
) -> None:
    """Agents' and relays' protocols, an unknown one, and an agent's certificate make no user; nor does another name."""
    join(authority, tmp_path / "agent", "https://127.0.0.1:1", "a-1")
    certificate = (tmp_path / "agent" / "cert.pem", tmp_path / "agent" / "key.pem")
    async with at(which, authority, tmp_path / "door") as door:
        for protocol in ("h2", "atoll-user/0", "atoll-none/1"):
            before = door.turned_away()
            with pytest.raises((OSError, asyncio.IncompleteReadError)):
                await handshake(door, speaking(door.ca, protocol, certificate))
            await until(lambda: door.turned_away() == before + 1)  # noqa: B023 - awaited before the next turn
        opening = wire.OpenStream(run=f"{door.session}.1.0", port=door.port, resume=b"r" * 16)
        context = speaking(door.ca, wire.ALPN_USER, certificate)
        reader, writer = await handshake(door, context)
        writer.write(framed(wire.encode(opening)))
        async with asyncio.timeout(60):
            answer = await reader.read()
        assert wire.decode_answer(answer[4:]).code == "UNAUTHORIZED", "an agent's certificate is no grant"
        writer.transport.abort()


async def test_a_relay_answers_by_its_own_name_alone(authority: Authority, tmp_path: Path) -> None:
    """What asks for the control plane, in whatever protocol, gets that one's certificate, or nobody's."""
    async with at("a relay's", authority, tmp_path) as door:
        context = speaking(door.ca, "http/1.1")
        async with asyncio.timeout(60):
            _, writer = await asyncio.open_connection(
                door.way.host, door.way.port, ssl=context, server_hostname=wire.CONTROL_NAME
            )
        writer.transport.abort()
        for protocol in (wire.ALPN_USER, wire.ALPN_DATA, wire.ALPN_CONTROL):
            before = door.turned_away()
            with pytest.raises((OSError, asyncio.IncompleteReadError)):
                async with asyncio.timeout(60):
                    await asyncio.open_connection(
                        door.way.host,
                        door.way.port,
                        ssl=speaking(door.ca, protocol),
                        server_hostname=wire.CONTROL_NAME,
                    )
            await until(lambda: door.turned_away() == before + 1)  # noqa: B023 - awaited before the next turn


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
async def test_inside_a_websocket_there_is_no_door_for_others(
    authority: Authority, tmp_path: Path, protocol: str
) -> None:
    """What has no door there is not even answered by TLS."""
    async with house(tmp_path) as at, port_of(authority, at) as (_, _, inside):
        outgoing = ssl.MemoryBIO()
        client = speaking(authority.ca_pem, protocol).wrap_bio(
            ssl.MemoryBIO(), outgoing, server_hostname=wire.CONTROL_NAME
        )
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        async with at.server.http.ws_connect(at.server.url + PATH) as websocket:
            await websocket.send_bytes(outgoing.read())
            answer = await websocket.receive(timeout=60)
        assert answer.type in (WSMsgType.CLOSE, WSMsgType.CLOSED), "no ServerHello, no certificate"
        assert inside.refused == {"not_served_here": 1}


async def handshake(door: Door, context: ssl.SSLContext) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    async with asyncio.timeout(60):
        return await asyncio.open_connection(
            door.way.host, door.way.port, ssl=context, server_hostname=door.way.server_name
        )
