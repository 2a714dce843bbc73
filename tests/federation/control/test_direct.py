"""Agents with a door of their own: users hear of it first, and it is told whose credentials have ended."""

import pytest

from tests.fakes.agent import ScriptedAgent
from tests.federation.control.ring import Ring, ring, until
from tunnel import wire
from tunnel.dialer import host_port
from tunnel.door import Way

VIRTUAL_TIME = True


async def again(r: Ring, agent: ScriptedAgent, at: str) -> str:
    """Have an agent register anew, with this address of its own; return its id."""
    [agent_id] = [key for key, each in r.agents.items() if each is agent]
    before = r.control.links.live(agent_id)
    agent.facts = {"direct": at}
    await agent.dial()

    async def registered() -> bool:
        return r.control.links.live(agent_id) is not before

    await until(registered, "registered")
    return agent_id


def evicted(agent: ScriptedAgent) -> list[str]:
    return [token for message in agent.got if isinstance(message, wire.Evict) for token in message.tokens]


async def test_an_agents_own_door_is_named_first() -> None:
    async with ring() as r:
        agent = await r.agent()
        agent_id = await again(r, agent, "192.0.2.7:7443")
        own = Way(*host_port(r.config.agent_url))
        assert r.control.streams.ways(agent_id) == [Way("192.0.2.7", 7443, f"{agent_id}.agent.atoll.internal"), own]
        assert [way.direct for way in r.control.streams.ways(agent_id)] == [True, False]


@pytest.mark.parametrize("at", ["", "http://[", "x" * 400, "192.0.2.7:99999"])
async def test_an_agent_that_says_nonsense_has_no_door(at: str) -> None:
    async with ring() as r:
        agent_id = await again(r, await r.agent(), at)
        assert r.control.streams.ways(agent_id) == [Way(*host_port(r.config.agent_url))]


async def test_a_deleted_token_is_told_to_agents_with_a_door() -> None:
    async with ring() as r:
        with_door, without = await r.agent(group="one"), await r.agent(group="two")
        await again(r, with_door, "192.0.2.7:7443")
        token, _ = await r.control.tokens.create_api("ada")
        await r.control.tokens.delete(token.id)

        async def told() -> bool:
            return evicted(with_door) == [token.id]

        await until(told, "told")
        assert evicted(without) == []


async def test_an_agent_that_was_away_learns_what_ended_meanwhile() -> None:
    async with ring() as r:
        agent = await r.agent()
        await again(r, agent, "192.0.2.7:7443")
        token, _ = await r.control.tokens.create_api("ada")
        assert agent.link is not None
        agent.link.send(wire.Inside(tokens=[token.id, "t-gone"]))

        async def told() -> bool:
            return evicted(agent) == ["t-gone"]

        await until(told, "told")
