"""Launches over several places: what limits and terms allow, fall-over, gangs, and what time buys."""

import dataclasses
from collections import Counter

from atoll.group import Group
from atoll.instance import Shape
from atoll.offer import Demand
from atoll.plan import Action, Plan
from atoll.slots import GIB, GpuRequest, Request
from autoscaler.cover import Cover
from autoscaler.demand import PLAIN, Terms, by_kind, coarser, may_use
from autoscaler.limits import Ceiling, Limits
from autoscaler.packing import offerings, pack
from autoscaler.plan import plan
from autoscaler.view import GroupView, PendingView
from autoscaler.whole import Whole
from tests.autoscaler.builders import decide, demand, demands, group, request, shape, slots, steps, view

SHAPES = (shape(1, 40_000), shape(4, 100_000), shape(16, 350_000), shape(8, 230_000))


def zoned(zone: str, price: int, cpu: float = 4) -> Shape:
    return dataclasses.replace(shape(cpu, price), zone=zone)


def planned(views: list[GroupView], waiting: list[Demand], terms: Terms = PLAIN) -> Plan:
    return plan(views, waiting, plan_id="p-abc", generation=1, at=100.0, terms=terms)


def homes(made: Plan) -> Counter[str]:
    return Counter(step.group for step in steps(made, Action.LAUNCH))


# -- what is allowed ----------------------------------------------------------------------------------------------


def test_labels_are_those_of_the_site_with_the_groups_over_them() -> None:
    asked = dataclasses.replace(demand(), labels=(("tier", "gold"),))
    mine = dataclasses.replace(group("a"), labels={"tier": "gold"})
    other = dataclasses.replace(group("b"), labels={"tier": "tin"})
    terms = Terms(labels={"b": {"tier": "gold"}, "c": {"tier": "gold"}})
    assert [may_use(asked, one, shape(), terms) for one in (mine, other, group("c"), group("d"))] == [
        True,
        False,
        True,
        False,
    ]
    made = planned([view(of=other), view(of=group("c"))], [asked], terms)
    assert homes(made) == {"c": 1}


def test_a_gpu_session_asks_for_a_driver_and_an_unknown_one_will_not_do() -> None:
    asked = Demand(session="s-1", request=Request(1000, GIB, 0, GpuRequest(1000, driver=(550, 54))))
    gpu = shape(has=slots(8, 64, "L4", 2), price=700_000, name="g2")
    new, old = (dataclasses.replace(group(), driver=version) for version in ((560, 28), (535,)))
    assert [may_use(asked, one, gpu) for one in (new, old, group())] == [True, False, False]


def test_max_total_counts_a_machine_of_ones_own_and_what_bringing_the_data_costs() -> None:
    asked = dataclasses.replace(demand(), max_total=20_000, expected_s=600.0)
    assert may_use(asked, group(), shape(4, 100_000))
    assert not may_use(asked, group(), shape(4, 120_000))
    far = dataclasses.replace(asked, near="home", data=GIB)
    assert not may_use(far, group(), shape(4, 100_000), Terms(egress={"home": 90_000}))
    assert may_use(far, group(), shape(4, 100_000), Terms(egress={"other": 90_000}))


def test_data_pulls_launches_to_where_it_is() -> None:
    asked = dataclasses.replace(demand(cpu=4), near="home", data=100 * GIB)
    views = [view(of=group("away"), shapes=(shape(4, 90_000),)), view(of=group("home"), shapes=(shape(4, 100_000),))]
    assert homes(planned(views, [asked])) == {"away": 1}
    assert homes(planned(views, [asked], Terms(egress={"home": 90_000}))) == {"home": 1}


def test_spot_that_is_taken_away_often_is_not_cheap_for_long_sessions() -> None:
    often = dataclasses.replace(shape(4, 80_000, "m4s", spot=True), interruptions=2.0)
    views = [view(shapes=(often, shape(4, 100_000)))]
    short, long = (dataclasses.replace(demand(cpu=4), expected_s=seconds) for seconds in (60.0, 36_000.0))
    assert [step.shape for step in planned(views, [short]).steps] == [often]
    assert [step.shape for step in planned(views, [long]).steps] == [shape(4, 100_000)]


def test_what_waiting_is_worth_decides_between_soon_and_cheap() -> None:
    soon = dataclasses.replace(shape(4, 200_000, "soon"), start_s=10.0)
    late = dataclasses.replace(shape(4, 100_000, "late"), start_s=400.0)
    gang = [demand(nodes=2)]
    for value, name in ((10, "late"), (10_000, "soon")):
        terms = Terms(wait_value=value)
        for asked in ([demand()], gang):
            launched = planned([view(shapes=(late, soon))], asked, terms)
            assert {step.shape.name for step in launched.steps if step.shape} == {name}
        assert terms.beside(demand(), group(), dataclasses.replace(soon, spot=True)) > Terms(wait_value=0).beside(
            demand(), group(), dataclasses.replace(soon, spot=True)
        )


