from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.offer import Demand
from atoll.plan import Move
from atoll.session import Checkpoint
from atoll.slots import Slots, total
from atoll.states import Reason
from federation.routing.capacity import Capacity, Seat
from federation.routing.homecoming import Homing, Movable, exchange, homecoming
from tests.federation.routing.builders import demand, request, slots

NOW = 100_000.0
HOUR = 3600.0
PRICE = 3_000_000


def own(agent: str, gpus: int = 8, free: int = 8, *, closed: bool = False) -> Seat:
    return Seat(
        agent=agent,
        site="hall",
        group="own",
        capacity=_slots(gpus),
        free=_slots(free),
        open=not closed,
    )


def paid(agent: str, gpus: int, free: int = 0) -> Seat:
    return Seat(
        agent=agent,
        site="cloud",
        group="burst",
        capacity=_slots(gpus),
        free=_slots(free),
        price=PRICE * gpus,
        owned=False,
    )


def session(name: str, agent: str | tuple[str, ...], gpus: int = 1, *, ran: float = HOUR, **more: object) -> Movable:
    agents = (agent,) if isinstance(agent, str) else agent
    given = {
        "attempt": 1,
        "demand": _demand(name, gpus, len(agents)),
        "members": tuple((each, _slots(gpus)) for each in agents),
        "checkpoint": Checkpoint(),
        "started_at": NOW - ran,
    }
    return Movable(session=name, **{**given, **more})  # type: ignore[arg-type]


def _slots(gpus: int) -> Slots:
    return slots(4 * gpus, 16 * gpus, "V100" if gpus else "", gpus)


def _demand(name: str, gpus: int, nodes: int = 1) -> Demand:
    return demand(name, request(cpu=4 * gpus, memory=16 * gpus, gpu=gpus), nodes=nodes)


def _capacity(*seats: Seat) -> Capacity:
    capacity = Capacity()
    for seat in seats:
        capacity.put_seat(seat)
    return capacity


def _targets(moves: list[Move]) -> dict[str, list[str]]:
    return {move.session: [offer.target for offer in move.to] for move in moves}


def test_a_session_comes_home_to_the_tightest_fit() -> None:
    capacity = _capacity(own("a"), own("b", free=1), paid("v", 1))
    (move,) = homecoming(capacity, [session("s", "v", ran=2 * HOUR)], now=NOW)
    assert _targets([move]) == {"s": ["b"]}
    assert move.reason is Reason.HOMECOMING
    assert move.saving == 2 * PRICE
    assert move.lost == PRICE // 60
    assert move.message == "comes home: saves about 6.00 USD over the next 2.0 h, costs 60 s of work (0.0500 USD)"


def test_the_dearest_comes_first_then_the_oldest() -> None:
    capacity = _capacity(own("a", free=5), *(paid(f"v{n}", 1) for n in range(3)), paid("w", 4))
    there = [session(f"s{n}", f"v{n}", ran=HOUR * (n + 1)) for n in range(3)]
    moves = homecoming(capacity, [*there, session("big", "w", 4, ran=400.0)], now=NOW)
    assert [move.session for move in moves] == ["big", "s2"]


def test_one_comes_home_at_most_once_in_its_every_and_never_a_protected_one() -> None:
    capacity = _capacity(own("a"), paid("v", 1))
    young = session("s", "v", ran=299.0)
    assert homecoming(capacity, [young], now=NOW) == []
    assert homecoming(capacity, [session("s", "v", moved_at=NOW - 10)], now=NOW) == []
    assert homecoming(capacity, [session("s", "v", leaving=True)], now=NOW) == []
    guarded = session("s", "v", demand=replace(_demand("s", 1), protect=True))
    assert homecoming(capacity, [guarded], now=NOW) == []


def test_a_move_that_loses_more_than_it_saves_is_not_made() -> None:
    capacity = _capacity(own("a"), paid("v", 1))
    slow = Checkpoint(lost=1800.0, every=0.0)
    assert homecoming(capacity, [session("s", "v", ran=1700.0, checkpoint=slow)], now=NOW) == []
    assert homecoming(capacity, [session("s", "v", ran=1900.0, checkpoint=slow)], now=NOW)


