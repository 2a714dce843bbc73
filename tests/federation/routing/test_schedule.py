"""The queue pass as a whole: what holds for every input, and the same decisions as the pass written directly."""

import random
from dataclasses import replace
from time import process_time

from hypothesis import given, settings
from hypothesis import strategies as st

from atoll import money
from atoll.offer import Decision, Demand, OfferKind, Outcome
from atoll.slots import Slots, total
from federation.routing.capacity import Seat
from federation.routing.place import route
from federation.routing.rules import Rules
from federation.routing.schedule import NOTICE_S, schedule
from federation.routing.timeline import Running
from tests.federation.routing.builders import demand, launchable, request, seat, shape, slots
from tests.federation.routing.simple import Book, index, order, waits

NOW = 1000.0


@st.composite
def clusters(draw: st.DrawFn) -> tuple[list[Seat], list[Running]]:
    seats, running = [], []
    for n in range(draw(st.integers(1, 4))):
        cores = draw(st.sampled_from((2, 4, 8)))
        one = seat(
            f"a-{n}",
            slots(cores, 64),
            price=draw(st.sampled_from((0, 36_000, 360_000))),
            site=draw(st.sampled_from(("hall", "lab"))),
        )
        held: list[Slots] = []
        for cpu in draw(st.lists(st.integers(1, 4), max_size=4)):
            amount = slots(cpu, 1)
            if not (one.capacity - total([*held, amount])).covers(Slots()):
                break
            held.append(amount)
            running.append(
                Running(
                    session=f"r-{n}-{len(held)}",
                    members=((one.agent, amount),),
                    project=draw(st.sampled_from("ab")),
                    priority=draw(st.integers(0, 1)),
                    preemptible=draw(st.booleans()),
                    checkpoint=draw(st.booleans()),
                    ends_at=NOW + draw(st.integers(1, 900)),
                    started_at=NOW - draw(st.integers(0, 900)),
                )
            )
        seats.append(replace(one, free=one.capacity - total(held)))
    return seats, running


@st.composite
def demands(draw: st.DrawFn, *, nodes: bool = True) -> list[Demand]:
    return [
        replace(
            demand(
                f"s-{n}",
                request(draw(st.integers(1, 8)), 0),
                nodes=draw(st.sampled_from((1, 1, 2))) if nodes else 1,
                expected_s=float(draw(st.integers(0, 900))),
            ),
            priority=draw(st.integers(0, 2)),
            queued_at=NOW - draw(st.integers(0, 200)),
            project=draw(st.sampled_from("ab")),
        )
        for n in range(draw(st.integers(0, 10)))
    ]


def book_of(seats: list[Seat], running: list[Running]) -> Book:
    book = Book({one.agent: one.capacity.cpu for one in seats})
    for one in running:
        for agent, amount in one.members:
            book.held.append((agent, amount.cpu, 0.0, one.ends_at or 0.0))
    return book


@settings(max_examples=150)
@given(clusters(), demands(nodes=False), st.sampled_from((0, 100)))
def test_it_decides_as_the_pass_written_directly(
    cluster: tuple[list[Seat], list[Running]], asked: list[Demand], patience: int
) -> None:
    seats, running = cluster
    running = [replace(one, preemptible=False) for one in running]
    asked = [replace(one, expected_s=max(1.0, one.expected_s)) for one in asked]
    rules = Rules(patience_s=patience, scarcity=0.0)
    found = {one.session: one for one in schedule(asked, index(*seats), now=NOW, rules=rules, running=running)}
    assert len(found) == len(asked)
    book = book_of(seats, running)
    whole = total(one.capacity for one in seats)
    held: dict[str, Slots] = {}
    for runs in running:
        held[runs.project] = held.get(runs.project, Slots()) + runs.members[0][1]
    left = list(asked)
    while left:
        one = order(left, {}, whole)(held)
        left.remove(one)
        ways = book.ways(seats, one, NOW, rules.wait_value)
        decision = found[one.session]
        now = min((way for way in ways if way[1] == NOW), default=None)
        later = min((way for way in ways if way[1] > NOW), default=None)
        soon = min((way for way in ways if NOW < way[1] <= one.queued_at + patience), default=None)
        if not ways:
            assert decision.outcome is Outcome.HOLD
            continue
        if now and (soon is None or soon[0] >= now[0]):
            assert decision.outcome is Outcome.PLACE
            taken, start, cost = decision.taken[0], NOW, now[0]
        else:
            assert decision.outcome is Outcome.WAIT
            best = soon if now else later
            assert best is not None
            taken = waits(decision)[0]
            start, cost = NOW + taken.start_s, best[0]
        assert taken.cost == cost
        assert book.fits(taken.target, one.request.cpu, start, one.expected_s), "overcommitted"
        book.held.append((taken.target, one.request.cpu, start, start + one.expected_s))
        held[one.project] = held.get(one.project, Slots()) + Slots(one.request.cpu, one.request.memory)


