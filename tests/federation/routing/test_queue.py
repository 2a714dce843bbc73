"""Who is looked at next."""

import random
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from atoll.offer import Demand
from atoll.slots import GIB, Slots
from federation.routing.queue import URGENT_S, Ledger, in_turn, is_urgent, whole_of
from tests.federation.routing.builders import demand, request, slots
from tests.federation.routing.simple import order

WHOLE = slots(100, 400)


def ask(session: str, project: str = "", *, priority: int = 0, at: float = 0.0, cpu: float = 1) -> Demand:
    return replace(demand(session, request(cpu)), project=project, priority=priority, queued_at=at)


def amount(one: Demand) -> Slots:
    return Slots(one.request.cpu, one.request.memory)


def turns(demands: list[Demand], ledger: Ledger | None = None, *, grant: bool = True, now: float = 0.0) -> list[str]:
    ledger = ledger or Ledger(WHOLE, {})
    found = []
    for number in in_turn(demands, ledger, now):
        found.append(demands[number].session)
        if grant:
            ledger.add(demands[number].project, amount(demands[number]))
    return found


def test_priority_then_queue_time_then_id() -> None:
    asked = [ask("s-3", at=5), ask("s-2", at=5), ask("s-1", at=9), ask("s-9", priority=2, at=99)]
    assert turns(asked) == ["s-9", "s-2", "s-3", "s-1"]


def test_projects_take_turns_whoever_queued_first() -> None:
    asked = [ask(f"a-{n}", "a", at=n) for n in range(3)] + [ask(f"b-{n}", "b", at=10 + n) for n in range(3)]
    assert turns(asked) == ["a-0", "b-0", "a-1", "b-1", "a-2", "b-2"]


def test_what_runs_already_counts_and_weights_divide_it() -> None:
    asked = [ask("a-1", "a"), ask("b-1", "b", at=1)]
    ledger = Ledger(WHOLE, {})
    ledger.add("a", slots(10))
    assert turns(asked, ledger) == ["b-1", "a-1"]
    ledger = Ledger(WHOLE, {"a": 20.0})
    ledger.add("a", slots(10))
    ledger.add("b", slots(1))
    assert turns(asked, ledger) == ["a-1", "b-1"]


def test_the_dominant_kind_decides() -> None:
    ledger = Ledger(slots(100, 400, "L4", 10), {})
    ledger.add("few-gpus", slots(1, 1, "L4", 4))
    ledger.add("many-cores", slots(30, 1))
    assert ledger.share("few-gpus") == 0.4
    assert ledger.share("many-cores") == 0.3
    assert ledger.share("none") == 0.0


def test_who_got_nothing_is_not_charged() -> None:
    asked = [ask("a-1", "a"), ask("a-2", "a"), ask("b-1", "b", at=1)]
    assert turns(asked, grant=False) == ["a-1", "a-2", "b-1"]


def test_a_deadline_goes_first_while_it_can_still_be_met() -> None:
    late = replace(ask("late", "a", at=9), expected_s=100.0, due_at=1000.0)
    asked = [ask("s-1", "b"), late]
    for now, first in ((0.0, "s-1"), (899.0 - URGENT_S, "s-1"), (900.0 - URGENT_S, "late"), (901.0, "s-1")):
        assert turns(asked, now=now)[0] == first
        assert is_urgent(late, now) is (first == "late")
    assert turns([*asked, ask("s-0", priority=1)], now=500.0) == ["s-0", "late", "s-1"]
    assert is_urgent(replace(late, expected_s=40_000.0, due_at=50_000.0), 0.0), "a quarter of a long run time"


def test_the_whole_is_what_there_is_or_else_what_is_wanted() -> None:
    assert whole_of([(slots(4, 16), 3)], []).cpu == 12_000
    whole = whole_of([(slots(4, 16), 2)], [slots(1, 1, "L4", 1), slots(1, 1, "T4", 2)])
    assert (whole.cpu, whole.memory, whole.gpu_milli) == (8000, 32 * GIB, 3000)


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.sampled_from("abc"), st.integers(0, 3), st.integers(1, 8), st.integers(0, 30)),
        max_size=25,
    ),
    st.sampled_from(({}, {"a": 2.0, "b": 0.5})),
    st.integers(),
)
def test_the_order_is_that_of_a_direct_search_in_any_order_of_input(
    rows: list[tuple[int, str, int, int, int]], shares: dict[str, float], seed: int
) -> None:
    asked = [
        replace(ask(f"s-{n}", project, priority=priority, at=at), request=request(cpu, memory))
        for n, (priority, project, at, cpu, memory) in enumerate(rows)
    ]
    shuffled = list(asked)
    random.Random(seed).shuffle(shuffled)
    found = turns(shuffled, Ledger(WHOLE, shares))
    held: dict[str, Slots] = {}
    left = list(asked)
    for session in found:
        one = order(left, shares, WHOLE)(held)
        assert session == one.session
        held[one.project] = held.get(one.project, Slots()) + amount(one)
        left.remove(one)
    assert not left
