"""The index against the obvious: random changes and demands, compared with a direct look at every agent and shape."""

import dataclasses
from collections.abc import Mapping, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from atoll import money
from atoll.offer import Demand, OfferKind, Outcome
from atoll.slots import GIB, GpuRequest, Request, Slots
from atoll.states import Reason
from federation.routing import bins, lens
from federation.routing.capacity import Capacity, Launchable, Seat, Standby
from federation.routing.place import Trial, route
from federation.routing.rules import Candidate, Rules, Ruling
from tests.federation.routing.builders import demand, launchable, request, seat, shape, slots, standby

CAPACITIES = (slots(2, 4), slots(4, 16), slots(8, 32, "L4", 1), slots(8, 32, "T4", 2) + slots(0, 0, "A100", 1, 80))
PRICES = (0, 90_000, 200_000, 200_001)
EGRESS = {"hall": 70_000, "lab": 0}


def judged(one: Demand, place: Candidate) -> Ruling:
    """A policy: nobody on the lab's spot machines, dear places twice as dear for services, a fee at the hall."""
    if place.site == "lab" and place.spot:
        return Ruling(denied="the lab's spot machines are for tests")
    factor = 2.0 if one.type == "service" and place.price > 50_000 else 1.0
    return Ruling(factor=factor, extra=40 if place.site == "hall" else 0)


PLAIN = Rules(scarcity=0)
POLICY = Rules(version="policy", scarcity=0, reads=("type",), judge=judged, rework_s=100, spot_interruptions=0.5)


@st.composite
def seats(draw: st.DrawFn) -> Seat:
    capacity = draw(st.sampled_from(CAPACITIES))
    used = request(draw(st.integers(0, 2)), draw(st.integers(0, 4)), draw(st.sampled_from((0, 0, 1))))
    taken = capacity.take(used)
    made = seat(
        f"a-{draw(st.integers(0, 9))}",
        capacity,
        capacity if taken is None else capacity - taken,
        price=draw(st.sampled_from(PRICES)),
        site=draw(st.sampled_from(("hall", "lab"))),
        spot=draw(st.booleans()),
        closed=draw(st.sampled_from((Reason.NONE, Reason.NONE, Reason.OUTSIDE_HOURS))),
    )
    return dataclasses.replace(
        made,
        labels=draw(st.sampled_from(((), (("disk", "nvme"),)))),
        driver=draw(st.sampled_from(((), (535, 1), (550, 54)))),
        interruptions=draw(st.sampled_from((None, None, 0.2))),
        owned=draw(st.booleans()),
    )


