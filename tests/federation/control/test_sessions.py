"""Sessions through their life on registered agents."""

import pytest

from atoll.errors import Conflict, Invalid, NotFound
from atoll.session import Lifetime, Retry, Session
from atoll.slots import GpuRequest, Request
from tests.federation.control.ring import Ring, ring, until

VIRTUAL_TIME = True


async def test_a_session_runs_and_ends_with_its_exit_code() -> None:
    async with ring() as r:
        await r.agent()
        [row] = await r.submit(name="first")
        await r.finish(row.id, 7)
        done = await r.until_state(row.id, "failed")
        assert (done.exit_code, done.reason, done.site) == (7, "EXITED", "here")
        why = await r.control.why.session("default", "first")
        assert why.decisions[0][1].outcome == "place"
        assert [event.state for event in why.events] == ["queued", "starting", "running", "failed"]


async def test_sessions_wait_for_free_slots_and_then_run() -> None:
    async with ring() as r:
        await r.agent()
        rows = await r.submit(count=3, resources=Request(cpu=1000))
        for row in rows[:2]:
            await r.until_state(row.id, "running")
        waiting = await r.session(rows[2].id)
        assert (waiting.state, waiting.reason) == ("queued", "SLOTS_EXPECTED")
        await r.finish(rows[0].id)
        await r.until_state(rows[2].id, "running")


async def test_an_impossible_request_is_held_with_a_hint() -> None:
    async with ring() as r:
        await r.agent()
        [row] = await r.submit(resources=Request(gpu=GpuRequest(milli=9_000_000)))
        held = await r.until_state(row.id, "held")
        assert held.reason == "NO_CAPABLE_SITE"
        assert "9000" in held.message
        assert held.hint


async def test_a_gang_starts_on_distinct_agents_and_one_failure_ends_all() -> None:
    async with ring() as r:
        await r.agent(group="one")
        [row] = await r.submit(nodes=2)
        assert (await until(lambda: waits(r, row.id), "decided")) == "queued"
        await r.agent(group="two")
        running = await r.until_state(row.id, "running")
        assert len({member.agent for member in running.members}) == 2
        agent, run = r.run_of(running, 1)
        agent.end(run, 3)
        done = await r.until_state(row.id, "failed")
        assert done.exit_code == 3
        assert [member.exit_code for member in done.members] == [143, 3]


async def waits(r: Ring, key: str) -> str:
    row = await r.session(key)
    return row.state if row.reason != "SUBMITTED" else ""


async def test_stop_cancels_waiting_and_running_sessions() -> None:
    async with ring() as r:
        [waiting] = await r.submit()
        assert (await r.control.sessions.stop("default", waiting.id, by="me")).state == "cancelled"
        await r.agent()
        [row] = await r.submit()
        await r.until_state(row.id, "running")
        await r.control.sessions.stop("default", row.id, by="me")
        done = await r.until_state(row.id, "cancelled")
        assert done.exit_code == 143


async def test_a_session_past_its_lifetime_expires() -> None:
    async with ring() as r:
        await r.agent()
        [row] = await r.submit(lifetime=Lifetime(max=0.1))
        assert (await r.until_state(row.id, "expired")).reason == "MAX_LIFETIME"
        [row] = await r.submit(lifetime=Lifetime(max_wait=0.1), resources=Request(cpu=2001))
        assert (await r.until_state(row.id, "expired")).reason == "MAX_WAIT"


async def test_a_lost_link_is_shown_and_its_return_too() -> None:
    async with ring() as r:
        agent = await r.agent()
        [row] = await r.submit()
        running = await r.until_state(row.id, "running")
        r.network.reset(running.members[0].agent)
        await r.until_state(row.id, "lost")
        await agent.dial()
        back = await r.until_state(row.id, "running")
        assert back.attempt == 1
        assert agent.started == [f"{row.id}.1.0"]


async def test_an_exit_while_the_link_was_down_is_not_lost() -> None:
    async with ring() as r:
        agent = await r.agent()
        [row] = await r.submit()
        running = await r.until_state(row.id, "running")
        r.network.reset(running.members[0].agent)
        agent.end(f"{row.id}.1.0", 5)
        await r.until_state(row.id, "lost")
        await agent.dial()
        assert (await r.until_state(row.id, "failed")).exit_code == 5


async def test_a_leased_session_is_taken_back_after_its_lease_only_if_it_opted_in() -> None:
    async with ring() as r:
        await r.agent(group="one")
        [leased] = await r.submit(retry=Retry(lost=True, lease=0.5))
        [patient] = await r.submit()
        running = await r.until_state(leased.id, "running")
        await r.until_state(patient.id, "running")
        r.network.refuse(running.members[0].agent, True)
        r.network.reset(running.members[0].agent)
        second = await r.agent(group="two")
        again = await until(lambda: attempt(r, leased.id, 2), "second attempt")
        assert again.interruptions == 1
        assert second.started == [f"{leased.id}.2.0"]
        assert (await r.session(patient.id)).state == "lost"


async def attempt(r: Ring, key: str, number: int) -> Session | None:
    row = await r.session(key)
    return row if row.attempt == number and row.state == "running" else None


async def test_a_run_that_is_not_the_agents_is_killed_at_registration() -> None:
    async with ring() as r:
        agent = await r.agent()
        [row] = await r.submit()
        await r.finish(row.id)
        await r.until_state(row.id, "succeeded")
        assert agent.link
        agent.end("s-unknown.1.0", None)
        agent.runs["s-other.1.0"] = agent.runs["s-unknown.1.0"].__class__(run="s-other.1.0", state="running")
        r.network.reset(next(iter(r.agents)))
        await agent.dial()

        async def gone() -> bool:
            return "s-other.1.0" not in agent.runs

        await until(gone, "killed")


async def test_restart_of_the_control_plane_loses_nothing_and_runs_nothing_twice() -> None:
    async with ring() as r:
        agent = await r.agent()
        rows = await r.submit(count=2)
        for row in rows:
            await r.until_state(row.id, "running")
        [late] = await r.submit(resources=Request(cpu=2000))
        await r.restart()
        await agent.dial()
        for row in rows:
            await r.finish(row.id)
            await r.until_state(row.id, "succeeded")
        await r.finish(late.id)
        await r.until_state(late.id, "succeeded")
        assert len(agent.started) == len(set(agent.started)) == 3


async def test_bad_requests_are_refused_in_words() -> None:
    async with ring() as r:
        with pytest.raises(Invalid, match="needs a command"):
            await r.submit(command=())
        await r.submit(name="same")
        with pytest.raises(Conflict, match="same"):
            await r.submit(name="same")
        with pytest.raises(NotFound) as error:
            await r.session("sane")
        assert "same" in error.value.hint


async def test_an_idempotent_repeat_returns_the_same_sessions() -> None:
    async with ring() as r:
        spec = (await r.submit())[0].spec
        first = await r.control.sessions.submit(spec, project="p", owner="me", count=2, idempotency=("k", "f"))
        again = await r.control.sessions.submit(spec, project="p", owner="me", count=2, idempotency=("k", "f"))
        assert [row.id for row in first] == [row.id for row in again]
        with pytest.raises(Conflict, match="Idempotency-Key"):
            await r.control.sessions.submit(spec, project="p", owner="me", count=3, idempotency=("k", "g"))
