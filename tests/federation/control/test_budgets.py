"""Budgets over a store: what is admitted never leads beyond the limit, however runs are interleaved."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.agent import Agent
from atoll.budget import STAGES, Budget, Do, Period, Stage
from atoll.errors import Invalid, NotFound
from atoll.group import Group, GroupKind, ScaleDown
from atoll.instance import Instance, Shape
from atoll.money import HOUR, cost, micros
from atoll.session import Lifetime, Member, MemberState, Session, SessionSpec, Stretch
from atoll.site import Site
from atoll.slots import GIB, Request, Slots
from atoll.states import InstanceState, Reason, SessionState
from federation.control.budgets import REFUSED_S, Budgets
from federation.control.changes import Change, Changes
from federation.control.rulings import Held
from federation.control.spending import Account, commitment, spent, window
from federation.control.steps import Steps
from federation.control.stretches import settle
from federation.store.bus import LocalBus
from tests.fakes.plane import NOW, FakeClock
from tests.fakes.store import MemoryStore
from tests.federation.control.ring import ring

VIRTUAL_TIME = True

_S, _I = SessionState, InstanceState
SLOTS = Slots(4000, 8 * GIB)
SHAPE = Shape(provider="cloud", name="c4", zone="a", slots=SLOTS, price=micros(1.0), start_s=60.0)
IDLE_S = 120.0


class World:
    """Sessions of a project and machines of a cloud, moved by hand in the ways that the control plane moves them."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.store = MemoryStore()
        self.changes = Changes(self.store, LocalBus(), self.clock, Steps())
        self.hints = 0
        self.budgets = Budgets(self.changes, self._hint)
        self.number = 0

    def _hint(self) -> None:
        self.hints += 1

    async def furnish(self, *budgets: Budget) -> "World":
        async with self.changes.commit("test") as change:
            await change.tx.insert(Group(name="own", site="here"))
            elastic = Group(name="burst", site="far", kind=GroupKind.ELASTIC, provider="cloud")
            await change.tx.insert(replace(elastic, scale_down=ScaleDown(idle_s=IDLE_S)))
            await change.tx.insert(Agent(id="a-own", name="own", site="here", group="own", capacity=SLOTS))
        for budget in budgets:
            await self.budgets.apply(budget, by="ada")
        return self

    async def submit(self, expected_s: float = HOUR, *, project: str = "red", **spec: Any) -> Session:
        self.number += 1
        key = f"s-{self.number}"
        asked = SessionSpec(
            command=("true",), resources=Request(1000, GIB), lifetime=Lifetime(expected=expected_s), **spec
        )
        row = Session(id=key, name=key, project=project, owner="me", spec=asked, created_at=self.clock.now())
        async with self.changes.commit("test") as change:
            return await change.tx.insert(replace(row, queued_at=self.clock.now()))

    async def start(self, key: str, price: int, agent: str = "a-own") -> Held | None:
        """Start a session as a round of decisions does: admitted and placed in one commit."""
        async with self.changes.commit("test") as change:
            accounts = await self.budgets.open(change)
            row = await self.row(change, key)
            members = (Member(rank=0, agent=agent, slots=SLOTS, price=price),)
            if held := accounts.start(row, members):
                return held
            group = "own" if agent == "a-own" else "burst"
            await change.session(
                row, _S.STARTING, Reason.PLACED, attempt=row.attempt + 1, members=members, group=group, instance="",
                price=price, started_at=None,
            )  # fmt: skip
        return None

    async def begin(self, key: str) -> None:
        async with self.changes.commit("test") as change:
            row = await self.row(change, key)
            member = replace(row.members[0], state=MemberState.RUNNING, started_at=change.now)
            await change.session(row, _S.RUNNING, Reason.STARTED, members=(member,), started_at=change.now)

    async def end(self, key: str) -> None:
        async with self.changes.commit("test") as change:
            row = await self.row(change, key)
            member = replace(row.members[0], state=MemberState.EXITED, ended_at=change.now)
            row = settle(replace(row, members=(member,)), change.now)
            await change.session(row, _S.SUCCEEDED, Reason.EXITED, price=0)

    async def interrupt(self, key: str) -> None:
        async with self.changes.commit("test") as change:
            await change.interrupt(await self.row(change, key), Reason.AGENT_GONE, "gone")

    async def launch(self, *sessions: str) -> Held | None:
        self.number += 1
        async with self.changes.commit("test") as change:
            accounts = await self.budgets.open(change)
            if held := accounts.launch(SHAPE, sessions, IDLE_S):
                return held
            key = f"i-{self.number}"
            machine = Instance(id=key, provider="cloud", group="burst", site="far", shape=SHAPE, created_at=change.now)
            await change.tx.insert(machine)
            for each in sessions:
                row = await self.row(change, each)
                await change.session(row, _S.PROVISIONING, Reason.WAITING_FOR_INSTANCE, instance=key)
        return None

    async def machine(self, key: str, to: InstanceState, **fields: Any) -> None:
        async with self.changes.commit("test") as change:
            row = await change.tx.get(Instance, key)
            assert row is not None
            await change.instance(row, to, Reason.CREATED, **fields)
            if to is _I.JOINED:
                agent = Agent(id=f"a-{key}", name=key, site="far", group="burst", instance=key, capacity=SLOTS)
                await change.tx.insert(agent)

    async def row(self, change: Change, key: str) -> Session:
        row = await change.tx.get(Session, key)
        assert row is not None
        return row

    async def standing(self, name: str = "red") -> Account:
        return await self.budgets.get(name)

    async def events(self) -> list[tuple[str, str, str]]:
        return [(e.key, e.state, e.message) for e in await self.store.events(0, kinds=("budget",))]