def test_what_a_policy_denies_is_not_launched_and_stands_for_nothing_else() -> None:
    def denied(asked: Demand, of: Group, one: Shape) -> bool:
        return asked.project == "p" and one.name == "cheap"

    terms = Terms(reads=("project",), denied=denied)
    views = [view(shapes=(shape(4, 50_000, "cheap"), shape(4, 60_000, "dear")))]
    crowd = [dataclasses.replace(demand("s-p", 4), project="p"), demand("s-q", 4)]
    made = planned(views, crowd, terms)
    assert {step.sessions[0]: step.shape and step.shape.name for step in made.steps} == {"s-p": "dear", "s-q": "cheap"}


# -- several places -----------------------------------------------------------------------------------------------


def test_what_cannot_be_had_in_one_zone_is_had_in_the_next_cheapest_place() -> None:
    first, second, third = zoned("z1", 90_000), zoned("z2", 95_000), zoned("y1", 99_000)
    here, there = group("here"), group("there")

    def at(*blocked: Shape) -> Plan:
        gone = {one.key: "no capacity" for one in blocked}
        return decide(
            [
                GroupView(group=here, shapes=(first, second), blocked=gone),
                GroupView(group=there, shapes=(third,), blocked=gone),
            ],
            demands(4),
        )

    assert [step.shape for step in at().steps] == [first]
    assert [step.shape for step in at(first).steps] == [second]
    assert [(step.shape, step.group) for step in at(first, second).steps] == [(third, "there")]
    assert at(first, second, third).steps == ()


def test_a_full_account_or_group_leaves_the_rest_to_others() -> None:
    cheap = [Ceiling(provider="sim", name="n", limit=2, committed=0, shapes=("m4",))]
    views = [
        GroupView(group=group("a", most=50), shapes=(shape(4, 90_000),), limits=tuple(cheap)),
        GroupView(group=dataclasses.replace(group("b", most=3), provider="other"), shapes=(shape(4, 95_000),)),
        GroupView(group=dataclasses.replace(group("c", most=50), provider="third"), shapes=(shape(4, 99_000),)),
    ]
    assert homes(decide(views, demands(40))) == {"a": 2, "b": 3, "c": 5}


def test_devices_of_several_models_on_one_machine_are_taken_one_model_a_session() -> None:
    mixed = dataclasses.replace(
        shape(has=slots(16, 64, "A", 1) + slots(0, 0, "B", 1), price=500_000, name="mix"), start_s=60.0
    )
    made = decide(
        view(shapes=(mixed,), of=group(most=9)), [demand(f"s-{n}", gpu=g) for n, g in enumerate((0.6, 0.6, 0.6))]
    )
    assert len(made.steps) == 2, "0.6 of a device fits twice on two devices, not three times on 2.0"


# -- gangs --------------------------------------------------------------------------------------------------------


def gang(nodes: int, *, together: bool = False, spread: bool = False) -> Demand:
    return dataclasses.replace(demand("s-gang", 4, nodes=nodes), together=together, spread=spread)


def two_sites(dear: int, most: int = 2) -> list[GroupView]:
    return [
        GroupView(group=group("cheap", most=most), shapes=(shape(4, 100_000),)),
        GroupView(group=group("large", most=9), shapes=(shape(4, dear),)),
    ]


def test_a_gang_stays_at_one_site_unless_that_is_dear() -> None:
    assert homes(planned(two_sites(110_000), [gang(3)])) == {"large": 3}
    assert homes(planned(two_sites(300_000), [gang(3)])) == {"cheap": 2, "large": 1}
    assert homes(planned(two_sites(300_000), [gang(3, together=True)])) == {"large": 3}


def test_a_gang_that_must_be_together_is_not_served_where_no_site_has_room() -> None:
    views = [GroupView(group=group(name, most=2), shapes=(shape(4, 100_000),)) for name in ("a", "b")]
    assert homes(planned(views, [gang(3)])) == {"a": 2, "b": 1}
    assert planned(views, [gang(3, together=True)]).steps == ()


def test_a_gang_prefers_one_region_and_spreads_where_asked() -> None:
    views = [GroupView(group=group(name, most=2), shapes=(shape(4, 100_000),)) for name in ("a", "b", "c")]
    terms = Terms(labels={"b": {"region": "r"}, "c": {"region": "r"}})
    assert homes(planned(views, [gang(4)], terms)) == {"b": 2, "c": 2}
    assert homes(planned(views, [gang(3, spread=True)], terms)) == {"a": 1, "b": 1, "c": 1}


