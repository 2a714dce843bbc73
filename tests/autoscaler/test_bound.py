"""The lower bound and the packing beside it: bound <= optimum <= ours, against a slow direct search."""

from collections.abc import Sequence
from functools import cache
from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.instance import Shape
from atoll.offer import Demand
from atoll.plan import Action, Plan
from atoll.slots import Request
from autoscaler.view import GroupView
from tests.autoscaler.builders import decide, demand, group, shape, slots

SHAPES = (
    shape(1, 40_000),
    shape(2, 70_000),
    shape(4, 100_000),
    shape(16, 350_000),
    shape(has=slots(4, 16, "L4", 1), price=300_000, name="g1"),
    shape(has=slots(16, 64, "L4", 4), price=900_000, name="g4"),
    shape(has=slots(8, 128), price=260_000, name="r8"),
)


@st.composite
def crowds(draw: st.DrawFn) -> list[Demand]:
    kinds = draw(
        st.lists(st.tuples(st.sampled_from((0.5, 1, 2, 3)), st.sampled_from((0, 0, 0.4, 1, 2))), min_size=1, max_size=3)
    )
    counts = [draw(st.integers(1, 3)) for _ in kinds]
    return [
        demand(f"s-{n}-{i}", cpu, gpu=gpu)
        for n, ((cpu, gpu), count) in enumerate(zip(kinds, counts, strict=True))
        for i in range(count)
    ]


def optimum(crowd: Sequence[Demand], shapes: Sequence[Shape]) -> int | None:
    """Return the least price of machines that hold all, by trying every machine's content; None where none do."""
    kinds = sorted({one.request for one in crowd}, key=repr)
    counts = tuple(sum(one.request == kind for one in crowd) for kind in kinds)

    def holds(one: Shape, content: Sequence[int]) -> bool:
        free = one.slots
        for kind, count in zip(kinds, content, strict=True):
            for _ in range(count):
                taken = free.take(kind)
                if taken is None:
                    return False
                free = free - taken
        return True

    contents = [c for c in product(*(range(count + 1) for count in counts)) if any(c)]
    price = {c: min((s.price or 0 for s in shapes if holds(s, c)), default=None) for c in contents}
    able = [(c, p) for c, p in price.items() if p is not None]

    @cache
    def least(left: tuple[int, ...]) -> int | None:
        if not any(left):
            return 0
        first = next(n for n, count in enumerate(left) if count)
        found = []
        for content, cost in able:
            if content[first] and all(a <= b for a, b in zip(content, left, strict=True)):
                rest = least(tuple(b - a for a, b in zip(content, left, strict=True)))
                if rest is not None:
                    found.append(cost + rest)
        return min(found, default=None)

    return least(counts)


def paid(made: Plan) -> int:
    return sum(step.shape.price or 0 for step in made.steps if step.action is Action.LAUNCH and step.shape)


def one_each(crowd: Sequence[Demand], shapes: Sequence[Shape]) -> int:
    def alone(request: Request) -> int:
        return min(one.price or 0 for one in shapes if one.slots.take(request) is not None)

    return sum(alone(one.request) for one in crowd)


@settings(max_examples=150)
@given(crowds(), st.sets(st.sampled_from(SHAPES), min_size=1))
def test_bound_optimum_ours_and_one_machine_each_are_in_this_order(crowd: list[Demand], chosen: set[Shape]) -> None:
    shapes = sorted(chosen, key=lambda one: one.key)
    crowd = [one for one in crowd if any(s.slots.take(one.request) is not None for s in shapes)]
    made = decide(GroupView(group=group(most=100), shapes=tuple(shapes)), crowd)
    least = optimum(crowd, shapes)
    if not crowd or least is None:
        assert made.quote is None
        return
    assert made.quote is not None
    assert made.quote.price == paid(made)
    assert made.quote.bound <= least <= paid(made) <= one_each(crowd, shapes)


def test_the_bound_is_the_price_where_machines_are_full() -> None:
    made = decide(GroupView(group=group(most=10), shapes=(shape(4, 100_000), shape(1, 40_000))), [demand(cpu=4)] * 1)
    assert made.quote is not None
    assert (made.quote.price, made.quote.method) == (100_000, "greedy")
    assert 99_990 <= made.quote.bound <= 100_000
    assert made.quote.gap < 1e-3


def test_gangs_and_what_shares_their_machines_are_in_the_quote() -> None:
    view = GroupView(group=group(most=10), shapes=(shape(4, 100_000),))
    made = decide(view, [demand("s-gang", 3, nodes=2), demand("s-a"), demand("s-b"), demand("s-c", 4)])
    assert made.quote is not None
    assert made.quote.price == paid(made) == 300_000
    assert 290_000 < made.quote.bound <= 300_000


def test_a_plan_without_launches_has_no_quote() -> None:
    assert decide(GroupView(group=group(), shapes=SHAPES)).quote is None