def budget(amount: float = 10.0, name: str = "red", **fields: Any) -> Budget:
    return Budget(name=name, amount=micros(amount), **{"project": "red", "period": Period.TOTAL, **fields})


ALL = {"name": "all", "project": ""}


async def test_a_session_is_admitted_while_it_fits_with_what_is_committed() -> None:
    world = await World().furnish(budget(3.0))
    one, two, three = [await world.submit() for _ in range(3)]
    assert await world.start(one.id, micros(2.0)) is None
    held = await world.start(two.id, micros(1.5))
    assert held is not None
    assert (held.reason, held.message) == (Reason.BUDGET, "budget red has no room for more that costs money")
    assert held.hint.startswith("1.00 USD of 3.00 USD are left; this needs about 1.50 USD;")
    assert await world.start(three.id, micros(1.0)) is None
    account = await world.standing()
    assert (account.spent, account.committed, account.reached) == (0, micros(3.0), Do.HOLD)


async def test_what_runs_moves_from_committed_to_spent() -> None:
    world = await World().furnish(budget())
    row = await world.submit()
    await world.start(row.id, micros(2.0))
    await world.begin(row.id)
    world.clock.time += HOUR / 4
    account = await world.standing()
    assert (account.spent, account.committed) == (micros(0.5), micros(1.5))
    world.clock.time += HOUR / 4
    await world.end(row.id)
    account = await world.standing()
    assert (account.spent, account.committed) == (micros(1.0), 0)
    world.clock.time += HOUR
    assert (await world.standing()).spent == micros(1.0)


async def test_a_restart_and_a_new_budget_count_what_was_before() -> None:
    world = await World().furnish()
    for _ in range(3):
        row = await world.submit()
        await world.start(row.id, micros(1.0))
        await world.begin(row.id)
        world.clock.time += HOUR / 2
        await world.end(row.id)
    await world.budgets.apply(budget(), by="ada")
    assert (await world.standing()).spent == micros(1.5)
    again = Budgets(world.changes, lambda: None)
    assert (await again.get("red")).spent == micros(1.5)


async def test_owned_only_leaves_own_machines_to_run_on() -> None:
    stages = (Stage(at=0.5, do=Do.OWNED_ONLY), Stage(at=1.0, do=Do.HOLD))
    world = await World().furnish(budget(1.0, stages=stages))
    one, two, three = [await world.submit() for _ in range(3)]
    assert await world.launch(one.id) is None
    held = await world.launch(two.id, three.id)
    assert held is not None
    assert "on paid machines" in held.message
    assert await world.start(two.id, micros(0.6)) is None
    async with world.changes.commit("test") as change:
        accounts = await world.budgets.open(change)
        assert accounts.before(three) is None
        assert accounts.owned_only(three) is not None


