"""Each stream that the control plane opens carries a grant of just that, for agents that know of grants."""

import asyncio
import hashlib
from dataclasses import replace

import pytest
from msgspec import structs

from atoll.errors import BLIND, Conflict, NotFound, Unavailable
from tests.federation.control.ring import CONFIG, Ring, ring, until
from tunnel import wire
from tunnel.grant import LIFE_S, USER_LIFE_S, Grant, agent_key, for_agent, for_relay, permits, relay_key
from tunnel.lanes import Use
from tunnel.link import Link

VIRTUAL_TIME = True


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
        assert abs(welcome.now - r.clock.now()) < 60
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


async def placed(r: Ring, protocol: int) -> tuple[str, str, wire.Welcome]:
    """Run a session; return its run, its agent, and what that agent was told at first."""
    agent = await r.agent(group="one", protocol=protocol)
    [row] = await r.submit()
    row = await r.until_state(row.id, "running")
    welcome = next(message for message in agent.got if isinstance(message, wire.Welcome))
    return f"{row.id}.1.0", row.members[0].agent, welcome


async def test_a_user_is_permitted_one_stream_for_minutes_and_the_same_again() -> None:
    async with ring() as r:
        run, agent, welcome = await placed(r, wire.PROTOCOL)
        streams = r.control.streams
        made = await streams.permit(run, "", 80, user="ada", token="t-ada")
        grant = checked(agent, made.opening, welcome)
        assert (grant.user, grant.token, grant.port, grant.run) == ("ada", "t-ada", 80, run)
        assert made.expires_at == grant.expires_at
        assert abs(grant.expires_at - streams.now() - USER_LIFE_S) < 60
        again = await streams.permit(run, "", 80, user="ada", token="t-ada", resume=grant.resume)
        assert again.opening.resume == made.opening.resume
        assert checked(agent, again.opening, welcome).id != grant.id
        other = await streams.permit(run, "", 80, user="ada", token="t-ada")
        assert other.opening.resume != made.opening.resume
        assert [(way.host, way.port, way.server_name) for way in streams.ways(agent)] == [
            ("control", 443, wire.CONTROL_NAME)
        ]


async def test_nothing_is_permitted_to_old_agents_revoked_ones_and_ended_runs() -> None:
    async with ring() as r:
        run, _, _ = await placed(r, wire.GRANTS - 1)
        with pytest.raises(Conflict, match="too old"):
            await r.control.streams.permit(run, "", 80, user="ada", token="t-ada")
    async with ring() as r:
        run, agent, _ = await placed(r, wire.PROTOCOL)
        with pytest.raises(NotFound):
            await r.control.streams.permit(run.replace(".1.0", ".2.0"), "", 80, user="ada", token="t-ada")
        await r.control.agents.revoke(agent, by="ada")
        with pytest.raises(Unavailable):
            await r.control.streams.permit(run, "", 80, user="ada", token="t-ada")


@pytest.mark.parametrize("by_site", [False, True])
async def test_a_blind_session_is_permitted_blind_streams_alone(by_site: bool) -> None:
    async with ring() as r:
        agent = await r.agent(group="one")
        site = await r.control.sites.get("here")
        await r.control.sites.apply(replace(site, blind=by_site))
        [row] = await r.submit(blind=not by_site)
        row = await r.until_state(row.id, "running")
        run, streams = f"{row.id}.1.0", r.control.streams
        assert [message.spec.blind for message in agent.got if isinstance(message, wire.Start)] == [True]
        for use in Use:
            with pytest.raises(Conflict, match="is blind") as refused:
                await streams.open(run, "", 80, Serving(), use=use)
            assert refused.value.reason == BLIND
        with pytest.raises(Conflict, match="is blind"):
            await streams.open(run, "", 0, Serving(), exec=True)
        with pytest.raises(Conflict, match="is blind"):
            await streams.permit(run, "", 80, user="ada", token="t-ada")
        certificate = b"der"
        digest = hashlib.sha256(certificate).digest()
        made = await streams.permit(run, "", 80, user="ada", token="t-ada", client=digest)
        welcome = next(message for message in agent.got if isinstance(message, wire.Welcome))
        opening = structs.replace(made.opening, client=certificate)
        assert checked(row.members[0].agent, opening, welcome).client == digest
