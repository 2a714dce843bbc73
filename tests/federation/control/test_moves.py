"""Moves of sessions: what is held, what is asked, and every way in which one can end."""

import asyncio
from dataclasses import replace

import pytest

from atoll import document
from atoll.errors import Conflict, NotFound
from atoll.money import micros
from atoll.offer import Offer, OfferKind
from atoll.plan import Move
from atoll.session import Checkpoint, Lifetime, MemberState, Session, SessionType
from atoll.site import Site
from atoll.slots import Request
from atoll.states import Reason
from federation.control.demands import protection
from federation.control.moves import leaving
from tests.fakes.agent import ScriptedAgent
from tests.federation.control.ring import Ring, ring, until
from tunnel import wire

VIRTUAL_TIME = True

SAVES = Checkpoint(grace=5.0, every=0.0)
BRIEF = Checkpoint(grace=0.2, every=0.0)
WHOLE = Request(cpu=2000)


def id_of(r: Ring, agent: ScriptedAgent) -> str:
    return next(key for key, each in r.agents.items() if each is agent)


async def running(r: Ring, checkpoint: Checkpoint | None = SAVES, **spec: object) -> Session:
    [row] = await r.submit(**{"resources": WHOLE, "checkpoint": checkpoint, **spec})  # type: ignore[arg-type]
    return await r.until_state(row.id, "running")


async def asked(r: Ring, row: Session, rank: int = 0) -> str:
    """Wait until a member was asked for a checkpoint; return its run."""
    agent, run = r.run_of(row, rank)

    async def told() -> bool:
        return run in agent.asked

    await until(told, f"{run} asked")
    return run


async def attempt(r: Ring, key: str, number: int, state: str = "running") -> Session:
    async def there() -> Session | None:
        row = await r.session(key)
        return row if (row.attempt, row.state) == (number, state) else None

    return await until(there, f"attempt {number} of {key} {state}")


async def stayed(r: Ring, key: str) -> Session:
    async def there() -> Session | None:
        row = await r.session(key)
        return row if row.moving is None and row.moved_at else None

    return await until(there, "the move is over")


async def test_it_saves_its_state_and_goes_on_where_slots_were_held() -> None:
    async with ring() as r:
        one = await r.agent(group="one")
        row = await running(r)
        two = await r.agent(group="two", site="there")
        await r.control.moves.request("default", row.id, "there", by="ada")
        run = await asked(r, row)
        held = await r.session(row.id)
        assert (held.state, held.reason, held.attempt) == ("running", "USER", 1)
        assert held.moving
        assert [member.agent for member in held.moving.to] == [id_of(r, two)]
        [waits] = await r.submit(resources=WHOLE)
        one.end(run, 85, out=b"half\n")
        moved = await attempt(r, row.id, 2)
        assert (moved.site, moved.moves, moved.interruptions, moved.moving) == ("there", 1, 0, None)
        assert (moved.reason, two.started) == ("STARTED", [f"{row.id}.2.0"])
        start = next(message for message in two.got if isinstance(message, wire.Start))
        assert (start.env["ATOLL_RESUMED"], start.env["ATOLL_ATTEMPT"]) == ("1", "2")
        assert (await r.until_state(waits.id, "running")).members[0].agent == id_of(r, one)
        events = (await r.control.why.session("default", row.id)).events
        assert ("starting", "MOVED") in [(event.state, event.reason) for event in events]
        assert any("moved from here to there: asked for by ada" in event.message for event in events)
        await r.finish(row.id)
        await r.until_state(row.id, "succeeded")


async def test_held_slots_are_nobody_elses_even_for_the_next_control_plane() -> None:
    async with ring() as r:
        one = await r.agent(group="one")
        row = await running(r)
        two = await r.agent(group="two", site="there")
        await r.control.moves.request("default", row.id, id_of(r, two), by="me")
        await asked(r, row)
        [other] = await r.submit(resources=Request(cpu=1000))
        await r.restart()
        await one.dial()
        await two.dial()
        await r.until_state(other.id, "queued")

        async def told_again() -> bool:
            return one.asked == [f"{row.id}.1.0"] * 2

        await until(told_again, "the same request on the new link")
        assert len({message.asked_at for message in one.got if isinstance(message, wire.Checkpoint)}) == 1
        assert (await r.session(other.id)).state == "queued"
        with pytest.raises(Conflict, match="sessions run on agent"):
            await r.control.agents.remove(id_of(r, two), by="me")
        one.end(f"{row.id}.1.0", 85)
        await attempt(r, row.id, 2)
        assert (await r.until_state(other.id, "running")).members[0].agent == id_of(r, one)