async def test_a_session_that_was_too_dear_waits_for_room_and_not_for_ever() -> None:
    world = await World().furnish(budget(3.0))
    one, two = [await world.submit() for _ in range(2)]
    await world.start(one.id, micros(2.0))
    await world.begin(one.id)
    assert await world.start(two.id, micros(2.0)) is not None
    async with world.changes.commit("test") as change:
        assert (await world.budgets.open(change)).before(two) is not None
    world.clock.time += 60
    await world.end(one.id)
    async with world.changes.commit("test") as change:
        assert (await world.budgets.open(change)).before(two) is None
    assert await world.start(two.id, micros(9.0)) is not None
    world.clock.time += REFUSED_S + 1
    async with world.changes.commit("test") as change:
        assert (await world.budgets.open(change)).before(two) is None


async def test_the_installation_is_charged_for_machines_until_their_release() -> None:
    world = await World().furnish(budget(3.0, **ALL))
    one, two, other = await world.submit(), await world.submit(), await world.submit(project="blue")
    need = cost(SHAPE.price or 0, 60 + HOUR + IDLE_S)
    assert await world.launch(one.id) is None
    assert (await world.standing("all")).committed == need
    assert await world.launch(two.id) is None
    assert (await world.standing("all")).committed == 2 * need
    held = await world.launch(other.id)
    assert held is not None
    assert held.message == "budget all has no room for more on paid machines"
    assert await world.start(other.id, micros(5.0)) is None  # on an own machine
    await world.machine("i-4", _I.CREATING)
    await world.machine("i-4", _I.BOOTING, booted_at=NOW)
    world.clock.time += 60
    await world.machine("i-4", _I.JOINED, agent="a-i-4")
    assert await world.start(one.id, micros(0.3), "a-i-4") is None
    await world.begin(one.id)
    account = await world.standing("all")
    assert (account.spent, account.total) == (cost(micros(1.0), 60), 2 * need)
    late = await world.submit(2 * HOUR)
    assert await world.start(late.id, micros(0.3), "a-i-4") is not None  # it would keep the machine another hour
    short = await world.submit(HOUR / 2)
    assert await world.start(short.id, micros(0.3), "a-i-4") is None  # it is there anyway
    assert (await world.standing("all")).total == 2 * need


async def test_a_machine_is_idle_since_its_last_session_ended() -> None:
    world = await World().furnish(budget(9.0, **ALL))
    row = await world.submit()
    await world.launch(row.id)
    await world.machine("i-2", _I.CREATING)
    await world.machine("i-2", _I.BOOTING, booted_at=NOW)
    await world.machine("i-2", _I.JOINED, agent="a-i-2")
    await world.start(row.id, micros(0.3), "a-i-2")
    await world.begin(row.id)
    await world.standing("all")
    world.clock.time += 600
    await world.end(row.id)
    world.clock.time += IDLE_S / 2
    account = await world.standing("all")
    assert account.total == cost(micros(1.0), 600 + IDLE_S)
    world.clock.time += IDLE_S
    account = await world.standing("all")
    assert (account.spent, account.committed) == (cost(micros(1.0), 600 + IDLE_S * 1.5), 0)
    await world.machine("i-2", _I.ENDING)
    await world.machine("i-2", _I.GONE)
    world.clock.time += HOUR
    assert (await world.standing("all")).total == account.total


async def test_stages_are_told_once_and_a_raised_budget_is_well_again() -> None:
    world = await World().furnish(budget(2.0))
    row = await world.submit()
    await world.start(row.id, micros(1.8))
    await world.budgets.round()
    await world.budgets.round()
    told = await world.events()
    assert [each[:2] for each in told] == [("red", "created"), ("red", "notify")]
    assert told[1][2] == "90 % of the budget is spent or committed: notify"
    assert (await world.standing()).budget.stage is Do.NOTIFY
    await world.budgets.apply(budget(20.0), by="ada")
    assert await world.budgets.apply(budget(20.0), by="ada") is False
    await world.budgets.round()
    assert (await world.standing()).budget.stage is None


