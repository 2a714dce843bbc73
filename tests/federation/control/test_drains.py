"""Drains with a deadline: what is moved once it is over, what stays, what `why` says, and that it can be cancelled."""

from dataclasses import replace

import pytest

from atoll.agent import Agent
from atoll.errors import Invalid
from atoll.session import Checkpoint, Lifetime, Session
from atoll.slots import GIB, Request, Slots
from atoll.states import AgentState, Reason
from tests.fakes.agent import ScriptedAgent
from tests.federation.control.ring import Ring, ring, until

VIRTUAL_TIME = True

SAVES = Checkpoint(grace=5.0, every=0.0)
HALF = Request(cpu=2000)


async def only_agent(r: Ring) -> Agent:
    [row] = await r.control.agents.list()
    return row


async def three(r: Ring) -> tuple[Session, Session, Session]:
    """Return running sessions that can be moved, that are protected, and that take no checkpoint."""
    [free] = await r.submit(name="free", checkpoint=SAVES)
    [kept] = await r.submit(name="kept", checkpoint=SAVES, lifetime=Lifetime(protect=True))
    [plain] = await r.submit(name="plain")
    for row in (free, kept, plain):
        await r.until_state(row.id, "running")
    return free, kept, plain


async def heard(agent: ScriptedAgent, run: str) -> bool:
    return run in agent.asked


async def moving(r: Ring, row: Session) -> Session | None:
    now = await r.session(row.id)
    return now if now.moving else None


async def test_after_the_deadline_what_can_be_moved_is_moved_and_the_rest_stays() -> None:
    async with ring() as r:
        old = await r.agent(group="one", capacity=Slots(cpu=4000, memory=4 * GIB))
        free, kept, plain = await three(r)
        agent = await only_agent(r)
        await r.agent(group="two", site="there")
        await r.control.agents.cordon("one", by="ada", deadline_s=0.4)
        why = await r.control.why.agent("one")
        assert (why.state, why.reason, why.message) == ("draining", "USER", "cordoned by ada")
        assert "moved in 0.4s: free" in why.hint or "moved in 0.3s: free" in why.hint
        assert "end by themselves: kept (protected), plain (takes no checkpoint)" in why.hint
        assert "`atoll agent uncordon one` cancels" in why.hint
        assert not await moving(r, free), "its time has not come"
        asked = await until(lambda: moving(r, free), "asked for a checkpoint")
        assert asked.moving
        assert "the time to drain its machine is over" in asked.moving.message
        await until(lambda: heard(old, f"{free.id}.1.0"), "its agent is asked")
        old.end(f"{free.id}.1.0", 85)

        async def elsewhere() -> bool:
            row = await r.session(free.id)
            return (row.state, row.site) == ("running", "there")

        await until(elsewhere, "it goes on elsewhere")
        for row in (kept, plain):
            now = await r.session(row.id)
            assert (now.state, now.members[0].agent, now.moving) == ("running", agent.id, None)
        assert "now, for the time is over: none" in (await r.control.why.agent("one")).hint


async def test_an_uncordon_cancels_the_deadline() -> None:
    async with ring() as r:
        await r.agent(group="one")
        [row] = await r.submit(checkpoint=SAVES)
        await r.until_state(row.id, "running")
        due = await r.control.agents.cordon("one", by="ada", deadline_s=0.2)
        assert due.drain_until
        back = await r.control.agents.uncordon("one", by="ada")
        assert (back.state, back.drain_until) == (AgentState.READY, None)
        assert (await r.control.why.agent("one")).hint == ""
        rounds = r.control.clock.now() + 0.5
        await until(lambda: passed(r, rounds), "the deadline that was")
        assert not await moving(r, row)
        assert (await r.control.agents.cordon("one", by="ada")).drain_until is None, "an old one does not come back"


async def passed(r: Ring, moment: float) -> bool:
    return r.control.clock.now() > moment


async def test_a_deadline_can_be_changed_and_a_plain_cordon_leaves_it() -> None:
    async with ring() as r:
        await r.agent(group="one")
        first = await r.control.agents.cordon("one", by="ada")
        assert first.drain_until is None
        due = await r.control.agents.cordon("one", by="ada", deadline_s=60.0)
        assert (due.epoch, due.cordon_epoch) == (first.epoch, first.cordon_epoch), "one drain, one acknowledgement"
        same = await r.control.agents.cordon("one", by="bob")
        assert (same.drain_until, same.message) == (due.drain_until, "cordoned by ada")
        later = await r.control.agents.cordon("one", by="bob", deadline_s=600.0)
        assert later.drain_until
        assert due.drain_until
        assert later.drain_until > due.drain_until + 500


async def test_a_deadline_makes_a_plans_drain_a_persons() -> None:
    async with ring() as r:
        await r.agent(group="one")
        row = await only_agent(r)
        async with r.control.changes.commit("test") as change:
            await change.tx.update(replace(row, state=AgentState.DRAINING, reason=Reason.IDLE))
        assert (await r.control.agents.cordon("one", by="ada")).reason is Reason.IDLE
        assert (await r.control.agents.cordon("one", by="ada", deadline_s=9.0)).reason is Reason.USER


async def test_a_group_is_closed_with_a_deadline() -> None:
    async with ring() as r:
        await r.elastic()
        [row] = await r.submit(checkpoint=SAVES, resources=HALF)
        await r.until_state(row.id, "running")
        with pytest.raises(Invalid, match="not both"):
            await r.control.groups.terminate("burst", now=True, by="ada", deadline_s=1.0)
        await r.control.groups.terminate("burst", now=False, by="ada", deadline_s=0.0)
        agent, run = r.run_of(await r.session(row.id))
        await until(lambda: heard(agent, run), "asked")
        agent.end(run, 85)
        waits = await until(lambda: waiting(r, row), "back in the queue")
        assert (waits.moves, waits.interruptions) == (1, 0)
        await until(lambda: empty(r), "its machine goes")


async def waiting(r: Ring, row: Session) -> Session | None:
    now = await r.session(row.id)
    return now if now.state in ("queued", "held") else None


async def empty(r: Ring) -> bool:
    return not r.cloud.live()