async def test_one_that_does_not_exit_in_time_stays_and_frees_what_was_held() -> None:
    async with ring() as r:
        one = await r.agent(group="one")
        row = await running(r, BRIEF)
        two = await r.agent(group="two", site="there")
        await r.control.moves.request("default", row.id, "there", by="me")
        await asked(r, row)
        [other] = await r.submit(resources=WHOLE)
        left = await stayed(r, row.id)
        assert (left.state, left.reason, left.attempt, left.moves) == ("running", "NOT_MOVED", 1, 0)
        assert "did not exit within 0.2 s" in left.message
        assert "SIGUSR1" in left.hint
        assert (await r.until_state(other.id, "running")).members[0].agent == id_of(r, two)
        # It exits with its code after all: nothing is lost, it resumes as soon as there is a place.
        one.end(f"{row.id}.1.0", 85)
        assert (await attempt(r, row.id, 2)).moves == 1


async def test_one_that_cannot_be_asked_stays_at_once() -> None:
    async with ring() as r:
        one = await r.agent(group="one")
        one.refusal = "its main process does not handle USR1"
        row = await running(r)
        await r.agent(group="two", site="there")
        await r.control.moves.request("default", row.id, "there", by="me")
        left = await stayed(r, row.id)
        assert (left.state, left.reason) == ("running", "NOT_MOVED")
        assert left.message == "stays at here: its main process does not handle USR1"
        await r.finish(row.id)
        await r.until_state(row.id, "succeeded")


@pytest.mark.parametrize(("code", "end"), [(0, "succeeded"), (7, "failed")])
async def test_one_that_ends_otherwise_during_a_move_has_ended(code: int, end: str) -> None:
    async with ring() as r:
        one = await r.agent(group="one")
        row = await running(r)
        two = await r.agent(group="two", site="there")
        await r.control.moves.request("default", row.id, "there", by="me")
        one.end(await asked(r, row), code)
        done = await r.until_state(row.id, end)
        assert (done.exit_code, done.moving, two.started) == (code, None, [])


async def test_the_checkpoints_exit_code_means_nothing_unless_it_was_asked() -> None:
    async with ring() as r:
        one = await r.agent()
        row = await running(r)
        one.end(f"{row.id}.1.0", 85)
        assert (await r.until_state(row.id, "failed")).exit_code == 85


async def test_a_users_stop_wins_over_a_move() -> None:
    async with ring() as r:
        one = await r.agent(group="one")
        row = await running(r)
        two = await r.agent(group="two", site="there")
        await r.control.moves.request("default", row.id, "there", by="me")
        run = await asked(r, row)
        r.network.reset(id_of(r, one))
        one.end(run, 85)
        stopping = await r.control.sessions.stop("default", row.id, by="me")
        assert stopping.moving is None
        await one.dial()
        done = await r.until_state(row.id, "cancelled")
        assert (done.exit_code, two.started) == (85, [])


async def test_an_end_that_the_link_did_not_tell_is_a_move_once_it_is_back() -> None:
    async with ring() as r:
        one = await r.agent(group="one")
        row = await running(r)
        await r.agent(group="two", site="there")
        await r.control.moves.request("default", row.id, "there", by="me")
        run = await asked(r, row)
        r.network.reset(id_of(r, one))
        one.end(run, 85)
        assert (await r.until_state(row.id, "lost")).moving
        await one.dial()
        assert (await attempt(r, row.id, 2)).site == "there"


