"""The scheduling round through the whole control plane: policies, budgets, turns, moves and launches together."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from atoll import document
from atoll.group import Size
from atoll.hours import Hours
from atoll.money import cost, micros
from atoll.offer import Decision, OfferKind, Outcome
from atoll.session import Checkpoint, CostLimits, Lifetime, Placement, Session, SessionSpec
from atoll.site import Site
from atoll.slots import GIB, Request, Slots
from atoll.states import WAITING, Reason
from tests.fakes.agent import ScriptedAgent
from tests.fakes.cloud import SMALL
from tests.federation.control.ring import Ring, ring, until

VIRTUAL_TIME = True

WHOLE, HALF, QUARTER = Request(cpu=2000), Request(cpu=1000), Request(cpu=500)
HOUR = Lifetime(expected=3600.0)
SAVES = Checkpoint(grace=5.0, lost=1.0, every=0.0)
LONELY = replace(SMALL, slots=Slots(cpu=2000, memory=4 * GIB, disk=10 * GIB))
"""A machine that one session takes as a whole."""
ROUNDS_S = 0.3
"""Several rounds: long enough for what must not happen to happen."""


def id_of(r: Ring, agent: ScriptedAgent) -> str:
    return next(key for key, each in r.agents.items() if each is agent)


async def policy(r: Ring, **rules: object) -> None:
    await r.control.policies.apply(document.policy(rules), by="ada")


async def budget(r: Ring, amount: float, **fields: object) -> None:
    await r.control.budgets.apply(document.budget({"amount": amount, "period": "total", **fields}), by="ada")


def today(r: Ring) -> datetime:
    return datetime.fromtimestamp(r.clock.now(), UTC)


async def because(r: Ring, row: Session, reason: Reason) -> Session:
    async def there() -> Session | None:
        seen = await r.control.sessions.get(row.project, row.id)
        return seen if seen.reason is reason else None

    return await until(there, f"{row.name} {reason}")


async def decided(r: Ring, key: str) -> Decision:
    async with r.store.transaction() as tx:
        return (await tx.decisions(key))[0][1]


async def told(r: Ring, key: str) -> list[tuple[str, str]]:
    events = await r.store.events(0, 5000, kinds=("session",))
    return [(event.state, event.reason) for event in events if event.key == key]


async def unchanged(r: Ring, *rows: Session, state: str) -> None:
    """Some rounds later nothing has happened to these sessions, nor was anything written about them."""
    before = [await r.session(row.id) for row in rows]
    assert {row.state for row in before} == {state}
    await asyncio.sleep(ROUNDS_S)
    assert [await r.session(row.id) for row in rows] == before


# -- policies and budgets -----------------------------------------------------------------------------


async def test_a_policy_denies_asks_for_approval_and_lets_go() -> None:
    async with ring() as r:
        await r.agent()
        await policy(
            r,
            approve=[{"when": "session.cpu > 1", "role": "lead"}],
            deny=[{"when": "session.cpu > 5", "reason": "too large"}],
        )
        [asks] = await r.submit(name="asks", resources=Request(cpu=1500))
        [large] = await r.submit(name="large", resources=Request(cpu=9000))
        [small] = await r.submit(name="small")
        await r.until_state(small.id, "running")
        held = await because(r, asks, Reason.APPROVAL)
        assert (held.state, held.message) == ("held", "needs the approval of a lead, by policy default")
        assert "atoll approve asks --as lead" in held.hint
        denied = await because(r, large, Reason.POLICY)
        assert (denied.state, denied.message) == ("held", "denied by policy default: too large")
        await unchanged(r, asks, large, state="held")
        await r.finish(small.id)
        await r.control.approvals.approve("default", "asks", by="bo", has=("lead",))
        assert (await r.until_state(asks.id, "running")).approved_by == "lead:bo"
        await r.control.policies.delete("default", by="ada")
        assert (await because(r, large, Reason.NO_CAPABLE_SITE)).state == "held"


async def test_a_denied_place_is_never_taken_nor_launched() -> None:
    async with ring() as r:
        await r.elastic()
        await policy(r, deny=[{"when": "offer.provider == 'cloud'", "reason": "not that cloud"}])
        [row] = await r.submit()
        held = await because(r, row, Reason.POLICY)
        assert (held.state, "not that cloud" in held.message) == ("held", True)
        home = await r.agent()
        await r.until_state(row.id, "running")
        [waits] = await r.submit(resources=WHOLE)
        queued = await because(r, waits, Reason.SLOTS_EXPECTED)
        assert queued.state == "queued"
        assert {no.reason for no in (await decided(r, waits.id)).rejected} == {Reason.NO_FREE_SLOTS, Reason.POLICY}
        await asyncio.sleep(ROUNDS_S)
        assert not await r.control.instances.list()
        await r.control.policies.delete("default", by="ada")
        assert (await r.until_state(waits.id, "running")).members[0].agent != id_of(r, home)


async def test_a_projects_budget_holds_what_is_beyond_it_until_it_is_raised() -> None:
    async with ring() as r:
        await r.agent()
        await r.control.sites.apply(Site(name="here", price=micros(1.0)))
        await budget(r, 0.6, project="default")
        rows = await r.submit(count=4, lifetime=HOUR, resources=QUARTER)
        for row in rows[:2]:
            assert (await r.until_state(row.id, "running")).price == micros(0.25)
        for row in rows[2:]:
            held = await because(r, row, Reason.BUDGET)
            assert (held.state, held.message) == ("held", "budget default has no room for more that costs money")
            assert "this needs about 0.2500" in held.hint
        await unchanged(r, *rows[2:], state="held")
        account = await r.control.budgets.get("default")
        assert micros(0.49) < account.total <= micros(0.6)
        await budget(r, 0.8, project="default")
        await r.until_state(rows[2].id, "running")
        await because(r, rows[3], Reason.BUDGET)
        await r.control.budgets.delete("default", by="ada")
        await r.until_state(rows[3].id, "running")


async def test_a_launch_that_the_installation_cannot_pay_is_not_made() -> None:
    async with ring() as r:
        await r.elastic()
        await budget(r, 0.001, name="all")
        [row] = await r.submit(lifetime=HOUR)
        held = await because(r, row, Reason.BUDGET)
        assert (held.state, held.message) == ("held", "budget all has no room for more on paid machines")
        await unchanged(r, row, state="held")
        assert not await r.control.instances.list()
        await r.control.budgets.delete("all", by="ada")
        await r.until_state(row.id, "running")


async def test_a_dear_launch_is_not_made_before_it_is_approved() -> None:
    async with ring() as r:
        await r.elastic()
        await policy(r, approve=[{"when": "session.cost > 0.04", "role": "cfo"}])
        [row] = await r.submit(resources=WHOLE, lifetime=HOUR)
        held = await because(r, row, Reason.APPROVAL)
        assert (held.state, held.message) == ("held", "needs the approval of a cfo, by policy default")
        await unchanged(r, row, state="held")
        assert not await r.control.instances.list()
        decision = await decided(r, row.id)
        assert (decision.outcome, decision.reason, decision.taken) == (Outcome.HOLD, Reason.APPROVAL, ())
        assert [offer.kind for offer in decision.ranked] == [OfferKind.LAUNCH]
        await r.control.approvals.approve("default", row.id, by="bo", has=("cfo",))
        await r.until_state(row.id, "running")


async def test_past_its_stage_a_project_keeps_to_own_machines() -> None:
    async with ring() as r:
        await r.agent()
        await r.control.sites.apply(Site(name="here", price=micros(0.02)))
        await r.elastic()
        await budget(r, 0.04, project="default", stages=[{"at": 0.4, "do": "owned_only"}, {"at": 1.0, "do": "hold"}])
        [first] = await r.submit(lifetime=HOUR, resources=WHOLE, placement=Placement(groups=("hall",)))
        await r.until_state(first.id, "running")
        [second] = await r.submit(resources=WHOLE)
        await because(r, second, Reason.SLOTS_EXPECTED)
        await asyncio.sleep(ROUNDS_S)
        assert (await r.session(second.id)).state == "queued"
        assert not await r.control.instances.list()
        [other] = await r.control.sessions.submit(SessionSpec(command=("true",)), project="free", owner="me")

        async def elsewhere() -> bool:
            return (await r.control.sessions.get("free", other.id)).group == "burst"

        await until(elsewhere, "another project's session on a paid machine")
        assert (await r.session(second.id)).state == "queued"
        await r.finish(first.id)
        assert (await r.until_state(second.id, "running")).group == "hall"


# -- turns --------------------------------------------------------------------------------------------


async def test_a_project_that_comes_later_gets_its_share() -> None:
    async with ring() as r:
        await r.agent()
        many = await r.submit(count=8, resources=QUARTER)
        for row in many[:4]:
            await r.until_state(row.id, "running")
        spec = SessionSpec(command=("true",), resources=QUARTER)
        [late] = await r.control.sessions.submit(spec, project="blue", owner="bo")
        await because(r, late, Reason.SLOTS_EXPECTED)
        await r.finish(many[0].id)

        async def runs() -> bool:
            return (await r.control.sessions.get("blue", late.id)).state == "running"

        await until(runs, "the other project's first session")
        assert [(await r.session(row.id)).state for row in many[4:]] == ["queued"] * 4
        await r.finish(many[1].id)
        await r.until_state(many[4].id, "running")


async def test_a_preempted_session_waits_for_its_better_and_runs_again() -> None:
    async with ring() as r:
        agent = await r.agent()
        [low] = await r.submit(resources=WHOLE, preemptible=True)
        await r.until_state(low.id, "running")
        [equal] = await r.submit(resources=WHOLE)
        await because(r, equal, Reason.SLOTS_EXPECTED)
        [high] = await r.submit(resources=WHOLE, priority=5)
        await r.until_state(high.id, "running")
        back = await r.session(low.id)
        assert (back.state, back.interruptions) == ("queued", 0)
        assert Reason.PREEMPTED in {reason for _, reason in await told(r, low.id)}
        assert Reason.PREEMPTS in {reason for _, reason in await told(r, high.id)}
        assert (await decided(r, high.id)).outcome is Outcome.PLACE
        await r.control.sessions.stop("default", equal.id, by="me")
        await r.finish(high.id)
        again = await r.until_state(low.id, "running")
        assert (again.attempt, again.interruptions) == (2, 0)
        assert agent.started == [f"{low.id}.1.0", f"{high.id}.1.0", f"{low.id}.2.0"]


async def test_small_sessions_do_not_starve_a_large_one() -> None:
    async with ring() as r:
        await r.agent()
        first = await r.submit(count=2, resources=HALF, lifetime=Lifetime(expected=100.0))
        for row in first:
            await r.until_state(row.id, "running")
        [large] = await r.submit(resources=WHOLE)
        waits = await because(r, large, Reason.SLOTS_EXPECTED)
        assert "kept for it" in waits.message
        small = await r.submit(count=3, resources=HALF, lifetime=HOUR)
        [brief] = await r.submit(resources=HALF, lifetime=Lifetime(expected=20.0))
        await r.finish(first[0].id)
        await r.until_state(brief.id, "running")  # it is over before the large one could start
        await r.finish(brief.id)
        await r.until_state(brief.id, "succeeded")
        await asyncio.sleep(ROUNDS_S)
        assert [(await r.session(row.id)).state for row in small] == ["queued"] * 3
        await r.finish(first[1].id)
        await r.until_state(large.id, "running")


async def test_a_short_and_sure_wait_is_cheaper_than_a_launch() -> None:
    async with ring() as r:
        home = await r.agent()
        await r.elastic()
        [runs] = await r.submit(
            resources=WHOLE, lifetime=Lifetime(expected=40.0), placement=Placement(groups=("hall",))
        )
        await r.until_state(runs.id, "running")
        [waits] = await r.submit(resources=WHOLE)
        row = await because(r, waits, Reason.SLOTS_EXPECTED)
        assert f"on agent {id_of(r, home)} at here, and kept for it" in row.message
        assert row.hint.startswith("small/z1/on-demand could start it in 1 s, for an expected ")
        decision = await decided(r, waits.id)
        assert decision.ranked[0].kind is OfferKind.WAIT
        assert OfferKind.LAUNCH in {offer.kind for offer in decision.ranked}
        await asyncio.sleep(ROUNDS_S)
        assert not await r.control.instances.list()
        await r.finish(runs.id)
        assert (await r.until_state(waits.id, "running")).group == "hall"
        [long] = await r.submit(resources=WHOLE)
        assert (await r.until_state(long.id, "running")).group == "burst"  # ten minutes are not a short wait


# -- places -------------------------------------------------------------------------------------------


async def test_a_session_goes_where_its_labels_are() -> None:
    async with ring() as r:
        await r.agent()
        await r.agent(group="lab", site="there")
        await r.control.sites.apply(Site(name="there", labels={"net": "fast"}))
        [row] = await r.submit(placement=Placement(labels={"net": "fast"}))
        assert (await r.until_state(row.id, "running")).site == "there"
        [nowhere] = await r.submit(placement=Placement(labels={"disk": "nvme"}))
        held = await because(r, nowhere, Reason.NO_CAPABLE_SITE)
        assert (held.state, held.message) == ("held", "all that is large enough has no label disk=nvme")
        await unchanged(r, nowhere, state="held")
        await r.control.sites.apply(Site(name="here", labels={"disk": "nvme"}))
        assert (await r.until_state(nowhere.id, "running")).site == "here"


async def test_gangs_are_together_or_spread_as_they_ask() -> None:
    async with ring() as r:
        for site in ("here", "there"):
            for number in range(2):
                await r.agent(group=f"{site}-{number}", site=site)

        async def sites(row: Session) -> set[str]:
            running = await r.until_state(row.id, "running")
            return {(await r.control.agents.get(member.agent)).site for member in running.members}

        [spread] = await r.submit(nodes=2, resources=WHOLE, placement=Placement(spread=True))
        assert await sites(spread) == {"here", "there"}
        [together] = await r.submit(nodes=2, resources=WHOLE, placement=Placement(together=True))
        await because(r, together, Reason.SLOTS_EXPECTED)  # one agent is free at each site
        await r.finish(spread.id)
        assert len(await sites(together)) == 1


async def test_a_group_takes_nothing_outside_its_hours_and_says_when_it_will() -> None:
    async with ring() as r:
        await r.agent()
        group = await r.control.groups.get("hall")
        later = (today(r).weekday() + 3) % 7
        shut = Hours(days=(later,), start=8 * 60, end=19 * 60)
        await r.control.groups.apply(replace(group, hours=(shut,)))
        [row] = await r.submit()
        waits = await because(r, row, Reason.OUTSIDE_HOURS)
        assert waits.state == "queued"
        why = await r.control.why.session("default", row.id)
        [(_, decision), *_] = why.decisions
        [no] = decision.rejected
        assert no.reason is Reason.OUTSIDE_HOURS
        opens = today(r) + timedelta(days=3)
        assert waits.message.endswith(f"next from {opens:%Y-%m-%d} 08:00 UTC")
        assert waits.hint.startswith("it may start in about ")
        assert no.message == f"takes sessions only at {shut.text}: next from {opens:%Y-%m-%d} 08:00 UTC"
        await asyncio.sleep(ROUNDS_S)
        assert (await r.session(row.id)).state == "queued"
        await r.control.groups.apply(replace(group, hours=()))
        await r.until_state(row.id, "running")


# -- homecoming ---------------------------------------------------------------------------------------


async def away(r: Ring, *, checkpoint: Checkpoint | None) -> Session:
    """A session on a paid machine of its own, since a blocker has the hall."""
    [row] = await r.submit(resources=WHOLE, lifetime=HOUR, checkpoint=checkpoint)
    running = await r.until_state(row.id, "running")
    assert running.group == "burst"
    return running


async def test_a_session_that_can_comes_home_once_there_is_room() -> None:
    async with ring() as r:
        home = await r.agent()
        r.cloud.offered = [LONELY]
        await r.elastic()
        await policy(r, homecoming=True)
        [blocker] = await r.submit(resources=WHOLE, lifetime=HOUR)
        await r.until_state(blocker.id, "running")
        stays = await away(r, checkpoint=None)
        row = await away(r, checkpoint=SAVES)
        await r.finish(blocker.id)
        agent, run = r.run_of(row)

        async def asked() -> bool:
            return agent.asked == [run]

        await until(asked, "the request for a checkpoint")
        moving = (await r.session(row.id)).moving
        assert moving
        assert (moving.reason, moving.group) == (Reason.HOMECOMING, "hall")
        assert moving.saving > moving.lost == cost(micros(0.1), SAVES.lost)
        agent.end(run, 85)

        async def back() -> Session | None:
            seen = await r.session(row.id)
            return seen if (seen.attempt, seen.state) == (2, "running") else None

        there = await until(back, "at home")
        assert (there.group, there.moves, there.interruptions, there.price) == ("hall", 1, 0, 0)
        assert home.started[-1] == f"{row.id}.2.0"
        why = await r.control.why.session("default", row.id)
        said = " ".join(event.message for event in why.events)
        assert "comes home: saves about 0.1000" in said, said

        async def one_left() -> bool:
            return len(r.cloud.live()) == 1

        await until(one_left, "the end of the machine that it left")
        left = await r.session(stays.id)
        assert (left.state, left.group, left.attempt, left.moving) == ("running", "burst", 1, None)
        assert not r.run_of(left)[0].asked


async def test_nobody_comes_home_against_the_policy_or_to_slots_that_others_wait_for() -> None:
    async with ring() as r:
        await r.agent()
        r.cloud.offered = [LONELY]
        await r.elastic(size=Size(max=1))
        await policy(r, homecoming=False)
        [blocker] = await r.submit(resources=WHOLE, lifetime=HOUR)
        await r.until_state(blocker.id, "running")
        row = await away(r, checkpoint=SAVES)
        agent, run = r.run_of(row)
        await r.finish(blocker.id)
        await asyncio.sleep(ROUNDS_S)
        assert agent.asked == []
        [second] = await r.submit(resources=WHOLE, lifetime=HOUR)
        await r.until_state(second.id, "running")
        waits = await r.submit(count=2, resources=WHOLE)
        await policy(r, homecoming=True)
        await r.finish(second.id)
        await r.until_state(waits[0].id, "running")
        assert agent.asked == []
        await r.finish(waits[0].id)
        await r.until_state(waits[1].id, "running")
        assert agent.asked == []
        await r.finish(waits[1].id)

        async def asked() -> bool:
            return agent.asked == [run]

        await until(asked, "the request for a checkpoint")


# -- why ----------------------------------------------------------------------------------------------


async def test_every_waiting_session_is_explained() -> None:
    async with ring() as r:
        await r.agent()
        await r.agent(group="spare", capacity=Slots(cpu=500, memory=GIB, disk=GIB))
        await r.agent(group="night", site="there")
        night = await r.control.groups.get("night")
        later = (today(r).weekday() + 3) % 7
        await r.control.groups.apply(replace(night, hours=(Hours(days=(later,)),)))
        for site in ("here", "there"):
            await r.control.sites.apply(Site(name=site, price=micros(1.0)))
        r.boots = False
        await r.elastic(size=Size(max=1))
        await policy(
            r,
            deny=[{"when": "session.cpu > 8", "reason": "too large"}],
            approve=[{"when": "'kind=secret' in session.labels", "role": "lead"}],
        )
        await budget(r, 0.01, project="poor")
        [runs] = await r.submit(resources=WHOLE, lifetime=HOUR, placement=Placement(groups=("hall",)))
        await r.until_state(runs.id, "running")
        asked: dict[str, dict[str, object]] = {
            "denied": {"resources": Request(cpu=9000)},
            "approval": {"labels": {"kind": "secret"}},
            "nowhere": {"resources": Request(cpu=7000)},
            "closed": {"placement": Placement(groups=("night",))},
            "dear": {"cost": CostLimits(max_price=10)},
            "total": {"cost": CostLimits(max_total=10)},
            "launch": {"resources": Request(cpu=4000), "placement": Placement(groups=("burst",))},
            "full": {"resources": Request(cpu=3500), "placement": Placement(groups=("burst",))},
            "home": {"placement": Placement(groups=("hall",))},
            "behind": {"placement": Placement(groups=("hall",)), "lifetime": HOUR, "resources": WHOLE},
            "gang": {"nodes": 2, "resources": WHOLE, "placement": Placement(together=True)},
            "label": {"placement": Placement(labels={"no": "where"})},
        }
        rows = [row for name, fields in asked.items() for row in await r.submit(name=name, **fields)]  # type: ignore[arg-type]
        rows += await r.control.sessions.submit(
            SessionSpec(command=("true",), name="poor", lifetime=HOUR, resources=QUARTER), project="poor", owner="me"
        )

        async def seen() -> bool:
            found = [await r.control.sessions.get(row.project, row.id) for row in rows]
            return all(row.reason is not Reason.SUBMITTED for row in found)

        await until(seen, "a reason for everyone")
        await asyncio.sleep(ROUNDS_S)
        for row in rows:
            now = await r.control.sessions.get(row.project, row.id)
            assert now.state in WAITING, now
            why = await r.control.why.session(row.project, row.id)
            assert (why.reason, why.message) != ("", ""), why
            assert why.decisions, why
            _, decision = why.decisions[0]
            assert decision.reason, decision
            assert decision.message, decision
            ruled = now.reason in (Reason.POLICY, Reason.APPROVAL, Reason.BUDGET)
            assert decision.hint if ruled else decision.ranked or decision.rejected, (row.spec.name, decision)
        reasons = {row.name: (await r.control.sessions.get(row.project, row.id)).reason for row in rows}
        assert reasons == {
            "denied": Reason.POLICY,
            "approval": Reason.APPROVAL,
            "poor": Reason.BUDGET,
            "nowhere": Reason.NO_CAPABLE_SITE,
            "label": Reason.NO_CAPABLE_SITE,
            "closed": Reason.OUTSIDE_HOURS,
            "dear": Reason.PRICE_LIMIT,
            "total": Reason.TOTAL_LIMIT,
            "launch": Reason.WAITING_FOR_INSTANCE,
            "full": Reason.GROUP_FULL,
            "gang": Reason.GROUP_FULL,
            "home": Reason.SLOTS_EXPECTED,
            "behind": Reason.SLOTS_EXPECTED,
        }
