"""S2: an agent touches only its own sessions, whatever it says about others'."""

import asyncio
from dataclasses import replace

import pytest
from msgspec import structs

from atoll.session import Retry, Session
from atoll.states import SessionState
from tests.fakes.agent import ScriptedAgent
from tests.federation.control.ring import Ring, ring, until
from tunnel import wire


async def two(r: Ring) -> tuple[ScriptedAgent, Session, str, ScriptedAgent]:
    """Return an agent with a running session (and its run), and another agent that wants to get at it."""
    victim = await r.agent(group="one")
    [row] = await r.submit(retry=Retry(lost=True))
    row = await r.until_state(row.id, "running")
    return victim, row, f"{row.id}.1.0", await r.agent(group="two")


async def settled() -> None:
    await asyncio.sleep(0.15)


async def unchanged(r: Ring, before: Session) -> None:
    now = await r.session(before.id)
    assert replace(now, version=before.version) == before


@pytest.mark.parametrize("state", ["starting", "running", "exited"])
async def test_reports_about_anothers_run_change_nothing(state: str) -> None:
    async with ring() as r:
        _, row, run, thief = await two(r)
        before = await r.session(row.id)
        thief._send(wire.Report(report=wire.RunReport(run=run, state=state, exit_code=1, apps={"web": 1}, out=9)))
        await settled()
        await unchanged(r, before)
        told = [message for message in thief.got if isinstance(message, wire.Stop | wire.Forget)]
        assert told, "it is to end or forget what is not its own"


async def test_a_hello_with_anothers_run_changes_nothing_and_is_answered_by_kill() -> None:
    async with ring() as r:
        _, row, run, thief = await two(r)
        before = await r.session(row.id)
        thief.runs = {run: wire.RunReport(run=run, state="running")}
        await thief.dial()
        await settled()
        await unchanged(r, before)
        welcome = [message for message in thief.got if isinstance(message, wire.Welcome)][-1]
        assert welcome.kill == [run]


LIES = {
    "nothing before": None,
    "a report of its end": wire.RunReport(run="", state="exited", exit_code=0, out=10**9, err=10**9),
    "a report that it runs": wire.RunReport(run="", state="running"),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("way", ["report", "hello"])
async def test_output_for_anothers_run_is_not_kept(lie: str, way: str) -> None:
    async with ring() as r:
        victim, row, run, thief = await two(r)
        victim._send(wire.Log(run=run, channel="out", offset=0, data=b"mine"))
        await settled()
        said = LIES[lie]
        if said is not None and way == "report":
            thief._send(wire.Report(report=structs.replace(said, run=run)))
        elif said is not None:
            thief.runs = {run: structs.replace(said, run=run)}
            await thief.dial()
        await settled()
        for channel, offset in (("out", 0), ("out", 4), ("err", 0), ("out", 10**6)):
            thief._send(wire.Log(run=run, channel=channel, offset=offset, data=b"forged"))
        await settled()
        assert await r.logs.read(run, "out", 0, 100) == b"mine"
        assert await r.logs.size(run, "err") == 0
        victim._send(wire.Log(run=run, channel="out", offset=4, data=b" too"))
        await settled()
        assert await r.logs.read(run, "out", 0, 100) == b"mine too"
        assert not r.control.links.owes(run), "nobody waits for output that will never come"
        assert (await r.session(row.id)).state == SessionState.RUNNING


async def test_output_of_an_earlier_attempt_is_still_its_agents_and_nobody_elses() -> None:
    async with ring() as r:
        first, row, run, thief = await two(r)
        assert first.link
        first.link.close("gone for a while")

        async def again() -> Session | None:
            now = await r.session(row.id)
            return now if now.attempt == 2 and now.state == "running" else None

        async with r.control.changes.commit("test") as change:
            now = await change.tx.get(Session, row.id)
            assert now
            await change.interrupt(now, now.reason, "its link was down")
        row = await until(again, "a second attempt")
        assert r.agents[row.members[0].agent] is thief, "where nothing of the first attempt ran"
        first.runs[run] = wire.RunReport(run=run, state="exited", exit_code=0, out=5)
        await first.dial()
        thief._send(wire.Log(run=run, channel="out", offset=0, data=b"forged"))
        await settled()
        assert await r.logs.size(run, "out") == 0
        first._send(wire.Log(run=run, channel="out", offset=0, data=b"truth"))
        await settled()
        assert await r.logs.read(run, "out", 0, 100) == b"truth"
        assert run not in first.runs, "told to forget it once all is kept"


async def test_other_words_about_anothers_run_change_nothing() -> None:
    async with ring() as r:
        _, row, run, thief = await two(r)
        before = await r.session(row.id)
        for message in (
            wire.NoCheckpoint(run=run, asked_at=0.0, message="no"),
            wire.CordonAck(epoch=99, runs=[run]),
            wire.Kept(authorities=["ab" * 32], generation=99),
            wire.Notice(in_s=1.0, message="it burns"),
        ):
            thief._send(message)
        await settled()
        await unchanged(r, before)
        agents = {row.name: row for row in await r.control.agents.list()}
        assert (agents["two"].state, agents["two"].acknowledged_epoch) == ("ready", 0)
        [mine] = row.members
        live = r.control.links.live(mine.agent)
        assert live
        assert live.notice == "", "a notice is of whoever sends it"


async def test_an_agent_may_open_no_stream_and_leave_for_nobody_else() -> None:
    async with ring() as r:
        victim, row, run, thief = await two(r)
        assert thief.link
        thief._send(wire.Leave(reason="the other one"))
        await settled()
        agents = {row.name: str(row.state) for row in await r.control.agents.list(states=("ready", "left"))}
        assert agents == {"one": "ready", "two": "left"}
        assert victim.link
        assert (await r.session(row.id)).state == "running"
        assert run in victim.runs