async def test_only_a_stop_stops_what_runs_preemptible_first_and_after_its_grace() -> None:
    stages = (Stage(at=0.5, do=Do.HOLD), Stage(at=1.0, do=Do.STOP))
    world = await World().furnish(budget(2.0, stages=stages, grace_s=100.0))
    firm, soft, free = await world.submit(60.0), await world.submit(60.0, preemptible=True), await world.submit()
    for row, price in ((firm, micros(1.0)), (soft, micros(1.0)), (free, 0)):
        assert await world.start(row.id, price) is None
        await world.begin(row.id)
    for seconds, states in (
        (HOUR / 2, "running running"),  # overrun: past what holds, nothing is stopped
        (HOUR, "running running"),
        (99.0, "running running"),
        (2.0, "running stopping"),
        (100.0, "stopping stopping"),
    ):
        world.clock.time += seconds
        await world.budgets.round()
        async with world.changes.commit("test") as change:
            rows = [await world.row(change, row.id) for row in (firm, soft, free)]
        assert " ".join(row.state for row in rows[:2]) == states
        assert rows[2].state is _S.RUNNING
    assert (rows[0].reason, rows[0].stopping_as) == (Reason.BUDGET, _S.CANCELLED)


async def test_a_new_period_begins_with_what_still_runs() -> None:
    world = await World().furnish(budget(2.0, period=Period.DAY))
    world.clock.time = window(budget(period=Period.DAY), NOW).end - HOUR  # type: ignore[operator]
    first = await world.submit(2 * HOUR)
    assert await world.start(first.id, micros(1.0)) is None
    await world.begin(first.id)
    world.clock.time += HOUR / 2
    assert (await world.standing()).spent == micros(0.5)
    world.clock.time += HOUR
    account = await world.standing()
    assert (account.spent, account.committed) == (micros(0.5), micros(0.5))
    world.clock.time += HOUR / 2
    await world.end(first.id)
    assert (await world.standing()).spent == micros(1.0)


@pytest.mark.parametrize(
    ("period", "zone", "start", "end"),
    [
        (Period.DAY, "UTC", 1_799_971_200.0, 1_800_057_600.0),
        (Period.DAY, "Asia/Seoul", 1_799_938_800.0 + 0, 1_800_025_200.0),
        (Period.WEEK, "UTC", 1_799_625_600.0, 1_800_230_400.0),
        (Period.MONTH, "UTC", 1_798_761_600.0, 1_801_440_000.0),
        (Period.TOTAL, "UTC", 0.0, None),
    ],
)
def test_periods_follow_the_calendar(period: Period, zone: str, start: float, end: float | None) -> None:
    found = window(budget(period=period, zone=zone), NOW)
    assert (found.start, found.end) == (start, end)


async def test_what_is_not_there_or_makes_no_sense_is_told() -> None:
    world = await World().furnish(budget())
    with pytest.raises(NotFound) as caught:
        await world.budgets.get("rad")
    assert caught.value.hint == "did you mean 'red'?"
    with pytest.raises(Invalid, match="time zone"):
        await world.budgets.apply(budget(zone="Mars/Base"), by="ada")
    await world.budgets.delete("red", by="ada")
    assert await world.budgets.list() == []
    with pytest.raises(NotFound):
        await world.budgets.delete("red", by="ada")


def test_an_earlier_attempt_counts_in_proportion_where_it_began_before_the_period() -> None:
    row = Session(id="s", name="s", project="red", owner="me", spec=SessionSpec(command=("x",)), cost=1000)
    began = Stretch(site="far", group="burst", price=9000, started_at=0.0, ended_at=400.0, cost=1000)
    old = replace(row, created_at=0.0, queued_at=400.0, stretches=(began,))
    assert [spent(old, since, 500.0) for since in (0.0, 100.0, 300.0, 400.0, 450.0)] == [1000, 750, 250, 0, 0]
    assert commitment(old, 500.0, {}) == 0