def test_a_gang_that_lost_one_launch_gets_another_beside_those_it_has() -> None:
    views = two_sites(110_000, most=9)
    pending = (PendingView(instance="i-1", shape=shape(4, 110_000), sessions=("s-gang",)),)
    views[1] = dataclasses.replace(views[1], pending=pending)
    assert homes(planned(views, [gang(2)])) == {"large": 1}


# -- time ---------------------------------------------------------------------------------------------------------


def crowd(count: int) -> list[Demand]:
    return [demand(f"s-{n}", (0.5, 1, 1.5, 2.5, 3)[n * n % 5]) for n in range(count)]


def budget(seconds: float, step: float = 0.01) -> "Countdown":
    return Countdown(seconds, step)


class Countdown:
    """A clock that loses a step with every look."""

    def __init__(self, seconds: float, step: float) -> None:
        self.left, self.step = seconds, step

    def __call__(self) -> float:
        self.left -= self.step
        return self.left


def test_time_never_makes_a_plan_dearer_and_tightens_its_bound() -> None:
    views = [GroupView(group=group(most=500), shapes=SHAPES)]
    prices, bounds = [], []
    for seconds in (0.0, 0.5, 1.5, 8.0):
        made = plan(views, crowd(120), plan_id="p-1", generation=1, at=0.0, left=budget(seconds))
        assert made.quote is not None
        assert len(made.awaits) == 120
        assert made.quote.bound <= made.quote.price
        prices.append(made.quote.price)
        bounds.append(made.quote.bound)
    assert prices == sorted(prices, reverse=True)
    assert bounds == sorted(bounds)
    assert prices[-1] <= 1.05 * bounds[-1]


def test_improvement_keeps_within_room_and_limits() -> None:
    limit = Ceiling(provider="sim", name="cores", limit=40, committed=0, counts="cpu", shapes=("m16", "m8"))
    views = [GroupView(group=group(most=40), shapes=SHAPES, limits=(limit,))]
    made = plan(views, crowd(60), plan_id="p-1", generation=1, at=0.0, left=budget(1.0))
    kinds = Counter(step.shape.name for step in made.steps if step.shape)
    assert len(made.awaits) == 60
    assert 16 * kinds["m16"] + 8 * kinds["m8"] <= 40
    assert sum(kinds.values()) <= 40


def test_the_tighter_bound_knows_that_sessions_are_whole() -> None:
    kinds = by_kind(demands(6, 3))  # one of 3 cores to a machine of 4
    cover = Cover(kinds, offerings(group(most=9), (shape(4, 100_000),), (), 600.0), PLAIN)
    found = Whole(cover, [(0, ((0, 1),))]).bound(budget(1.0))
    assert 599_000 < found <= 600_000


def test_purchases_say_what_is_left_of_each_machine() -> None:
    room = {"cloud": 9}
    able = offerings(group(most=9), (shape(4, 100_000),), (), 600.0)
    [bought] = pack(by_kind(demands(3)), able, room, Limits())
    assert len(bought.sessions) == 3
    assert bought.free.take(request(1)) is not None
    assert bought.free.take(request(2)) is None
    assert room == {"cloud": 8}


def test_very_many_kinds_are_packed_by_sorts_and_all_are_served() -> None:
    asks = [
        dataclasses.replace(request(), cpu=100 + 31 * n % 15_900, memory=(1 + 7 * n % 40) * GIB) for n in range(1200)
    ]
    waiting = [Demand(session=f"s-{n}", request=ask) for n, ask in enumerate(asks)]
    big = shape(has=slots(16, 64), price=350_000, name="m16")
    made = decide(GroupView(group=group(most=5000), shapes=(*SHAPES, big)), waiting)
    assert len(by_kind(waiting)) > 1000
    assert len(made.awaits) == 1200
    assert made.quote is not None
    assert made.quote.bound <= made.quote.price <= 1.5 * made.quote.bound
    free = {step.instance: step.shape.slots for step in steps(made, Action.LAUNCH) if step.shape}
    by_name = {one.session: one.request for one in waiting}
    for session, instance in made.awaits:
        taken = free[instance].take(by_name[session])
        assert taken is not None
        free[instance] = free[instance] - taken


def test_coarser_kinds_need_as_much_as_their_largest_or_smallest() -> None:
    kinds = by_kind([demand(f"s-{n}", 1 + n / 10) for n in range(30)] + [demand("s-spotless", 2, spot=False)])
    for up, pick in ((True, max), (False, min)):
        fewer = coarser(kinds, 8, up=up)
        assert len(fewer) <= 8
        assert sum(kind.left for kind in fewer) == 31
        assert sum(not kind.example.spot for kind in fewer) == 1
        for kind in fewer:
            assert kind.need[0] == pick(one.request.cpu for one in kind.waiting)
