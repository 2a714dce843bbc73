"""Each stream that the control plane opens carries a grant of just that, for agents that know of grants."""

import asyncio
import time

from tests.federation.control.ring import CONFIG, Ring, ring, until
from tunnel import wire
from tunnel.grant import LIFE_S, Grant, agent_key, for_agent, for_relay, permits, relay_key
from tunnel.lanes import Use
from tunnel.link import Link


class Serving(asyncio.Protocol):
    """Stays open."""


async def opened(r: Ring, protocol: int, **more: object) -> tuple[str, wire.OpenStream, wire.Welcome]:
    """Open a stream to a session's port 80; return the agent, and what it was told of the stream and at first."""
    agent = await r.agent(group="one", protocol=protocol)
    seen: list[wire.OpenStream] = []

    def take(_link: Link, opening: wire.OpenStream) -> asyncio.Protocol:
        seen.append(opening)
        return Serving()

    agent.stream_opened = take  # type: ignore[method-assign,assignment]
    [row] = await r.submit()
    row = await r.until_state(row.id, "running")
    await r.control.streams.open(f"{row.id}.1.0", "", 80, Serving(), **more)  # type: ignore[arg-type]

    async def there() -> bool:
        return bool(seen)

    await until(there, "the stream")
    welcome = next(message for message in agent.got if isinstance(message, wire.Welcome))
    return row.members[0].agent, seen[0], welcome


def checked(agent: str, opening: wire.OpenStream, welcome: wire.Welcome) -> Grant:
    """Return the grant as its agent and a relay see it."""
    assert welcome.grant_key == agent_key(CONFIG.secret_key, agent, 0)
    grant = for_agent(opening.grant, welcome.grant_key, welcome.now)
    assert for_relay(opening.grant, relay_key(CONFIG.secret_key), welcome.now) == grant
    assert permits(grant, opening)
    assert (grant.agent, grant.project, grant.session) == (agent, "default", opening.run.partition(".")[0])
    return grant


async def test_a_stream_carries_its_grant() -> None:
    async with ring() as r:
        agent, opening, welcome = await opened(r, wire.PROTOCOL, user="ada")
        grant = checked(agent, opening, welcome)
        assert (grant.user, grant.port, grant.resume) == ("ada", 80, b"")
        assert abs(welcome.now - time.time()) < 60
        assert welcome.now < grant.expires_at < welcome.now + LIFE_S + 60


async def test_a_stream_that_may_be_resumed_is_granted_by_its_id() -> None:
    async with ring() as r:
        agent, opening, welcome = await opened(r, wire.PROTOCOL, use=Use.BULK)
        assert checked(agent, opening, welcome).resume == opening.resume != b""
        assert checked(agent, opening, welcome).user == ""


async def test_an_agent_of_the_protocol_before_gets_none() -> None:
    async with ring() as r:
        _, opening, _ = await opened(r, wire.GRANTS - 1, use=Use.BULK)
        assert (opening.grant, opening.resume) == (b"", b"")