def test_sessions_that_share_a_machine_come_home_together_or_not_at_all() -> None:
    both = [session("s1", "v"), session("s2", "v")]
    assert homecoming(_capacity(own("a", free=1), paid("v", 2)), both, now=NOW, homing=Homing(defragment=False)) == []
    moves = homecoming(_capacity(own("a", free=2), paid("v", 2)), both, now=NOW)
    assert _targets(moves) == {"s1": ["a"], "s2": ["a"]}
    assert [move.saving > 0 for move in moves] == [True, False]


def test_a_machine_that_somebody_else_is_on_is_not_worth_leaving() -> None:
    assert homecoming(_capacity(own("a"), paid("v", 2)), [session("s1", "v")], now=NOW) == []


def test_a_gang_comes_home_as_a_whole() -> None:
    gang = session("g", ("v", "w"), 8)
    machines = (paid("v", 8), paid("w", 8))
    assert homecoming(_capacity(own("a"), *machines), [gang], now=NOW) == []
    assert _targets(homecoming(_capacity(own("a"), own("b"), *machines), [gang], now=NOW)) == {"g": ["a", "b"]}


def test_agents_that_a_waiting_session_could_use_are_left_to_it() -> None:
    capacity = _capacity(own("a", free=2), paid("v", 1))
    there = [session("s", "v")]
    assert homecoming(capacity, there, waiting=[_demand("big", 8)], now=NOW) == []
    elsewhere = replace(_demand("far", 8), sites=("cloud",))
    assert homecoming(capacity, there, waiting=[elsewhere], now=NOW)


def test_places_that_a_session_may_not_use_are_no_home() -> None:
    capacity = _capacity(own("a"), own("b", closed=True), paid("v", 1))
    bound = session("s", "v", demand=replace(_demand("s", 1), groups=("burst",)))
    assert homecoming(capacity, [bound], now=NOW) == []
    assert _targets(homecoming(capacity, [session("s", "v")], now=NOW)) == {"s": ["a"]}


def test_room_is_made_among_owned_agents_and_then_the_large_one_comes_home() -> None:
    capacity = _capacity(own("a", free=6), own("b", free=7), paid("v", 8))
    small = [session("s1", "a", 2), session("s2", "b", 1)]
    big = session("big", "v", 8)
    moves = homecoming(capacity, [*small, big], now=NOW)
    assert _targets(moves) == {"s2": ["a"]}
    assert "makes room for big" in moves[0].message
    assert moves[0].saving > moves[0].lost
    # While s2 is on its way nothing else is done, and nobody takes the room.
    capacity.put_seat(own("a", free=5))
    leaving = [small[0], replace(small[1], leaving=True)]
    capacity.put_seat(paid("w", 1))
    little = session("little", "w")
    assert _targets(homecoming(capacity, [*leaving, big, little], now=NOW)) == {"little": ["a"]}
    capacity.put_seat(own("b"))
    assert _targets(homecoming(capacity, [small[0], session("s2", "a"), big], now=NOW)) == {"big": ["b"]}


def test_no_room_is_made_for_less_than_it_costs_or_where_there_is_none() -> None:
    seats = (own("a", free=6), own("b", free=7), paid("v", 8))
    small = [session("s1", "a", 2), session("s2", "b", 1, checkpoint=Checkpoint(lost=40 * HOUR))]
    big = session("big", "v", 8)
    # s2 is too dear to move, s1 fits on b.
    assert _targets(homecoming(_capacity(*seats), [*small, big], now=NOW)) == {"s1": ["b"]}
    full = _capacity(own("a", free=4), own("b", free=3), paid("v", 8))
    assert homecoming(full, [session("s1", "a", 4), session("s2", "b", 5), big], now=NOW) == []


def test_who_can_move_makes_way_for_who_cannot() -> None:
    capacity = _capacity(own("a", free=0), paid("v", 1, free=1))
    there = [session("old", "a", ran=2 * HOUR), session("young", "a", ran=HOUR)]
    (made,) = exchange(capacity, there, [_demand("new", 1)], now=NOW)
    assert (made.session, made.move.session) == ("new", "old")
    assert _targets([made.move]) == {"old": ["v"]}
    movable = replace(_demand("new", 1), checkpoint=True)
    assert exchange(capacity, there, [movable], now=NOW) == []
    # The first of them takes the only paid slots.
    assert exchange(capacity, there, [movable, _demand("next", 1)], now=NOW) == []


