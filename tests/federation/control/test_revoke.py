"""A revoked agent: its streams end at once, its word counts no more, it never comes back, nothing runs twice."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import pytest

from atoll.errors import Conflict, NotFound, Unauthorized
from atoll.session import Retry, Session
from atoll.slots import Request
from atoll.states import AgentState, InstanceState, Reason
from tests.fakes.agent import ScriptedAgent
from tests.federation.control.ring import Ring, ring, until
from tests.sim.clocks import SimClock
from tests.tunnel import virtual
from tunnel import wire
from tunnel.lanes import Use

VIRTUAL_TIME = True

T = TypeVar("T")


class Serving(asyncio.Protocol):
    """The agent's end of a stream: stays open."""


class User(asyncio.Protocol):
    """The user's end: notes when it ended."""

    ended: float | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = asyncio.get_running_loop().time()


@asynccontextmanager
async def virtual_ring() -> AsyncIterator[Ring]:
    async def aside(call: Callable[..., T], *args: object) -> T:
        return call(*args)

    async with ring(aside=aside, clock=SimClock(asyncio.get_running_loop())) as r:
        yield r


async def serving(r: Ring, retry: Retry | None = None) -> tuple[ScriptedAgent, Session]:
    """Have a session run on an agent that takes streams."""
    agent = await r.agent(group="one")
    agent.serve = Serving
    [row] = await r.submit(retry=retry or Retry())
    return agent, await r.until_state(row.id, "running")


async def attempt(r: Ring, key: str, number: int) -> Session | None:
    row = await r.session(key)
    return row if row.attempt == number and row.state == "running" else None


async def refused_by(agent: ScriptedAgent) -> wire.Refuse:
    async def told() -> wire.Refuse | None:
        return agent.refused

    return await until(told, "refused")


def test_its_streams_and_its_link_end_within_a_second() -> None:
    async def main() -> None:
        async with virtual_ring() as r:
            agent, row = await serving(r)
            key, run = row.members[0].agent, f"{row.id}.1.0"
            users = [User() for _ in range(3)]
            for user, use in zip(users, (Use.SHORT, Use.SHORT, Use.BULK), strict=True):
                await r.control.streams.open(run, "", 80, user, use=use)
            await asyncio.sleep(1.0)
            assert [user.ended for user in users] == [None] * 3
            began = asyncio.get_running_loop().time()
            await r.control.agents.revoke(key, by="ada")
            await asyncio.sleep(0.9)
            assert all(user.ended is not None and user.ended - began < 1 for user in users)
            assert agent.link is None
            assert (await refused_by(agent)).final
            assert r.control.links.live(key) is None

    virtual.run(main())


async def test_a_revoked_agent_is_refused_for_good_and_so_is_its_key() -> None:
    async with ring() as r:
        agent, row = await serving(r)
        key = row.members[0].agent
        revoked = await r.control.agents.revoke("one", by="ada")
        assert (revoked.state, revoked.reason, revoked.message) == ("revoked", "REVOKED", "revoked by ada")
        assert (await r.control.agents.revoke(key, by="bob")).message == "revoked by ada", "a repeat changes nothing"
        events = await r.store.events(0, 1000, ("agent",))
        assert [(e.key, e.message) for e in events if e.state == "revoked"] == [(key, "revoked by ada")]
        agent.refused = None
        await agent.dial()
        refusal = await refused_by(agent)
        assert (refusal.code, refusal.final) == ("REVOKED", True)
        assert "revoked by ada" in refusal.message
        assert r.control.links.live(key) is None
        with pytest.raises(Unauthorized):
            await r.control.tokens.renew(f"signed for {key}/1", "key of one")
        token, secret = await r.control.tokens.create_join(site="here", group="hall")
        with pytest.raises(Unauthorized, match="was revoked"):
            await r.control.tokens.join(secret, "key of one", "again", {})
        assert (await r.control.tokens.list())[-1].uses_left == token.uses_left, "that refusal uses nothing up"
        await r.control.tokens.join(secret, "a new key", "again", {})


async def test_what_it_ran_is_lost_and_runs_again_only_when_that_is_safe() -> None:
    async with ring() as r:
        agent, leased = await serving(r, retry=Retry(lost=True, lease=0.5))
        [patient] = await r.submit()
        patient = await r.until_state(patient.id, "running")
        key = patient.members[0].agent
        second = await r.agent(group="two")
        began = asyncio.get_running_loop().time()
        await r.control.agents.revoke(key, by="ada")
        row = await r.session(patient.id)
        assert (row.state, row.reason) == ("lost", Reason.REVOKED)
        assert "atoll agent remove one" in row.hint
        await until(lambda: attempt(r, leased.id, 2), "the leased one's second attempt")
        assert asyncio.get_running_loop().time() - began >= 0.5
        await r.restart()
        await second.dial()
        await asyncio.sleep(1.0)
        assert (await r.session(patient.id)).state == "lost", "a restart does not make it safe"
        assert (await r.control.agents.remove("one", by="ada")).state is AgentState.LEFT
        await until(lambda: attempt(r, patient.id, 2), "the other's second attempt")
        assert second.started == [f"{leased.id}.2.0", f"{patient.id}.2.0"]
        assert agent.started == [f"{leased.id}.1.0", f"{patient.id}.1.0"]


async def test_what_it_sent_before_and_nobody_took_in_counts_no_more() -> None:
    async with ring() as r:
        agent, row = await serving(r)
        key, run = row.members[0].agent, f"{row.id}.1.0"
        link = next(link for link in r.control.links._inboxes if link.peer == key)
        report = wire.RunReport(run=run, state="exited", exit_code=0)
        async with r.control.changes._lock:
            revoking = asyncio.create_task(r.control.agents.revoke(key, by="ada"))
            await asyncio.sleep(0)
            r.control.links.received(link, wire.Report(report=report))
            await asyncio.sleep(0.05)
        await revoking
        await asyncio.sleep(0.3)
        assert (await r.session(row.id)).state == "lost"
        assert agent.link is None


async def test_a_revoked_agents_machine_is_ended_and_then_its_session_runs_again() -> None:
    async with ring() as r:
        await r.elastic()
        [row] = await r.submit(resources=Request(cpu=3000))
        placed = await r.until_state(row.id, "running")
        [machine] = r.cloud.live()
        await r.control.agents.revoke(placed.members[0].agent, by="ada")
        await until(lambda: attempt(r, row.id, 2), "a second attempt")
        first = next(i for i in await r.control.instances.list() if i.provider_id == machine.provider_id)
        assert (first.state, first.reason) == (InstanceState.GONE, Reason.REVOKED)
        assert (await r.control.agents.get(placed.members[0].agent)).state is AgentState.GONE
        await r.finish(row.id)


async def test_who_is_not_there_cannot_be_revoked() -> None:
    async with ring() as r:
        await r.agent(group="one")
        await r.control.agents.remove("one", by="ada")
        with pytest.raises(Conflict, match="is left"):
            await r.control.agents.revoke("one", by="ada")
        with pytest.raises(NotFound):
            await r.control.agents.revoke("nobody", by="ada")
