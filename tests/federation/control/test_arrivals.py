"""Who came, as a group's prediction is told it: the past from the store, the present from the queue, each once."""

import asyncio
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.group import Group, GroupKind, Pools, Size
from atoll.instance import Shape
from atoll.plan import Action, Step
from atoll.session import Placement, Session, SessionSpec
from atoll.slots import GIB, Request, Slots
from atoll.states import Reason, SessionState
from autoscaler.plan import plan
from autoscaler.pools import predict
from autoscaler.predict import WEEK_S, Arrivals
from autoscaler.view import GroupView
from federation.control.arrivals import History
from federation.control.changes import Changes
from federation.control.steps import Steps
from federation.control.world import World
from federation.store.bus import LocalBus
from tests.fakes.plane import FakeClock
from tests.fakes.store import MemoryStore
from tests.federation.control.ring import ring, until

VIRTUAL_TIME = True

DAY, HOUR, MINUTE = 86400.0, 3600.0, 60.0
HOT = Request(cpu=1000, memory=GIB)
GROUP = Group(
    name="burst",
    site="far",
    kind=GroupKind.ELASTIC,
    provider="cloud",
    size=Size(max=5),
    pools=Pools(hot=HOT, predict=True),
)
CHEAP = Shape(provider="cloud", name="m", zone="z", slots=Slots(cpu=2000, memory=4 * GIB), price=10_000, start_s=180.0)


def session(
    key: str, at: float, request: Request = HOT, *, nodes: int = 1, attempt: int = 0, **place: object
) -> Session:
    spec = SessionSpec(
        command=("true",),
        resources=request,
        nodes=nodes,
        placement=Placement(**place),  # type: ignore[arg-type]
    )
    return Session(id=key, name=key, project="p", owner="o", spec=spec, created_at=at, queued_at=at, attempt=attempt)


def look(now: float, *waiting: Session, groups: tuple[Group, ...] = (GROUP,)) -> World:
    return World(now=now, waiting=waiting, placed=(), agents=(), groups=groups, instances=())


def changes(store: MemoryStore) -> Changes:
    return Changes(store, LocalBus(), FakeClock(), Steps(None))


async def keep(kept: Changes, *rows: Session) -> None:
    async with kept.commit("test") as change:
        for row in rows:
            await change.tx.insert(row)


async def read(history: History, world: World) -> Arrivals:
    """Look until the past has been read."""
    for _ in range(1000):
        found = await history.look(world)
        if found:
            return found["burst"]
    raise AssertionError("never read")


def total(found: Arrivals) -> int:
    return sum(found.counts.values())


async def test_a_daily_habit_makes_machines_ready_before_its_hour() -> None:
    kept = changes(MemoryStore())
    nine = [day * DAY + 9 * HOUR for day in range(28)]
    done = [
        replace(session(f"s-{day:02}-{n:02}", at + n * 3 * MINUTE), state=SessionState.SUCCEEDED)
        for day, at in enumerate(nine)
        for n in range(20)
    ]
    await keep(kept, *done)
    history = History(kept)
    found = await read(history, look(28 * DAY))
    assert total(found) == 28 * 20
    view = GroupView(group=GROUP, shapes=(CHEAP,))

    def launches(now: float) -> list[Reason]:
        seen = replace(view, predicted=predict(view, found, now))
        made = plan([seen], [], plan_id="pl-1", generation=1, at=now)
        return [step.reason for step in made.steps if step.action is Action.LAUNCH]

    today = 28 * DAY
    assert launches(today + 3 * HOUR) == []
    assert launches(today + 8 * HOUR + 57 * MINUTE) == [Reason.PREDICTED]
    assert launches(today + 15 * HOUR) == []


async def test_the_round_launches_what_history_expects() -> None:
    async with ring() as r:
        now = r.control.clock.now()
        past = [session(f"s-{n:03}", now - 60.0 - n * 3 * MINUTE) for n in range(30)]
        past += [
            session(f"s-{week}-{n}", now - week * WEEK_S + n * 3 * MINUTE) for week in (1, 2) for n in range(-9, 9)
        ]
        await keep(r.control.changes, *[replace(row, state=SessionState.SUCCEEDED) for row in past])
        await r.elastic(pools=Pools(hot=HOT, predict=True))

        async def launched() -> list[Reason]:
            steps = (await r.control.why.group("burst")).steps
            return [said.reason for _, _, said in steps if isinstance(said, Step) and said.action is Action.LAUNCH]

        assert await until(launched, "a machine is launched ahead") == [Reason.PREDICTED]


