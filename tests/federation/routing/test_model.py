"""The index against the obvious: random changes and demands, compared with a direct look at every agent."""

import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.offer import Demand, Outcome
from atoll.slots import Slots
from atoll.states import Reason
from federation.routing import bins, lens
from federation.routing.capacity import Capacity, Seat
from federation.routing.place import route
from tests.federation.routing.builders import demand, request, seat, slots

CAPACITIES = (slots(2, 4), slots(4, 16), slots(8, 32, "L4", 1), slots(8, 32, "T4", 2) + slots(0, 0, "A100", 1, 80))


@st.composite
def seats(draw: st.DrawFn) -> Seat:
    capacity = draw(st.sampled_from(CAPACITIES))
    used = request(draw(st.integers(0, 2)), draw(st.integers(0, 4)), draw(st.sampled_from((0, 0, 1))))
    taken = capacity.take(used)
    return seat(
        f"a-{draw(st.integers(0, 9))}",
        capacity,
        capacity if taken is None else capacity - taken,
        price=draw(st.sampled_from((0, 100, 200))),
        site=draw(st.sampled_from(("hall", "lab"))),
        spot=draw(st.booleans()),
        closed=draw(st.sampled_from((Reason.NONE, Reason.NONE, Reason.LINK_DOWN))),
    )


@st.composite
def demands(draw: st.DrawFn) -> Demand:
    return demand(
        f"s-{draw(st.integers(0, 99))}",
        request(draw(st.integers(1, 4)), draw(st.integers(0, 8)), draw(st.sampled_from((0, 0, 0.5, 1, 2)))),
        nodes=draw(st.sampled_from((1, 1, 1, 2, 3))),
        sites=draw(st.sampled_from(((), ("lab",)))),
        max_price=draw(st.sampled_from((None, None, 60))),
        spot=draw(st.booleans()),
    )


OPERATIONS = st.lists(
    st.one_of(
        seats(), st.integers(0, 9).map(lambda n: f"a-{n}"), st.lists(demands(), min_size=1, max_size=6).map(tuple)
    ),
    max_size=40,
)


def price_on(one: Demand, on: Seat, free: Slots) -> int | None:
    """Return what a member would cost on a seat, None when it cannot be there: the rules, written directly."""
    taken = free.take(one.request)
    whole = on.capacity.take(one.request)
    allowed = on.open and (not one.sites or on.site in one.sites) and (one.spot or not on.spot)
    if taken is None or whole is None or not allowed:
        return None
    price = round(whole.share_of(on.capacity) * on.price)
    return price if one.max_price is None or price <= one.max_price else None


def check_against_model(waiting: tuple[Demand, ...], known: dict[str, Seat], capacity: Capacity) -> None:
    free = {agent: one.free for agent, one in known.items()}
    for one, decision in zip(waiting, route(waiting, capacity), strict=True):
        prices = sorted(p for a, s in known.items() if (p := price_on(one, s, free[a])) is not None)
        if len(prices) < one.nodes:
            assert decision.outcome in {Outcome.WAIT, Outcome.HOLD}
            continue
        assert decision.outcome is Outcome.PLACE
        assert [offer.price for offer in decision.taken] == prices[: one.nodes], "not the cheapest"
        agents = [offer.target for offer in decision.taken]
        assert len(set(agents)) == one.nodes, "a gang's members share an agent"
        for offer in decision.taken:
            assert price_on(one, known[offer.target], free[offer.target]) == offer.price
            free[offer.target] = free[offer.target] - offer.slots
            assert known[offer.target].capacity.covers(free[offer.target])
            assert free[offer.target].covers(Slots()), "overcommitted"


@settings(max_examples=250, deadline=None)
@given(OPERATIONS)
def test_the_index_decides_as_a_direct_look_would(operations: list[Seat | str | tuple[Demand, ...]]) -> None:
    capacity = Capacity()
    known: dict[str, Seat] = {}
    for operation in operations:
        if isinstance(operation, Seat):
            capacity.put_seat(operation)
            known[operation.agent] = operation
        elif isinstance(operation, str):
            capacity.drop_seat(operation)
            known.pop(operation, None)
        else:
            check_against_model(operation, known, capacity)
            assert route(operation, capacity) == route(operation, capacity)
    assert {one.agent: one for one in capacity.seats()} == known


def test_many_agents_of_one_kind_fill_bins_and_growth_is_seen() -> None:
    capacity = Capacity()
    count = bins.BIN_SIZE * 3 + 7
    full = dataclasses.replace(seat("a"), free=Slots())
    for n in range(count):
        capacity.put_seat(dataclasses.replace(full, agent=f"a-{n}"))
    assert route([demand()], capacity)[0].outcome is Outcome.WAIT
    capacity.put_seat(dataclasses.replace(full, agent="a-600", free=full.capacity))
    assert route([demand()], capacity)[0].taken[0].target == "a-600"
    capacity.drop_seat("a-600")
    assert route([demand()], capacity)[0].outcome is Outcome.WAIT


def test_a_long_log_of_growth_is_cut_and_nothing_is_missed() -> None:
    capacity = Capacity()
    capacity.put_seat(seat("a-0", free=Slots()))
    assert route([demand()], capacity)[0].outcome is Outcome.WAIT
    for n in range(9000):
        capacity.put_seat(seat("a-1", site="lab", free=slots(n % 2)))
    capacity.put_seat(seat("a-0"))
    assert route([demand(sites=("hall",))], capacity)[0].outcome is Outcome.PLACE


def test_lenses_are_bounded() -> None:
    capacity = Capacity()
    capacity.put_seat(seat("a-0", slots(4000, 4000)))
    kept = [capacity.lens(demand(asks=request(n))) for n in range(1, 1500)]
    assert capacity.lens(demand(asks=request(1499))) is kept[-1]
    assert capacity.lens(demand(asks=request(1))) is not kept[0]
    assert isinstance(kept[0], lens.Lens)
