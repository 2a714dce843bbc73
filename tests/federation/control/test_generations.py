"""Certificates are counted: an older one than was used is a clone's, and locks both out; a lost answer is no clone."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from atoll.agent import Agent
from atoll.errors import Unauthorized
from atoll.states import AgentState, Reason
from tests.fakes.agent import ScriptedAgent
from tests.federation.control.ring import Ring, ring, until
from tunnel import wire

VIRTUAL_TIME = True


async def member(r: Ring) -> tuple[str, ScriptedAgent]:
    """Join an agent, which dials with the certificate that it was given: the first."""
    _, secret = await r.control.tokens.create_join(site="here", group="hall")
    joined = await r.control.tokens.join(secret, "key of one", "one", {})
    assert joined.certificate.endswith("/1")
    return joined.agent.id, await dialled(r, joined.agent.id, 1)


async def dialled(r: Ring, key: str, generation: int) -> ScriptedAgent:
    """Dial as whoever has that certificate; return when answered."""
    agent = ScriptedAgent(r.network.dialer(key, generation=generation))
    await agent.dial()

    async def answered() -> bool:
        return any(isinstance(message, wire.Welcome | wire.Refuse) for message in agent.got)

    await until(answered, "an answer")
    return agent


async def renewed(agent: ScriptedAgent, csr: str = "key of one") -> wire.Certificate | None:
    """Ask for another certificate over the link; None where there is no answer."""
    before = len(agent.got)
    agent._send(wire.Renew(csr=csr))
    await asyncio.sleep(0.1)
    found: Sequence[wire.FromControl] = agent.got[before:]
    return next((message for message in found if isinstance(message, wire.Certificate)), None)


async def row_of(r: Ring, key: str) -> Agent:
    return await r.control.agents.get(key)


async def test_each_certificate_has_the_next_number_and_counts_as_used_once_it_was() -> None:
    async with ring() as r:
        key, agent = await member(r)
        assert ((await row_of(r, key)).generation, (await row_of(r, key)).generation_used) == (1, 1)
        second = await renewed(agent)
        assert second
        assert (second.generation, second.certificate.rpartition("/")[2]) == (2, "2")
        assert (await row_of(r, key)).generation_used == 1
        agent = await dialled(r, key, 2)
        assert (await row_of(r, key)).generation_used == 2


async def test_who_crashed_before_it_kept_the_new_one_shows_the_last_and_is_no_clone() -> None:
    async with ring() as r:
        key, agent = await member(r)
        for number in (2, 3, 4):
            lost = await renewed(agent)
            assert lost
            assert lost.generation == number
            agent = await dialled(r, key, 1)
            assert agent.refused is None
        assert (await row_of(r, key)).generation_used == 1


async def test_what_was_kept_for_good_makes_the_one_before_worthless_while_the_link_lives_on() -> None:
    async with ring() as r:
        key, agent = await member(r)
        await renewed(agent)
        agent._send(wire.Kept(authorities=[], generation=9))  # not one that was ever issued
        agent._send(wire.Kept(authorities=[], generation=2))
        await asyncio.sleep(0.1)
        assert (await row_of(r, key)).generation_used == 2
        assert agent.link, "the link of the first certificate lives on"
        thief = await dialled(r, key, 1)
        assert thief.refused
        assert thief.refused.code == Reason.CLONED


async def test_an_older_certificate_than_was_used_locks_both_out() -> None:
    async with ring() as r:
        key, agent = await member(r)
        await renewed(agent)
        owner = await dialled(r, key, 2)
        thief = await dialled(r, key, 1)
        for each in (thief, owner):
            assert each.refused
            assert (each.refused.code, each.refused.final) == (Reason.CLONED, True)
            assert "two machines have its key" in each.refused.message
        row = await row_of(r, key)
        assert (row.state, row.reason) == (AgentState.REVOKED, Reason.CLONED)
        assert r.control.links.live(key) is None
        events = await r.store.events(0, 1000, ("agent",))
        assert [event.reason for event in events if event.state == "revoked"] == [Reason.CLONED]
        assert (await dialled(r, key, 2)).refused


async def test_a_thief_who_renews_first_is_found_out_when_the_owner_comes_back() -> None:
    async with ring() as r:
        key, _ = await member(r)
        stolen = await r.control.tokens.renew(f"certificate of {key}/1", "key of one")
        thief = await dialled(r, key, int(stolen.rpartition("/")[2]))
        assert thief.refused is None
        owner = await dialled(r, key, 1)
        assert owner.refused
        assert thief.refused, "and the thief is out, too"
        with pytest.raises(Unauthorized, match="was revoked"):
            await r.control.tokens.renew(stolen, "key of one")


async def test_an_old_certificate_is_found_out_where_ended_ones_are_renewed_too() -> None:
    async with ring() as r:
        key, agent = await member(r)
        await renewed(agent)
        owner = await dialled(r, key, 2)
        with pytest.raises(Unauthorized, match="two machines have its key"):
            await r.control.tokens.renew(f"certificate of {key}/1", "key of one")
        await asyncio.sleep(0.1)
        assert owner.link is None
        assert owner.refused


async def test_a_certificate_is_for_the_agents_own_key_and_itself() -> None:
    async with ring() as r:
        key, agent = await member(r)
        assert await renewed(agent, "another key") is None
        assert agent.refused, "told why, before the link is closed"
        assert (await row_of(r, key)).generation == 1


async def test_an_agent_of_before_certificates_were_counted_begins_to_count() -> None:
    async with ring() as r:
        key, _ = await member(r)
        async with r.control.changes.commit("test") as change:
            row = await change.tx.get(Agent, key)
            assert row
            await change.tx.update(replace(row, generation=0, generation_used=0))
        agent = await dialled(r, key, 0)
        assert agent.refused is None
        second = await renewed(agent)
        assert second
        assert second.generation == 1


async def test_a_store_put_back_from_a_backup_catches_up() -> None:
    async with ring() as r:
        key, _ = await member(r)
        agent = await dialled(r, key, 7)  # issued after the backup
        assert agent.refused is None
        next_one = await renewed(agent)
        assert next_one
        assert next_one.generation == 8