async def test_a_move_is_admitted_where_it_fits_and_always_where_it_saves() -> None:
    stages = (Stage(at=0.5, do=Do.OWNED_ONLY), Stage(at=1.0, do=Do.HOLD))
    world = await World().furnish(budget(4.0, stages=stages), budget(2.5, **ALL))
    one = await world.submit(2 * HOUR)
    assert await world.launch() is None
    [machine] = world.changes.mirror.instances
    await world.machine(machine, _I.CREATING)
    await world.machine(machine, _I.BOOTING, booted_at=world.clock.now())
    await world.machine(machine, _I.JOINED, agent=f"a-{machine}")
    assert await world.start(one.id, micros(1.5)) is None
    await world.begin(one.id)
    world.clock.time += HOUR

    async def moved(price: float, agent: str, *, machines: bool = True) -> tuple[str, int]:
        async with world.changes.commit("test") as change:
            accounts = await world.budgets.open(change)
            to = (Member(rank=0, agent=agent, slots=SLOTS, price=micros(price)),)
            held = accounts.move(await world.row(change, one.id), to, machines=machines)
            red = next(account for account in accounts.accounts if account.budget.name == "red")
            return (held.message if held else "", red.total)

    assert await moved(2.0, "a-own") == ("", micros(3.5))
    assert await moved(3.0, "a-own") == ("budget red has no room for more that costs money", micros(3.0))
    assert await moved(0.1, "a-own") == ("", micros(1.6)), "one that saves is always admitted"
    paid = f"a-{machine}"
    assert await moved(1.5, paid) == ("budget red has no room for more on paid machines", micros(3.0))
    await world.budgets.delete("red", by="ada")
    await world.budgets.apply(budget(20.0), by="ada")
    assert (await moved(1.5, paid))[0] == ""
    await world.budgets.apply(budget(0.5, **ALL), by="ada")
    assert (await moved(1.5, paid))[0] == "budget all has no room for more on paid machines"
    assert (await moved(1.5, paid, machines=False))[0] == "", "what ends for it is not to be paid for any more"


# -- any interleaving -----------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["submit", "own", "launch", "paid", "pass", "pass", "interrupt", "restart"]),
        st.integers(0, 7),
        st.sampled_from([30.0, 600.0, 3600.0, 10_000.0]),
    ),
    max_size=40,
)


@settings(max_examples=120)
@given(STEPS, st.floats(0.1, 6.0), st.floats(0.1, 6.0), st.sampled_from([Period.TOTAL, Period.DAY]))
def test_admitted_work_that_goes_as_expected_never_exceeds_a_budget(
    steps: list[tuple[str, int, float]], red: float, everything: float, period: Period
) -> None:
    asyncio.run(interleaved(steps, red, everything, period))


async def interleaved(steps: list[tuple[str, int, float]], red: float, everything: float, period: Period) -> None:
    stages = (Stage(at=0.6, do=Do.OWNED_ONLY), Stage(at=0.9, do=Do.HOLD))
    rows = (budget(red, period=period, stages=stages), budget(everything, period=period, **ALL))
    drive = Drive(await World().furnish(*rows), {row.name: row for row in rows})
    for what, number, amount in steps:
        await drive.step(what, number, amount)
        await drive.check()
    await drive.passes(50_000.0)


