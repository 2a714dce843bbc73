"""What sessions cost is booked where they ran, attempt by attempt, whatever became of them later."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from atoll.agent import Agent
from atoll.money import HOUR, micros
from atoll.session import Checkpoint, Lifetime, Member, MemberState, Moving, Session, SessionSpec, Stretch
from atoll.slots import GIB, Slots
from atoll.states import Reason, SessionState
from federation.control.changes import Change, Changes
from federation.control.members import apply
from federation.control.spending import commitment, spent
from federation.control.steps import Steps
from federation.control.stretches import KEPT, folded, since
from federation.control.usage import Ledger, Usage, session_cost, session_on_demand
from federation.store.bus import LocalBus
from tests.fakes.plane import NOW, FakeClock
from tests.fakes.store import MemoryStore
from tunnel.wire import RunReport

_S = SessionState
SLOTS = Slots(4000, 8 * GIB)
SPEC = SessionSpec(command=("x",), checkpoint=Checkpoint(), lifetime=Lifetime(expected=10 * HOUR))
HOME, CLOUD = ("here", "own"), ("far", "burst")


def member(price: float, agent: str, site: str, group: str, rank: int = 0) -> Member:
    return Member(rank=rank, agent=agent, slots=SLOTS, price=micros(price), site=site, group=group)


PAID, OWNED = member(1.0, "a-paid", *CLOUD), member(0.2, "a-own", *HOME)


class World:
    """One session, taken through its attempts by the commits of the control plane."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.store = MemoryStore()
        self.changes = Changes(self.store, LocalBus(), self.clock, Steps())

    async def begin(self, *members: Member) -> Session:
        first, price = members[0], sum(each.price for each in members)
        row = Session(id="s-1", name="one", project="red", owner="me", spec=SPEC, state=_S.STARTING, attempt=1)
        async with self.changes.commit("test") as change:
            for each in (PAID, OWNED):
                await change.tx.insert(Agent(id=each.agent, name=each.agent, site=each.site, group=each.group))
            await change.tx.insert(
                replace(row, members=members, site=first.site, group=first.group, price=price, created_at=NOW)
            )
        return await self.starts()

    async def starts(self) -> Session:
        async with self.changes.commit("test") as change:
            row = await self.row(change)
            for each in row.members:
                await apply(change, each.agent, RunReport(run=self.run(row, each), state="running"))
            return await self.row(change)

    async def moves(self, to: Member) -> Session:
        async with self.changes.commit("test") as change:
            row = await self.row(change)
            moving = Moving(reason=Reason.HOMECOMING, message="home", to=(to,), site=to.site, group=to.group)
            await change.session(row, row.state, row.reason, moving=moving)
            await self.exits(change, 85)
        return await self.starts()

    async def exits(self, change: Change, code: int | None, *, asked: bool = True) -> Session:
        row = await self.row(change)
        for each in row.members:
            report = RunReport(run=self.run(row, each), state="exited", exit_code=code, asked=asked and code == 85)
            await apply(change, each.agent, report)
        return await self.row(change)

    async def ends(self, code: int | None) -> Session:
        async with self.changes.commit("test") as change:
            return await self.exits(change, code)

    def run(self, row: Session, one: Member) -> str:
        return f"{row.id}.{row.attempt}.{one.rank}"

    async def row(self, change: Change) -> Session:
        row = await change.tx.get(Session, "s-1")
        assert row is not None
        return row

    async def usage(self, moment: float = 0.0) -> Usage:
        return await Ledger(self.changes).summary(moment)


def booked(usage: Usage) -> dict[tuple[str, str], tuple[int, float, float]]:
    return {
        (row.site, row.group): (row.sessions, row.session_cost / 1e6, row.on_demand_cost / 1e6) for row in usage.rows
    }