async def test_each_submission_counts_once_from_the_store_or_from_the_queue() -> None:
    kept = changes(MemoryStore())
    old = [session(f"s-{n}", 1000.0 + n) for n in range(5)]
    await keep(kept, *old)
    history = History(kept, page=2, pages=1)
    assert await history.look(look(2000.0, old[4])) == {}, "the past is still being read"
    fresh = session("s-5", 2001.0)
    await keep(kept, fresh)
    assert await history.look(look(2002.0, old[4], fresh)) == {}
    found = (await history.look(look(2004.0, fresh)))["burst"]
    assert (found.begun_at, total(found)) == (1000.0, 6)
    again = session("s-0", 1000.0, attempt=1)
    await history.look(look(2006.0, fresh, again))
    await history.look(look(2008.0, session("s-6", 2007.0), again))
    await history.look(look(2010.0, session("s-6", 2007.0)))
    assert total(found) == 7


async def test_only_what_the_pool_could_serve_counts_and_as_much_as_it_takes() -> None:
    kept = changes(MemoryStore())
    rows = [
        session("s-1", 1.0),
        session("s-2", 2.0, Request(cpu=2500, memory=GIB)),  # as three
        session("s-3", 3.0, nodes=2),
        session("s-4", 4.0, sites=("near",)),
        session("s-5", 5.0, groups=("other",)),
        session("s-6", 6.0, sites=("far",), groups=("burst",)),
        session("s-7", 7.0, replace(HOT, gpu=replace(HOT.gpu, milli=1000))),
    ]
    await keep(kept, *rows)
    assert total(await read(History(kept), look(10.0))) == 1 + 3 + 2 + 1


async def test_what_is_older_than_a_prediction_looks_is_not_read() -> None:
    kept = changes(MemoryStore())
    await keep(kept, session("s-1", DAY), session("s-2", 5 * WEEK_S))
    found = await read(History(kept), look(6 * WEEK_S))
    assert (found.begun_at, total(found)) == (5 * WEEK_S, 1)


async def test_another_pool_is_told_the_past_too_and_none_costs_nothing() -> None:
    store = MemoryStore()
    kept = changes(store)
    await keep(kept, session("s-1", 1.0))
    history = History(kept)
    plain = replace(GROUP, pools=Pools(hot=HOT))
    assert await history.look(look(5.0, groups=(plain,))) == {}
    first = await read(history, look(10.0))
    two = replace(GROUP, name="two", pools=Pools(hot=Request(cpu=500, memory=GIB), predict=True))
    both = await history.look(look(20.0, groups=(GROUP, two)))
    assert [total(both["burst"]), total(both["two"])] == [1, 2]
    assert both["burst"] is not first
    assert await history.look(look(30.0, groups=(plain,))) == {}


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 400), st.booleans()), max_size=30), st.integers(0, 30))
def test_it_makes_no_difference_when_the_control_plane_was_restarted(came: list[tuple[int, bool]], cut: int) -> None:
    """Sessions come at whole minutes; `cut` of them before the start, the rest while it looks."""
    rows = [session(f"s-{n:02}", at * MINUTE + 1) for n, (at, _) in enumerate(sorted(came))]
    end = 500 * MINUTE

    async def play() -> None:
        kept = changes(MemoryStore())
        await keep(kept, *rows[:cut])
        history = History(kept)
        start = rows[cut - 1].created_at if 0 < cut <= len(rows) else 0.0
        await history.look(look(start, *rows[:cut]))
        for n, row in enumerate(rows[cut:], cut):
            if row.created_at <= start:
                return  # came in the same moment as the last before: which of both reads it is not told
            await keep(kept, row)
            await history.look(look(row.created_at + 1, *rows[max(0, n - 2) : n + 1]))
        after = await read(History(kept), look(end))
        assert (await read(history, look(end))).counts == after.counts

    asyncio.run(play())