class Drive:
    """Random steps in a world where everything takes as long as was expected."""

    def __init__(self, world: World, budgets: dict[str, Budget]) -> None:
        self.world = world
        self.budgets = budgets
        self.spent: dict[tuple[str, float], int] = {}
        self.idle: dict[str, float] = {}

    def mine(self, *states: SessionState) -> list[Session]:
        return [row for row in self.world.changes.mirror.sessions.values() if row.state in states]

    async def step(self, what: str, number: int, amount: float) -> None:
        world = self.world
        waiting = self.mine(_S.QUEUED)
        row = waiting[number % len(waiting)] if waiting else None
        if what == "submit":
            await world.submit(amount)
        elif what == "own" and row:
            await self.started(row, micros(0.2 * number), "a-own")
        elif what == "launch":
            await world.launch(*([row.id] if row and number % 2 else []))
        elif what == "paid" and row:
            joined = [m for m in world.changes.mirror.instances.values() if m.state is _I.JOINED]
            if joined:
                await self.started(row, micros(0.25), joined[number % len(joined)].agent)
        elif what == "pass":
            await self.passes(amount)
        elif what == "interrupt" and (runs := self.mine(_S.RUNNING)):
            await world.interrupt(runs[number % len(runs)].id)
        elif what == "restart":
            world.budgets = Budgets(world.changes, lambda: None)

    async def started(self, row: Session, price: int, agent: str) -> None:
        if await self.world.start(row.id, price, agent) is None:
            await self.world.begin(row.id)

    async def passes(self, seconds: float) -> None:
        """Let time pass, from one thing that is due to the next."""
        until = self.world.clock.time + seconds
        while True:
            await self.happen()
            due = [each for each in self.due() if each > self.world.clock.time]
            if not due or min(due) > until:
                break
            self.world.clock.time = min(due)
            await self.happen()
            await self.check()
        self.world.clock.time = until
        await self.check()

    def due(self) -> list[float]:
        ends = [(row.started_at or 0.0) + row.spec.lifetime.expected for row in self.mine(_S.RUNNING)]
        machines = self.world.changes.mirror.instances.values()
        boots = [(m.booted_at or 0.0) + SHAPE.start_s for m in machines if m.state is _I.BOOTING]
        return [*ends, *boots, *(since + IDLE_S for since in self.idle.values())]

    async def happen(self) -> None:
        world, now = self.world, self.world.clock.time
        for row in self.mine(_S.RUNNING):
            if (row.started_at or 0.0) + row.spec.lifetime.expected <= now:
                await world.end(row.id)
        for machine in list(world.changes.mirror.instances.values()):
            if machine.state is _I.INTENDED:
                await world.machine(machine.id, _I.CREATING)
                await world.machine(machine.id, _I.BOOTING, booted_at=now)
            elif machine.state is _I.BOOTING and (machine.booted_at or 0.0) + SHAPE.start_s <= now:
                await world.machine(machine.id, _I.JOINED, agent=f"a-{machine.id}")
                for row in [each for each in self.mine(_S.PROVISIONING) if each.instance == machine.id]:
                    await self.started(row, micros(0.25), f"a-{machine.id}")
        await self.release(now)

    async def release(self, now: float) -> None:
        for machine in list(self.world.changes.mirror.instances.values()):
            busy = machine.state is not _I.JOINED or self.world.changes.mirror.on_agent(machine.agent)
            if busy:
                self.idle.pop(machine.id, None)
            elif self.idle.setdefault(machine.id, now) + IDLE_S <= now:
                del self.idle[machine.id]
                await self.world.machine(machine.id, _I.ENDING)
                await self.world.machine(machine.id, _I.GONE)

    async def check(self) -> None:
        for account in await self.world.budgets.list():
            row = self.budgets[account.budget.name]
            limit = row.limit(paid=not row.project)
            assert limit is not None
            assert account.total <= limit
            key = (row.name, account.window.start)
            assert account.spent >= self.spent.get(key, 0)
            self.spent[key] = account.spent


def test_stages_that_a_document_does_not_name() -> None:
    assert [(stage.at, stage.do) for stage in STAGES] == [(0.8, Do.NOTIFY), (1.0, Do.HOLD)]


async def test_a_live_control_plane_counts_and_stops() -> None:
    async with ring() as r:
        await r.agent()
        await r.control.sites.apply(Site(name="here", price=micros(7200.0)))
        [row] = await r.submit(lifetime=Lifetime(expected=0.2))
        stages = (Stage(at=1.0, do=Do.STOP),)
        await r.control.budgets.apply(budget(0.2, project="default", stages=stages, grace_s=0.05), by="ada")
        running = await r.until_state(row.id, "running")
        assert running.price > 0
        stopped = await r.until_state(row.id, "cancelled")
        assert (stopped.reason, stopped.message.startswith("budget red is spent")) == (Reason.BUDGET, True)
        account = await r.control.budgets.get("red")
        assert account.spent == stopped.cost > micros(0.2)
        told = [event.state for event in await r.store.events(0, kinds=("budget",))]
        assert told[0] == "created"
        assert told[-1] == "stop"