async def test_a_moved_session_is_booked_to_each_place_for_as_long_as_it_ran_there() -> None:
    world = World()
    await world.begin(PAID)
    world.clock.time += HOUR
    row = await world.moves(OWNED)
    assert (row.state, row.site, row.cost, row.stretches[0].agents) == ("running", "here", micros(1.0), ("a-paid",))
    world.clock.time += 2 * HOUR
    expected = {CLOUD: (1, 1.0, 1.0), HOME: (1, 0.4, 0.4)}
    assert booked(await world.usage()) == expected
    world.changes = Changes(world.store.restarted(), LocalBus(), world.clock, Steps())
    assert booked(await world.usage()) == expected
    ended = await world.ends(0)
    world.clock.time += HOUR
    assert booked(usage := await world.usage()) == expected
    assert usage.session_cost == ended.cost == micros(1.4) == session_cost(ended, world.clock.now())
    assert booked(await world.usage(NOW + HOUR + 1)) == {HOME: (1, 0.4, 0.4)}


async def test_an_interrupted_attempt_is_booked_where_it_was_and_has_no_on_demand_price() -> None:
    world = World()
    await world.begin(PAID)
    world.clock.time += HOUR
    row = await world.ends(None)
    assert (row.state, row.site, row.cost) == ("queued", "", micros(1.0))
    assert booked(await world.usage()) == {CLOUD: (1, 1.0, 0.0)}
    assert session_on_demand(row, world.clock.now()) == 0


async def test_a_gangs_members_are_booked_to_their_own_sites() -> None:
    world = World()
    await world.begin(PAID, replace(OWNED, rank=1))
    world.clock.time += HOUR
    assert booked(await world.usage()) == {CLOUD: (1, 1.0, 1.0), HOME: (1, 0.2, 0.2)}
    row = await world.ends(0)
    assert (row.cost, [each.site for each in row.stretches]) == (micros(1.2), ["far", "here"])


async def test_a_budgets_period_counts_what_fell_into_it_and_what_is_left_of_the_run() -> None:
    world = World()
    await world.begin(PAID)
    world.clock.time += HOUR
    row = await world.moves(OWNED)
    world.clock.time += HOUR
    now = world.clock.now()
    parts = [spent(row, NOW + part * HOUR, now) for part in (0.0, 0.5, 1.0, 1.5)]
    assert parts == [micros(1.2), micros(0.7), micros(0.2), micros(0.1)]
    assert commitment(row, now, {}) == micros(8 * 0.2)


STRETCHES = st.lists(
    st.builds(
        lambda site, agent, price, began, ran: Stretch(
            site=site, group=site, agents=(agent,), price=price, started_at=began, ended_at=began + ran,
            cost=round(price * ran / HOUR), on_demand_cost=price,
        ),
        st.sampled_from(["far", "here"]), st.sampled_from(["a", "b"]), st.integers(0, 10**7), st.floats(0, 1e6),
        st.floats(0, 1e5),
    ),
    max_size=3 * KEPT,
)  # fmt: skip


@given(STRETCHES, st.floats(0, 1e6), st.floats(0, 1e6))
def test_folding_keeps_sums_by_place_and_a_later_moment_never_counts_more(
    stretches: list[Stretch], one: float, other: float
) -> None:
    kept: tuple[Stretch, ...] = ()
    for each in stretches:
        kept = folded((*kept, each))
    assert len(kept) <= KEPT + 1
    for place in ("far", "here"):
        for name in ("cost", "on_demand_cost"):
            assert sum(getattr(s, name) for s in kept if s.site == place) == sum(
                getattr(s, name) for s in stretches if s.site == place
            )
    early, late = sorted((one, other))
    assert sum(since(s, late) for s in kept) <= sum(since(s, early) for s in kept)
    assert sum(since(s, 0.0) for s in kept) == sum(s.cost for s in kept)


def test_an_end_counts_once() -> None:
    row = Session(id="s", name="s", project="p", owner="o", spec=SPEC, state=_S.RUNNING, members=(PAID,))
    assert session_cost(row, NOW) == 0
    began = replace(PAID, state=MemberState.RUNNING, started_at=NOW)
    assert session_cost(replace(row, members=(began,)), NOW + HOUR) == micros(1.0)
    assert session_cost(replace(row, members=(began,), state=_S.SUCCEEDED), NOW + HOUR) == 0