def test_nobody_makes_way_where_owned_slots_are_free_or_nothing_paid_is_there() -> None:
    there = [session("old", "a")]
    assert exchange(_capacity(own("a", free=1), paid("v", 1, free=1)), there, [_demand("new", 1)], now=NOW) == []
    assert exchange(_capacity(own("a", free=0)), there, [_demand("new", 1)], now=NOW) == []


@st.composite
def _worlds(draw: st.DrawFn) -> tuple[list[Seat], list[Movable], list[Demand]]:
    seats, movables = [], []
    for number in range(draw(st.integers(1, 6))):
        owned = draw(st.booleans())
        gpus, name = draw(st.sampled_from((1, 2, 4, 8))), f"m{number}"
        left = gpus
        for guest in range(draw(st.integers(0, 3))):
            size = draw(st.integers(1, 8))
            if size <= left:
                left -= size
                ran = draw(st.sampled_from((10.0, 400.0, HOUR)))
                lost = draw(st.sampled_from((60.0, 900.0)))
                if draw(st.integers(0, 3)):
                    one = session(f"s{number}-{guest}", name, size, ran=ran, checkpoint=Checkpoint(lost=lost))
                    movables.append(replace(one, leaving=draw(st.integers(0, 5)) == 0))
        seats.append(own(name, gpus, left) if owned else paid(name, gpus, left))
    waiting = [_demand(f"w{n}", size) for n, size in enumerate(draw(st.lists(st.sampled_from((1, 4)), max_size=2)))]
    return seats, movables, waiting


@given(_worlds())
@settings(max_examples=300)
def test_moves_fit_all_together_pay_and_are_of_sessions_that_may_move(
    world: tuple[list[Seat], list[Movable], list[Demand]],
) -> None:
    seats, movables, _ = world
    capacity = _capacity(*seats)
    moves = homecoming(capacity, movables, now=NOW)
    by_name = {one.session: one for one in movables}
    by_agent = {seat.agent: seat for seat in seats}
    assert len({move.session for move in moves}) == len(moves)
    for move in moves:
        assert by_name[move.session].ripe(NOW)
        assert all(by_agent[offer.target].owned for offer in move.to)
        assert move.saving > move.lost or move.saving == move.lost == 0
        assert all(offer.target != agent for offer in move.to for agent, _ in by_name[move.session].members)
    for seat in seats:
        assert seat.free.covers(total(offer.slots for move in moves for offer in move.to if offer.target == seat.agent))
    assert moves == homecoming(_capacity(*reversed(seats)), movables[::-1], now=NOW)
    # Nothing is left changed: the same question has the same answer.
    assert moves == homecoming(capacity, movables, now=NOW)


@given(_worlds())
@settings(max_examples=200)
def test_moves_come_to_an_end(world: tuple[list[Seat], list[Movable], list[Demand]]) -> None:
    seats, movables, _ = world
    free = {seat.agent: seat.free for seat in seats}
    there = {one.session: replace(one, leaving=False) for one in movables}
    at_home = {seat.agent for seat in seats if seat.owned}
    for number in range(40):
        capacity = _capacity(*(replace(seat, free=free[seat.agent]) for seat in seats))
        moves = homecoming(capacity, list(there.values()), now=NOW + number)
        if not moves:
            return
        for move in moves:
            one = there[move.session]
            for agent, held in one.members:
                free[agent] += held
            members = tuple((offer.target, offer.slots) for offer in move.to)
            for agent, taken in members:
                assert agent in at_home
                free[agent] -= taken
            there[move.session] = replace(one, members=members, started_at=NOW + number)
    raise AssertionError("moves without end")


@given(_worlds())
@settings(max_examples=200)
def test_exchanges_leave_room_for_both(world: tuple[list[Seat], list[Movable], list[Demand]]) -> None:
    seats, movables, waiting = world
    made = exchange(_capacity(*seats), movables, waiting, now=NOW)
    by_name = {one.session: one for one in movables}
    by_agent = {seat.agent: seat for seat in seats}
    free = {seat.agent: seat.free for seat in seats}
    for each in made:
        one, (offer,) = by_name[each.move.session], each.move.to
        assert one.ripe(NOW)
        assert not by_agent[offer.target].owned
        free[offer.target] -= offer.slots
        (agent, held) = one.members[0]
        free[agent] += held
        wanted = next(demand for demand in waiting if demand.session == each.session)
        taken = free[agent].take(wanted.request)
        assert taken is not None
        free[agent] -= taken
    assert all(left.covers(Slots()) for left in free.values())