@st.composite
def demands(draw: st.DrawFn) -> Demand:
    gpu = GpuRequest(
        draw(st.sampled_from((0, 0, 500, 1000, 2000))),
        draw(st.sampled_from(((), (), ("L4",), ("A100", "T4")))),
        draw(st.sampled_from((0, 0, 20 * GIB))),
        draw(st.sampled_from((0, 0, 40 * GIB))),
        draw(st.sampled_from(((), (), (540,)))),
    )
    made = demand(
        f"s-{draw(st.integers(0, 99))}",
        Request(draw(st.integers(1, 4)) * 1000, draw(st.integers(0, 8)) * GIB, 0, gpu),
        sites=draw(st.sampled_from(((), ("lab",)))),
        max_price=draw(st.sampled_from((None, None, 60_000))),
        spot=draw(st.booleans()),
        expected_s=draw(st.sampled_from((60.0, 3600.0))),
    )
    return dataclasses.replace(
        made,
        labels=draw(st.sampled_from(((), (), (("disk", "nvme"),)))),
        near=draw(st.sampled_from(("", "hall"))),
        data=draw(st.sampled_from((0, GIB // 3))),
        max_total=draw(st.sampled_from((None, None, 60_000))),
        type=draw(st.sampled_from(("batch", "service"))),
        checkpoint=draw(st.booleans()),
        on_demand=draw(st.sampled_from((True, True, False))),
    )


@st.composite
def shapes(draw: st.DrawFn) -> tuple[Launchable, ...]:
    made = (
        launchable(
            shape(
                name, draw(st.sampled_from(CAPACITIES)), price=draw(st.sampled_from(PRICES)), spot=draw(st.booleans())
            ),
            room=draw(st.integers(0, 2)),
            blocked=draw(st.sampled_from((Reason.NONE, Reason.NONE, Reason.NO_CAPACITY))),
        )
        for name in ("m1", "m2")
    )
    return tuple(made)


@st.composite
def standbys(draw: st.DrawFn) -> list[Standby]:
    """Machines on their way and stopped ones; those that wait for one may be the first of the demands or others."""
    made = []
    for n in range(draw(st.integers(0, 4))):
        of = shape(
            "m3", draw(st.sampled_from(CAPACITIES)), price=draw(st.sampled_from(PRICES)), spot=draw(st.booleans())
        )
        part = of.slots.take(request(draw(st.integers(0, 4)), draw(st.integers(0, 8))))
        one = standby(
            f"i-{n}",
            of,
            kind=draw(st.sampled_from((OfferKind.PENDING, OfferKind.PENDING, OfferKind.COLD))),
            start_s=draw(st.sampled_from((0.0, 20.0, 60.0, 400.0))),
            room=draw(st.integers(0, 1)),
            sessions=draw(st.sampled_from(((), (), tuple(f"s-{n}" for n in range(50))))),
        )
        if part is not None and one.kind is OfferKind.PENDING:
            one = dataclasses.replace(one, free=of.slots - part)
        made.append(one)
    return made


@dataclasses.dataclass(frozen=True)
class Spot:
    """A place as the rules see it: `price` is the member's share, `paid` what it pays."""

    kind: OfferKind
    site: str
    price: int
    paid: int
    spot: bool
    owned: bool = False
    known: float | None = None
    start: float = 0.0


def cost_of(one: Demand, place: Spot, rules: Rules) -> int | None:
    """The rules, written directly: what a place is expected to cost a member, None where one of them forbids it."""
    if (place.spot and not one.spot) or (one.sites and place.site not in one.sites):
        return None
    if not (one.on_demand or place.spot or place.owned):
        return None
    if one.max_price is not None and place.price > one.max_price:
        return None
    run = money.cost(place.paid, one.expected_s + place.start)
    egress = -(-one.data * EGRESS.get(one.near, 0) // GIB) if place.site != one.near else 0
    if one.max_total is not None and run + egress > one.max_total:
        return None
    rate = place.known if place.known is not None else rules.spot_interruptions if place.spot else 0
    lost = min(one.expected_s / 2, 60 if one.checkpoint else rules.rework_s)
    risk = round(
        rate * one.expected_s / 3600 * (money.cost(place.paid, lost) + rules.wait_value * (lost + place.start))
    )
    total = run + round(place.start * rules.wait_value) + egress + risk
    if rules.judge is None:
        return total
    asked = Candidate(kind=place.kind, site=place.site, group="", price=place.price, spot=place.spot, owned=place.owned)
    ruling = rules.judge(one, asked)
    return None if ruling.denied else total + round((ruling.factor - 1) * total) + ruling.extra


def able(one: Demand, whole: Slots, labels: Sequence[tuple[str, str]], driver: tuple[int, ...]) -> Slots | None:
    """What a member would take of a whole machine, None where it could never run there."""
    asked = one.request.gpu.driver if one.request.gpu.milli else ()
    if not set(one.labels) <= set(labels) or (asked and driver < asked):
        return None
    return whole.take(one.request)


def alike(one: Demand, on: Seat) -> Seat:
    """What agents have in common of which one is named: all but what is free there; where it could run, the place."""
    kind = dataclasses.replace(on, agent="", free=Slots(), open=True, why_closed=Reason.NONE, message="")
    if able(one, on.capacity, on.labels, on.driver):
        return kind
    return dataclasses.replace(kind, site="", price=0, owned=False)


def cost_on(one: Demand, on: Seat, free: Slots, rules: Rules) -> int | None:
    part = able(one, on.capacity, on.labels, on.driver)
    if part is None or not on.open or free.take(one.request) is None:
        return None
    price = round(part.share_of(on.capacity) * on.price)
    return cost_of(one, Spot(OfferKind.AGENT, on.site, price, price, on.spot, on.owned, on.interruptions), rules)


def cost_to_launch(one: Demand, of: Launchable, rules: Rules) -> int | None:
    made = of.shape
    part = able(one, made.slots, of.labels, of.driver)
    if part is None or not made.price or of.blocked or of.room <= 0:
        return None
    price = round(part.share_of(made.slots) * made.price)
    place = Spot(OfferKind.LAUNCH, of.site, price, made.price, made.spot, False, made.interruptions, made.start_s)
    return cost_of(one, place, rules)


def cost_of_standby(one: Demand, on: Standby, rules: Rules, *, whole: bool) -> int | None:
    """The cost of the whole of it, or of a member's share; None where a launch of its shape would not do either."""
    made = on.shape
    part = able(one, made.slots, on.labels, on.driver)
    if part is None or not made.price:
        return None
    price = round(part.share_of(made.slots) * made.price)
    place = Spot(OfferKind.LAUNCH, on.site, price, made.price, made.spot, False, made.interruptions, made.start_s)
    if cost_of(one, place, rules) is None:
        return None
    unlimited = dataclasses.replace(one, max_total=None)
    paid = made.price if whole else price
    return cost_of(unlimited, dataclasses.replace(place, paid=paid, start=on.start_s), rules)


def best_standby(
    one: Demand, standbys: Sequence[Standby], launch: int | None, below: int | None, rules: Rules
) -> tuple[str, int] | None:
    """What the planner would do: its own machine, else the cheapest on its way, else a stopped one; what it costs."""
    joins, own, stopped = [], [], []
    for on in standbys:
        share, alone = (cost_of_standby(one, on, rules, whole=whole) for whole in (False, True))
        if share is None or alone is None:
            continue
        if on.kind is OfferKind.PENDING and (below is None or share < below):
            if one.session in on.sessions:
                own.append((0, share, on.instance))
            elif on.free.take(one.request) is not None:
                joins.append((1, share, on.instance))
        if on.kind is OfferKind.COLD and on.room > 0 and (below is None or alone < below):
            stopped.append((2, alone, on.instance, share))
    if own:
        return own[0][2], own[0][1]
    if joins:
        return min(joins)[2], min(joins)[1]
    if stopped and (launch is None or min(stopped)[3] <= launch):
        return min(stopped)[2], min(stopped)[1]
    return None


class IndexMachine(RuleBasedStateMachine):
    """Random events and calls; after each, the index must say what a direct look at everything says."""

    def __init__(self) -> None:
        super().__init__()
        self.capacity = Capacity()
        self.known: dict[str, Seat] = {}
        self.launchables: tuple[Launchable, ...] = ()
        for site, egress in EGRESS.items():
            self.capacity.set_site(site, egress=egress)

    @rule(one=seats())
    def put(self, one: Seat) -> None:
        self.capacity.put_seat(one)
        self.known[one.agent] = one

    @rule(number=st.integers(0, 9))
    def drop(self, number: int) -> None:
        self.capacity.drop_seat(f"a-{number}")
        self.known.pop(f"a-{number}", None)

    @rule(number=st.integers(0, 9))
    def close_or_reopen(self, number: int) -> None:
        if one := self.known.get(f"a-{number}"):
            why = Reason.RESERVED if one.open else Reason.NONE
            self.put(dataclasses.replace(one, open=not one.open, why_closed=why))

    @rule(offered=st.one_of(st.just(()), shapes()))
    def offer(self, offered: tuple[Launchable, ...]) -> None:
        self.capacity.set_launchables("cloud", offered)
        self.launchables = offered

    @rule(waiting=st.lists(demands(), min_size=1, max_size=6), rules=st.sampled_from((PLAIN, PLAIN, POLICY)))
    def decide(self, waiting: list[Demand], rules: Rules) -> None:
        """Without launches the whole list is compared; with them the first, as later ones may share its machine."""
        waiting = waiting[:1] if self.launchables else waiting
        free = {agent: one.free for agent, one in self.known.items()}
        for one, decision in zip(waiting, route(waiting, self.capacity, rules=rules), strict=True):
            costs = [c for a, s in self.known.items() if (c := cost_on(one, s, free[a], rules)) is not None]
            launches = [c for of in self.launchables if (c := cost_to_launch(one, of, rules)) is not None]
            if costs and (not launches or min(costs) <= min(launches)):
                assert decision.outcome is Outcome.PLACE
                self.check_taken(one, decision.taken[0].target, free, decision.taken[0].slots)
                assert decision.taken[0].cost == decision.taken[0].parts.total == min(costs), "not the cheapest"
                assert any(offer.cost == min(costs) for offer in decision.ranked)
            elif launches:
                assert decision.outcome is Outcome.LAUNCH
                assert decision.taken[0].cost == min(launches), "not the cheapest"
            else:
                assert decision.outcome in {Outcome.WAIT, Outcome.HOLD}
                told = {no.target for no in decision.rejected} & self.known.keys()
                explained = {alike(one, self.known[agent]) for agent in told}
                assert {alike(one, on) for on in self.known.values()} == explained, "a kind of agent goes unexplained"

    @rule(waiting=st.lists(demands(), min_size=1, max_size=6), acts=st.lists(st.booleans(), min_size=6, max_size=6))
    def decide_and_act(self, waiting: list[Demand], acts: list[bool]) -> None:
        """Some decisions are acted on, one by one, before anyone looks again."""
        for decision, acted in zip(route(waiting, self.capacity, rules=PLAIN), acts, strict=False):
            if acted and decision.outcome is Outcome.PLACE:
                on = self.known[decision.taken[0].target]
                self.put(dataclasses.replace(on, free=on.free - decision.taken[0].slots))

    @rule(waiting=st.lists(demands(), min_size=1, max_size=8), nodes=st.sampled_from((1, 2, 3)))
    def decide_with_scarcity(self, waiting: list[Demand], nodes: int) -> None:
        """Scarcity says where, never whether: what fits is placed, and the other parts of the cost stay the same."""
        waiting = [dataclasses.replace(one, nodes=nodes, max_total=None, data=0) for one in waiting]
        free = {agent: one.free for agent, one in self.known.items()}
        rules = Rules(version="scarce")
        decisions = route(waiting, self.capacity, rules=rules)
        assert decisions == route(waiting, self.capacity, rules=rules), "equal input, unequal decisions"
        for one, decision in zip(waiting, decisions, strict=True):
            fit = {a: c for a, s in self.known.items() if (c := cost_on(one, s, free[a], rules)) is not None}
            if decision.outcome is not Outcome.PLACE:
                assert self.launchables or len(fit) < nodes
                continue
            assert len({offer.target for offer in decision.taken}) == nodes, "a gang's members share an agent"
            for offer in decision.taken:
                assert offer.cost - offer.parts.scarcity == fit[offer.target]
                self.check_taken(one, offer.target, free, offer.slots)

    @rule(waiting=st.lists(demands(), min_size=1, max_size=4), number=st.integers(0, 9), shown=st.integers(0, 8))
    def limit(self, waiting: list[Demand], number: int, shown: int) -> None:
        """What a trial shows as free, more or less than there is, is what is decided by."""
        trial = Trial(self.capacity, waiting, rules=PLAIN)
        free = {agent: one.free for agent, one in self.known.items()}
        agent = f"a-{number}"
        if agent in free and self.known[agent].open:
            free[agent] = dataclasses.replace(free[agent], cpu=shown * 1000)
        trial.decide(waiting[0])
        trial.undo()
        trial.limit(agent, free.get(agent, Slots()))
        for one in waiting:
            best = min(
                (c for a, s in self.known.items() if (c := cost_on(one, s, free[a], PLAIN)) is not None), default=None
            )
            found = trial.lens(one).find()
            assert (found[1].total if found else None) == best
        trial.undo()

    def check_taken(self, one: Demand, agent: str, free: dict[str, Slots], taken: Slots) -> None:
        free[agent] = free[agent] - taken
        assert (taken.cpu, taken.memory) == (one.request.cpu, one.request.memory)
        assert self.known[agent].capacity.covers(free[agent])
        assert free[agent].covers(Slots()), "overcommitted"

    @invariant()
    def keeps_what_was_put(self) -> None:
        assert {one.agent: one for one in self.capacity.seats()} == self.known
        for make in self.capacity.makes():
            rows = [row for alike in make.by_kind.values() for home in alike for row in home.rows.values()]
            assert make.free == sum(row.seat.free.gpu_milli for row in rows if row.seat.open)
            assert all(row.key == bins.key_of(row.seat) and row.free == row.seat.free for row in rows), "not undone"


TestIndex = IndexMachine.TestCase
TestIndex.settings = settings(max_examples=60, stateful_step_count=20)


@given(st.lists(seats(), max_size=2), standbys(), st.one_of(st.just(()), shapes()), demands(), st.sampled_from("pr"))
@settings(max_examples=400)
def test_what_comes_and_what_is_stopped_is_chosen_as_the_planner_serves_it(
    there: list[Seat], coming: list[Standby], offered: tuple[Launchable, ...], one: Demand, policy: str
) -> None:
    one = dataclasses.replace(one, request=Request(one.request.cpu, one.request.memory), sites=(), labels=())
    rules = PLAIN if policy == "p" else POLICY
    capacity, known = Capacity(), {on.agent: on for on in there}
    for site, egress in EGRESS.items():
        capacity.set_site(site, egress=egress)
    for on in known.values():
        capacity.put_seat(on)
    capacity.set_launchables("cloud", offered)
    capacity.set_standbys(coming)
    (decision,) = route([one], capacity, rules=rules)
    below = min([c for on in known.values() if (c := cost_on(one, on, on.free, rules)) is not None], default=None)
    launches = [c for of in offered if (c := cost_to_launch(one, of, rules)) is not None]
    cheaper = min([cost for cost in launches if below is None or cost < below], default=None)
    comes = best_standby(one, coming, cheaper, below, rules)
    if comes:
        assert decision.outcome is Outcome.LAUNCH
        assert (decision.taken[0].target, decision.taken[0].cost) == comes
        assert decision.taken[0] in decision.ranked
    elif cheaper is not None:
        assert (decision.outcome, decision.taken[0].cost) == (Outcome.LAUNCH, cheaper)
        assert decision.taken[0].kind is OfferKind.LAUNCH
    else:
        assert (decision.outcome is Outcome.PLACE) is (below is not None)


def placed(decisions: Mapping[str, bool], kind: str) -> int:
    return sum(done for session, done in decisions.items() if session.startswith(kind))


def test_sessions_of_one_model_are_placed_as_often_as_by_a_list_order_scan() -> None:
    fleet = [seat(f"t-{n}", slots(8, 32, "T4", 1), price=100_000) for n in range(10)]
    fleet += [seat(f"v-{n}", slots(8, 32, "V100", 1), price=300_000) for n in range(10)]
    waiting = [demand(f"any-{n}", request(gpu=1)) for n in range(10)]
    waiting += [demand(f"t4-{n}", request(gpu=1, models=("T4",))) for n in range(10)]
    capacity = Capacity()
    for one in fleet:
        capacity.put_seat(one)
    counts = []
    for weight in (0.0, 1.0):
        decided = route(waiting, capacity, rules=Rules(version=str(weight), scarcity=weight))
        counts.append(placed({d.session: d.outcome is Outcome.PLACE for d in decided}, "t4"))
    assert counts == [0, 10]
    spared = decided[0]
    assert spared.taken[0].target.startswith("v-")
    assert "others can do least without" in spared.message
    dearest = max(spared.ranked, key=lambda offer: offer.cost)
    assert dearest.target.startswith("t-")
    assert dearest.parts.scarcity > 0
    assert spared.taken[0].parts.money == spared.taken[0].cost, "scarcity is not paid"


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


def test_a_long_log_of_events_is_cut_and_nothing_is_missed() -> None:
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