async def test_where_the_destination_goes_away_it_resumes_from_the_queue() -> None:
    async with ring() as r:
        one = await r.agent(group="one")
        row = await running(r)
        two = await r.agent(group="two", site="there")
        await r.control.moves.request("default", row.id, "there", by="me")
        run = await asked(r, row)
        await r.control.agents.cordon(id_of(r, two), by="me")

        async def given_up() -> bool:
            moving = (await r.session(row.id)).moving
            return moving is not None and not moving.to

        await until(given_up, "the place is given up")
        assert "its place at there is gone" in (await r.session(row.id)).message
        one.end(run, 85)
        again = await attempt(r, row.id, 2)
        assert (again.members[0].agent, again.moves) == (id_of(r, one), 1)


async def test_without_a_place_it_goes_to_the_queue() -> None:
    async with ring() as r:
        one = await r.agent()
        row = await running(r)
        await r.control.moves.request("default", row.id, "", by="me")
        one.end(await asked(r, row), 85)
        again = await attempt(r, row.id, 2)
        assert (again.moves, again.interruptions) == (1, 0)
        assert one.started == [f"{row.id}.1.0", f"{row.id}.2.0"]


async def begin(r: Ring, row: Session, reason: Reason, **fields: object) -> str:
    move = Move(session=row.id, attempt=row.attempt, reason=reason, message="m", **fields)  # type: ignore[arg-type]
    async with r.control.changes.commit("session.move") as change:
        refusal = await r.control.moves.begin(change, move)
    r.control.moves.on_change()
    return refusal


def place(agent: str, cpu: int = 2000) -> tuple[Offer, ...]:
    slots = replace(ScriptedAgent(None).capacity, cpu=cpu)  # type: ignore[arg-type]
    return (Offer(kind=OfferKind.AGENT, site="there", group="two", target=agent, slots=slots, price=0, cost=0),)


async def test_what_is_no_longer_so_is_refused() -> None:
    async with ring() as r:
        one = await r.agent(group="one")
        row = await running(r)
        two = await r.agent(group="two", site="there")
        there = id_of(r, two)
        assert "gone on" in await begin(r, replace(row, attempt=0), Reason.HOMECOMING)
        assert "2 places are offered" in await begin(r, row, Reason.HOMECOMING, to=place(there) * 2)
        assert "takes no session" in await begin(r, row, Reason.HOMECOMING, to=place(id_of(r, one)))
        assert "takes no session" in await begin(r, row, Reason.HOMECOMING, to=place("a-nobody"))
        launch = tuple(replace(offer, kind=OfferKind.LAUNCH) for offer in place(there))
        assert "running agents only" in await begin(r, row, Reason.HOMECOMING, to=launch)
        assert "too few free" in await begin(r, row, Reason.HOMECOMING, to=place(there, 2001))
        assert "not preemptible" in await begin(r, row, Reason.PREEMPTED)
        assert await begin(r, row, Reason.HOMECOMING, to=place(there)) == ""
        assert "already" in await begin(r, row, Reason.HOMECOMING, to=place(there))
        with pytest.raises(NotFound, match="nowhere"):
            await r.control.moves.request("default", row.id, "nowhere", by="me")
        with pytest.raises(Conflict, match="already"):
            await r.control.moves.request("default", row.id, "", by="me")


async def test_who_did_not_opt_in_or_is_protected_is_not_moved() -> None:
    async with ring() as r:
        await r.agent(group="one")
        plain = await running(r, None)
        assert "takes no checkpoints" in await begin(r, plain, Reason.HOMECOMING)
        await r.finish(plain.id)
        for life in (Lifetime(protect=True), Lifetime(protect_after=0.0)):
            kept = await running(r, lifetime=life, preemptible=True)
            for reason in (Reason.HOMECOMING, Reason.CONSOLIDATION, Reason.PREEMPTED):
                assert await begin(r, kept, reason) == "it is protected"
            await r.finish(kept.id)


async def test_it_is_not_asked_again_before_its_time() -> None:
    async with ring() as r:
        await r.agent(group="one")
        row = await running(r, replace(BRIEF, every=60.0))
        assert await begin(r, row, Reason.HOMECOMING) == ""
        await stayed(r, row.id)
        for reason in (Reason.HOMECOMING, Reason.CONSOLIDATION, Reason.USER):
            assert "every 60 s at most" in await begin(r, row, reason)
        await r.control.moves.request("default", row.id, "", by="me")
        await stayed(r, row.id)