@settings(max_examples=150)
@given(clusters(), demands(), st.integers(), st.booleans())
def test_slots_are_conserved_and_order_of_input_does_not_matter(
    cluster: tuple[list[Seat], list[Running]], asked: list[Demand], seed: int, launches: bool
) -> None:
    seats, running = cluster
    capacity = index(*seats, launch=[launchable(shape(), room=2)] if launches else [])
    found = schedule(asked, capacity, now=NOW, running=running)
    assert [one.session for one in found] == [one.session for one in asked]
    assert {one.agent: one for one in capacity.seats()} == {one.agent: one for one in seats}
    assert schedule(asked, capacity, now=NOW, running=running) == found, "the index was not left as it was"
    chance = random.Random(seed)
    mixed, others = chance.sample(asked, len(asked)), chance.sample(running, len(running))
    again = schedule(mixed, index(*seats, launch=list(capacity.launchables())), now=NOW, running=others)
    assert sorted(again, key=_session) == sorted(found, key=_session)
    _check_sums(seats, running, asked, found)


def _session(one: Decision) -> str:
    return one.session


def _check_sums(seats: list[Seat], running: list[Running], asked: list[Demand], found: list[Decision]) -> None:
    gone = [session for one in found for session in one.preempts]
    assert len(gone) == len(set(gone)), "a victim twice"
    by_id = {one.session: one for one in running}
    assert all((by_id[session].ends_at or 0) > NOW + NOTICE_S for session in gone), "it would have gone anyway"
    book = book_of(seats, [replace(one, ends_at=NOW + NOTICE_S) if one.session in gone else one for one in running])
    for one, decision in zip(asked, found, strict=True):
        assert decision.message
        for session in decision.preempts:
            assert by_id[session].preemptible
            assert by_id[session].priority < one.priority
        kept = waits(decision) if decision.outcome is Outcome.WAIT else []
        taken = [offer for offer in decision.taken if offer.kind is OfferKind.AGENT]
        assert len({offer.target for offer in [*kept, *taken]}) == len([*kept, *taken])
        assert len(taken) in (0, one.nodes)
        for offer in [*kept, *taken]:
            start = NOW + offer.start_s
            book.held.append((offer.target, offer.slots.cpu, start, start + max(1.0, one.expected_s)))
    for agent, _, start, _ in list(book.held):
        assert book.free(agent, max(start, NOW)) >= 0, "overcommitted"


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3)), max_size=8), st.integers(1, 3))
def test_another_free_agent_of_the_kind_takes_no_ones_place(rows: list[tuple[int, int]], count: int) -> None:
    asked = [
        replace(demand(f"s-{n}", request(cpu), expected_s=600.0), priority=priority, queued_at=NOW)
        for n, (cpu, priority) in enumerate(rows)
    ]
    few, more = (
        schedule(asked, index(*(seat(f"a-{n}") for n in range(agents))), now=NOW) for agents in (count, count + 1)
    )
    top = max((one.priority for one in asked), default=0)
    for one, before, after in zip(asked, few, more, strict=True):
        if one.priority == top and before.outcome is Outcome.PLACE:
            assert after.outcome is Outcome.PLACE


def test_everyone_gets_an_answer_however_many_wait() -> None:
    running = [Running(session="r", members=(("a-1", slots()),), ends_at=NOW + 60)]
    asked = [
        replace(demand(f"s-{n:05}", request(1 + n % 4)), queued_at=float(n), project=f"p-{n % 7}")
        for n in range(10_000)
    ]
    began = process_time()
    found = schedule(asked, index(seat("a-1", free=slots(0))), now=20_000.0, running=running)
    assert process_time() - began < 20
    assert all(one.outcome is Outcome.WAIT and one.message for one in found)
    assert sum(bool(waits(one)) for one in found) == 64


def test_uncontended_it_decides_as_the_router_does() -> None:
    seats = [seat(f"a-{n}", price=n) for n in range(20)]
    asked = [replace(demand(f"s-{n:02}", request(1 + n % 4)), queued_at=float(n)) for n in range(15)]
    assert schedule(asked, index(*seats), now=NOW) == route(asked, index(*seats), now=NOW)


def test_a_wait_costs_what_it_says() -> None:
    index_ = index(seat("a-1", free=slots(0), price=360_000))
    running = [Running(session="r", members=(("a-1", slots()),), ends_at=NOW + 60)]
    (found,) = schedule([replace(demand(asks=request(4)), queued_at=NOW)], index_, now=NOW, running=running)
    (offer,) = waits(found)
    assert offer.parts.run == money.cost(360_000, 600)
    assert offer.parts.delay == 600
    assert offer.cost == offer.parts.total
