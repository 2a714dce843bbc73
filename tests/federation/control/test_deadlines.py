"""Sessions with a deadline: which of them wait for spot, take it, or go on demand, and that none is left without."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from atoll.group import Group, GroupKind
from atoll.instance import Shape
from atoll.money import micros
from atoll.offer import Demand
from atoll.session import Checkpoint, Lifetime, Session, SessionSpec
from atoll.slots import GIB, Request, Slots
from atoll.states import SessionState
from autoscaler.demand import PLAIN, may_use
from federation.control.deadlines import NOTICED_S, pace, paced
from federation.control.demands import demand
from federation.control.groupviews import running
from federation.control.world import World
from tests.fakes.cloud import SMALL
from tests.federation.control.ring import Ring, ring, until

VIRTUAL_TIME = True

HOUR = 3600.0
SAVES = Checkpoint(lost=60.0, every=0.0)
CLOUD = Group(name="burst", site="far", kind=GroupKind.ELASTIC, provider="cloud")
SPOT = replace(SMALL, spot=True, price=micros(0.03))
ASKS = Request(cpu=1000, memory=GIB)


def session(
    *, deadline: float | None, expected: float = HOUR, checkpoint: Checkpoint | None = SAVES, nodes: int = 1
) -> Session:
    spec = SessionSpec(
        command=("true",),
        resources=ASKS,
        lifetime=Lifetime(expected=expected, deadline=deadline),
        checkpoint=checkpoint,
        nodes=nodes,
    )
    return Session(id="s-1", name="s-1", project="p", owner="o", spec=spec, created_at=1000.0, queued_at=1000.0)


def world(row: Session, now: float, *shapes: Shape) -> World:
    return World(now=now, waiting=(row,), placed=(), agents=(), groups=(CLOUD,), instances=(), shapes={"cloud": shapes})


def ruled(row: Session, now: float, *shapes: Shape) -> tuple[bool, bool]:
    """Return whether spot, and whether on-demand machines, will do at `now` (seconds after its submission)."""
    [asked] = paced([demand(row)], [row], world(row, 1000.0 + now, *shapes), PLAIN)
    return asked.spot, asked.on_demand


def test_with_slack_it_waits_for_spot_and_without_it_goes_on_demand() -> None:
    row = session(deadline=3 * HOUR)
    both = (SMALL, SPOT)
    assert ruled(row, 0.0, *both) == (True, False)
    reserve = 2 * (SMALL.start_s + NOTICED_S) + SAVES.lost
    assert ruled(row, 2 * HOUR - reserve, *both)[0]
    assert ruled(row, 2 * HOUR - reserve + 1, *both) == (False, True)
    assert ruled(row, 1.7 * HOUR, *both) == (True, True), "behind, yet it may still risk spot"


def test_one_that_cannot_be_moved_waits_as_long_as_it_may_and_needs_time_for_all_of_it_twice() -> None:
    for row in (session(deadline=3 * HOUR, checkpoint=None), session(deadline=3 * HOUR, nodes=2)):
        assert ruled(row, 0.0, SMALL, SPOT) == (True, False)
    assert ruled(session(deadline=1.9 * HOUR, checkpoint=None), 0.0, SMALL, SPOT) == (False, True)
    assert ruled(session(deadline=1.9 * HOUR), 0.0, SMALL, SPOT) == (True, False)


def test_where_there_is_nothing_to_choose_nothing_is_ruled_out() -> None:
    tight, loose = session(deadline=HOUR), session(deadline=9 * HOUR)
    assert ruled(tight, 0.0, SPOT) == (True, True), "late is better than never"
    assert ruled(loose, 0.0, SMALL) == (True, True)
    assert ruled(tight, 0.0) == (True, True)
    assert ruled(session(deadline=None), 0.0, SMALL, SPOT) == (True, True)
    small = replace(SPOT, slots=Slots(cpu=500, memory=GIB))
    assert ruled(loose, 0.0, SMALL, small) == (True, True), "a machine too small is no offer"


def test_what_has_run_counts_and_a_running_session_has_a_pace_too() -> None:
    row = replace(session(deadline=3 * HOUR), state=SessionState.RUNNING, started_at=2000.0, ran_s=600.0)
    seen = running(row, 2900.0, 30.0)
    assert seen.pace == pace(row, 2900.0, 30.0)
    assert seen.pace
    assert (seen.pace.left_s, seen.pace.changeover_s) == (HOUR - 1500.0, 30.0 + NOTICED_S)
    assert (seen.pace.since, seen.pace.due_at) == (1000.0, 1000.0 + 3 * HOUR)
    assert running(session(deadline=None), 2900.0, 30.0).pace is None


def offers(one: Demand, shapes: tuple[Shape, ...]) -> list[Shape]:
    return [shape for shape in shapes if may_use(one, CLOUD, shape)]


SHAPES = st.lists(
    st.builds(
        lambda cpu, price, spot, start: Shape(
            provider="cloud",
            name=f"m{cpu}",
            zone="z",
            slots=Slots(cpu=cpu * 500, memory=4 * GIB),
            price=price,
            spot=spot,
            start_s=start,
        ),
        st.integers(1, 4),
        st.sampled_from([None, micros(0.02), micros(0.2)]),
        st.booleans(),
        st.floats(0, 900),
    ),
    max_size=4,
).map(tuple)


@given(
    SHAPES,
    st.booleans(),
    st.sampled_from([None, HOUR, 2.5 * HOUR, 20 * HOUR]),
    st.floats(0, 24 * HOUR),
    st.floats(0, 2 * HOUR),
    st.sampled_from([None, SAVES]),
    st.sampled_from([None, micros(0.03)]),
)
def test_never_are_both_ruled_out_nor_all_that_is_offered(
    shapes: tuple[Shape, ...],
    spot: bool,
    deadline: float | None,
    passed: float,
    ran: float,
    checkpoint: Checkpoint | None,
    most: int | None,
) -> None:
    row = replace(session(deadline=deadline, checkpoint=checkpoint), ran_s=ran)
    row = replace(row, spec=replace(row.spec, cost=replace(row.spec.cost, spot=spot, max_price=most)))
    before = demand(row)
    [after] = paced([before], [row], world(row, 1000.0 + passed, *shapes), PLAIN)
    assert after.on_demand or after.spot
    assert bool(offers(after, shapes)) == bool(offers(before, shapes))
    assert replace(after, spot=before.spot, on_demand=True) == before
    assert before.spot or after == before, "one that refuses spot has no choice"


async def machine(r: Ring, row: Session) -> bool | None:
    """Return whether a session runs on a spot machine; None while it does not run."""
    now = await r.session(row.id)
    if now.state != "running":
        return None
    [live] = [each for each in await r.control.instances.list() if each.agent == now.members[0].agent]
    return live.shape.spot


async def spot_of(r: Ring, row: Session) -> bool:
    async def there() -> tuple[bool] | None:
        found = await machine(r, row)
        return None if found is None else (found,)

    return (await until(there, f"{row.name} runs"))[0]


async def test_spot_is_waited_for_with_slack_and_on_demand_is_had_without() -> None:
    async with ring() as r:
        r.cloud.offered = [SMALL, replace(SPOT, price=micros(0.2))]  # dearer: only a deadline makes anybody take it
        await r.elastic()
        full = Request(cpu=3000, memory=GIB)
        [loose] = await r.submit(
            resources=full, checkpoint=SAVES, lifetime=Lifetime(expected=HOUR, deadline=9 * HOUR), name="loose"
        )
        assert await spot_of(r, loose) is True
        [tight] = await r.submit(
            resources=full, checkpoint=SAVES, lifetime=Lifetime(expected=HOUR, deadline=HOUR), name="tight"
        )
        assert await spot_of(r, tight) is False
        why = await r.control.why.session("default", loose.id)
        told = [rejected.message for _, decision in why.decisions for rejected in decision.rejected]
        assert any("waits for spot while its deadline allows it" in text for text in told)