@pytest.mark.parametrize(
    ("kind", "code", "end"),
    [
        (SessionType.BATCH, 143, "again"),
        (SessionType.BATCH, 0, "succeeded"),
        (SessionType.SERVICE, 0, "again"),
    ],
)
async def test_a_preempted_session_is_stopped_and_waits_again(kind: SessionType, code: int, end: str) -> None:
    async with ring() as r:
        one = await r.agent()
        one.term_code = code
        row = await running(r, None, preemptible=True, type=kind)
        assert await begin(r, row, Reason.PREEMPTED) == ""
        if end != "again":
            assert (await r.until_state(row.id, end)).attempt == 1
            return
        again = await attempt(r, row.id, 2)
        assert (again.interruptions, again.moves, again.moving) == (0, 0, None)
        told = [(event.state, event.reason) for event in (await r.control.why.session("default", row.id)).events]
        assert [each for each in told if each[1] == "PREEMPTED"] == [("stopping", "PREEMPTED"), ("queued", "PREEMPTED")]
        assert not any(isinstance(m, wire.Start) and "ATOLL_RESUMED" in m.env for m in one.got)


@pytest.mark.parametrize("saves", [True, False])
async def test_a_preempted_session_may_save_its_state_first(saves: bool) -> None:
    async with ring() as r:
        one = await r.agent()
        row = await running(r, SAVES if saves else BRIEF, preemptible=True)
        assert await begin(r, row, Reason.PREEMPTED) == ""
        run = await asked(r, row)
        if saves:
            one.end(run, 85)
        again = await attempt(r, row.id, 2)
        assert (again.interruptions, again.moves) == (0, int(saves))


async def test_a_preempted_session_that_cannot_be_asked_is_stopped_at_once() -> None:
    async with ring() as r:
        (await r.agent()).refusal = "does not handle it"
        row = await running(r, replace(SAVES, grace=600.0), preemptible=True)
        assert await begin(r, row, Reason.PREEMPTED) == ""
        assert (await attempt(r, row.id, 2)).moves == 0


async def gang(r: Ring, checkpoint: Checkpoint) -> tuple[Session, list[ScriptedAgent]]:
    agents = [await r.agent(group=f"g{number}") for number in range(2)]
    row = await running(r, checkpoint, nodes=2)
    assert len(agents) == 2
    return row, [r.run_of(row, rank)[0] for rank in range(2)]


async def test_a_gang_moves_once_all_have_saved() -> None:
    async with ring() as r:
        row, (first, second) = await gang(r, SAVES)
        for number in range(2):
            await r.agent(group=f"t{number}", site="there")
        await r.control.moves.request("default", row.id, "there", by="me")
        first.end(await asked(r, row, 0), 85)

        async def one_is_over() -> bool:
            return (await r.session(row.id)).members[0].state is MemberState.EXITED

        await until(one_is_over, "the first has saved")
        assert (await r.session(row.id)).state == "running"
        second.end(await asked(r, row, 1), 85)
        moved = await attempt(r, row.id, 2)
        assert (moved.site, len({member.agent for member in moved.members})) == ("there", 2)


async def test_a_gang_of_which_some_do_not_save_in_time_is_stopped_and_resumes() -> None:
    async with ring() as r:
        row, (first, _second) = await gang(r, BRIEF)
        for number in range(2):
            await r.agent(group=f"t{number}", site="there")
        await r.control.moves.request("default", row.id, "there", by="me")
        first.end(await asked(r, row, 0), 85)
        moved = await attempt(r, row.id, 2)
        assert (moved.site, moved.moves, moved.interruptions) == ("there", 1, 0)


async def test_a_gang_of_which_none_saves_stays() -> None:
    async with ring() as r:
        row, _ = await gang(r, BRIEF)
        await r.control.moves.request("default", row.id, "", by="me")
        await asked(r, row, 1)
        left = await stayed(r, row.id)
        assert (left.state, left.attempt) == ("running", 1)


async def test_a_gang_of_which_one_saves_late_is_stopped_and_resumes() -> None:
    async with ring() as r:
        row, (first, _second) = await gang(r, BRIEF)
        await r.control.moves.request("default", row.id, "", by="me")
        run = await asked(r, row, 0)
        await stayed(r, row.id)
        first.end(run, 85)
        assert (await attempt(r, row.id, 2)).interruptions == 0


async def test_a_gang_with_a_failed_member_fails_whoever_saved() -> None:
    async with ring() as r:
        row, (first, second) = await gang(r, SAVES)
        await r.control.moves.request("default", row.id, "", by="me")
        first.end(await asked(r, row, 0), 85)
        second.end(await asked(r, row, 1), 3)
        assert (await r.until_state(row.id, "failed")).exit_code == 3


async def test_members_that_were_done_start_again_with_those_that_saved() -> None:
    async with ring() as r:
        row, (first, second) = await gang(r, SAVES)
        await r.control.moves.request("default", row.id, "", by="me")
        first.end(await asked(r, row, 0), 0)
        second.end(await asked(r, row, 1), 85)
        assert (await attempt(r, row.id, 2)).moves == 1


async def test_a_notice_makes_sessions_save_their_state_at_once() -> None:
    async with ring() as r:
        one = await r.agent(group="one")
        row = await running(r)
        two = await r.agent(group="two")
        one.notice(120.0)
        run = await asked(r, row)
        told = await r.session(row.id)
        assert (told.reason, [each.id for each in leaving([told])]) == ("SPOT_NOTICE", [row.id])
        one.end(run, 85)
        again = await attempt(r, row.id, 2)
        assert (again.members[0].agent, again.interruptions, leaving([again])) == (id_of(r, two), 0, [])


async def test_a_notice_asks_once_and_leaves_alone_who_takes_no_checkpoints() -> None:
    async with ring() as r:
        one = await r.agent(group="one")
        small = Request(cpu=500)
        deaf = await running(r, BRIEF, resources=small)
        plain = await running(r, None, resources=small)
        one.notice(120.0)
        await asked(r, deaf)
        await stayed(r, deaf.id)
        assert "when the notice came" in await begin(r, deaf, Reason.SPOT_NOTICE)
        assert (await r.session(plain.id)).moved_at is None
        one.end(f"{plain.id}.1.0", 0)
        await r.until_state(plain.id, "succeeded")
        assert one.asked == [f"{deaf.id}.1.0"]


async def test_a_user_does_not_move_a_session_to_where_its_budget_ends() -> None:
    async with ring() as r:
        one = await r.agent(group="one")
        row = await running(r, lifetime=Lifetime(expected=3600.0))
        await r.agent(group="two", site="there")
        await r.control.sites.apply(Site(name="there", price=micros(2.0)))
        spec = {"amount": 1.5, "period": "total", "project": "default", "name": "small"}
        await r.control.budgets.apply(document.budget(spec), by="ada")
        with pytest.raises(Conflict, match="budget small has no room for more that costs money"):
            await r.control.moves.request("default", row.id, "there", by="me")
        assert (await r.session(row.id)).moving is None
        await r.control.budgets.apply(document.budget({**spec, "amount": 2.5}), by="ada")
        await r.control.moves.request("default", row.id, "there", by="me")
        one.end(await asked(r, row), 85)
        await attempt(r, row.id, 2)


async def test_running_time_counts_on_over_moves() -> None:
    async with ring() as r:
        one = await r.agent(group="one")
        row = await running(r, lifetime=Lifetime(max=1.0, protect_after=0.5))
        await r.agent(group="two", site="there")
        await asyncio.sleep(0.6)
        await r.control.moves.request("default", row.id, "there", by="me")
        one.end(await asked(r, row), 85)
        moved = await attempt(r, row.id, 2)
        assert moved.ran_s >= 0.6
        assert protection(moved, moved.started_at or 0.0) is Reason.LONG_RUNNING
        agent, run = r.run_of(moved)

        async def over() -> bool:
            return (await r.session(row.id)).stopping_as == "expired"

        began = asyncio.get_running_loop().time()
        await until(over, "its time is over")
        assert asyncio.get_running_loop().time() - began < 0.9, "not its whole time anew"
        agent.end(run, 143)
        expired = await r.until_state(row.id, "expired")
        assert expired.message == "ran longer than lifetime.max = 1 s"
