"""Placement: waiting sessions in, decisions out, each with its offers and the reasons against the others.

An offer's cost is `expected_cost`: price an hour x (expected + start delay) + the delay's own worth.
Free slots of a running agent are priced at their share of the machine; a launch at the whole machine.
"""

from collections.abc import Sequence
from itertools import islice

from atoll import money
from atoll.offer import Decision, Demand, Offer, Outcome, Rejection
from atoll.slots import Slots
from atoll.states import Reason
from federation.routing.bins import Launchable, Row
from federation.routing.capacity import Capacity
from federation.routing.lens import LaunchTerms, Lens
from federation.routing.miss import nearest_miss, price_miss
from federation.routing.offers import agent_offer, launch_offer, ranked, rejected

SHOWN, SHOWN_WAITING = 8, 36
"""How many alternatives and reasons a decision keeps: a placement needs fewer than a wait."""


def route(demands: Sequence[Demand], capacity: Capacity) -> list[Decision]:
    """Decide for each demand in the given order; a placement takes its slots from what the next ones see.

    `capacity` is left as it was: the caller puts the new seats once it has acted. Gangs get distinct
    agents, all members or none. Alternatives and reasons are those seen by the first demand of its kind
    in this call.
    """
    trial = _Trial(capacity)
    try:
        return [trial.decide(demand) for demand in demands]
    finally:
        trial.undo()


def rank(demand: Demand, capacity: Capacity) -> Decision:
    """Return what `route` would decide for `demand` alone, with more alternatives and reasons (a dry run)."""
    trial = _Trial(capacity, shown=SHOWN_WAITING)
    try:
        return trial.decide(demand)
    finally:
        trial.undo()


class _Trial:
    """One call's look at the index: what it took from agents and the machines it would launch, to be undone."""

    def __init__(self, capacity: Capacity, *, shown: int = SHOWN) -> None:
        self._capacity = capacity
        self._shown = shown
        self._moved: dict[str, Row] = {}
        self._room: dict[str, int] = {}
        self._machines: dict[tuple[str, str], Slots] = {}
        self._told: dict[tuple[Lens, float, int], tuple[tuple[Offer, ...], tuple[Rejection, ...]]] = {}
        self._considered = capacity.considered

    def undo(self) -> None:
        """Give back everything that was taken."""
        for row in self._moved.values():
            self._capacity.undo(row)

    def decide(self, demand: Demand) -> Decision:
        """Decide for one demand and take what it gets."""
        lens = self._capacity.lens(demand)
        if demand.nodes > 1:
            return self._decide_gang(demand, lens)
        row = self._capacity.first(lens)
        if row is None:
            launched = self._launch(demand, lens)
            return self._launched(demand, lens, [launched]) if launched else self._unplaced(demand, lens)
        offer = agent_offer(demand, lens, row)
        floor = lens.cheapest_launch
        if floor is not None and offer.cost > money.cost(floor, demand.expected_s):
            cheaper = self._launch(demand, lens, below=offer.cost)
            if cheaper:
                return self._launched(demand, lens, [cheaper])
        return self._placed(demand, lens, [(row, offer)])

    def _decide_gang(self, demand: Demand, lens: Lens) -> Decision:
        rows = list(islice(self._capacity.fitting(lens), demand.nodes))
        if len(rows) == demand.nodes:
            return self._placed(demand, lens, [(row, agent_offer(demand, lens, row)) for row in rows])
        room, machines = dict(self._room), dict(self._machines)
        launched: list[Offer] = []
        while len(rows) + len(launched) < demand.nodes:
            offer = self._launch(demand, lens, fresh=True)
            if offer is None:
                self._room, self._machines = room, machines
                return self._unplaced(demand, lens)
            launched.append(offer)
        return self._launched(demand, lens, launched)

    def _launch(self, demand: Demand, lens: Lens, *, below: int | None = None, fresh: bool = False) -> Offer | None:
        """Return the cheapest launch and count it, joining one this call wants anyway unless it must be `fresh`."""
        for terms in lens.by_cost(demand.expected_s):
            launchable = self._capacity.launchable(terms.group, terms.index)
            if launchable.blocked:
                continue
            machine = self._machines.get((terms.group, launchable.shape.key))
            joins = not fresh and machine is not None and machine.take(demand.request) is not None
            if not joins and self._room.get(terms.group, launchable.room) <= 0:
                continue
            offer = launch_offer(demand, terms, launchable, alone=not joins)
            if below is not None and offer.cost >= below:
                continue
            self._count(demand, terms, launchable, machine if joins else None)
            return offer
        return None

    def _count(self, demand: Demand, terms: LaunchTerms, launchable: Launchable, machine: Slots | None) -> None:
        if machine is None:
            machine = launchable.shape.slots
            self._room[terms.group] = self._room.get(terms.group, launchable.room) - 1
        taken = machine.take(demand.request)
        if taken is not None:
            self._machines[terms.group, launchable.shape.key] = machine - taken

    def _placed(self, demand: Demand, lens: Lens, found: list[tuple[Row, Offer]]) -> Decision:
        alternatives, reasons = self._tell(demand, lens, self._shown)
        for row, _ in found:
            self._capacity.take(row, lens)
            self._moved[row.seat.agent] = row
        taken = tuple(offer for _, offer in found)
        first = taken[0]
        where = first.target if len(taken) == 1 else f"{len(taken)} agents, the first {first.target}"
        return Decision(
            session=demand.session,
            outcome=Outcome.PLACE,
            reason=Reason.PLACED,
            message=f"cheapest capable: {where} at {first.site}, {money.text(sum(o.price for o in taken))} an hour",
            taken=taken,
            ranked=alternatives,
            rejected=reasons,
            considered=self._considered,
            on_demand_price=lens.on_demand,
        )

    def _launched(self, demand: Demand, lens: Lens, offers: list[Offer]) -> Decision:
        alternatives, reasons = self._tell(demand, lens, self._shown)
        first = offers[0]
        return Decision(
            session=demand.session,
            outcome=Outcome.LAUNCH,
            reason=Reason.WAITING_FOR_INSTANCE,
            message=(
                f"best served by {len(offers)} x {first.target} of group {first.group}, not there yet: "
                f"about {first.start_s:.0f} s to start, {money.text(first.price)} an hour"
            ),
            taken=tuple(offers),
            ranked=alternatives,
            rejected=reasons,
            considered=self._considered,
            on_demand_price=lens.on_demand,
        )

    def _unplaced(self, demand: Demand, lens: Lens) -> Decision:
        alternatives, reasons = self._tell(demand, lens, SHOWN_WAITING)
        outcome, reason, message, hint = self._why(demand, lens)
        return Decision(
            session=demand.session,
            outcome=outcome,
            reason=reason,
            message=message,
            hint=hint,
            ranked=alternatives,
            rejected=reasons,
            considered=self._considered,
            on_demand_price=lens.on_demand,
        )

    def _why(self, demand: Demand, lens: Lens) -> tuple[Outcome, Reason, str, str]:
        if not lens.order and not lens.terms:
            limit = price_miss(lens, self._capacity)
            if limit:
                return Outcome.HOLD, Reason.PRICE_LIMIT, limit, "raise max_price, or allow spot"
            message, hint = nearest_miss(lens, self._capacity)
            return Outcome.HOLD, Reason.NO_CAPABLE_SITE, message, hint
        offered = [self._capacity.launchable(terms.group, terms.index) for terms in lens.terms]
        blocked = sum(1 for launchable in offered if launchable.blocked)
        full = sorted({launchable.group for launchable in offered if not launchable.blocked})
        asks = f"{demand.nodes} x {lens.asks}" if demand.nodes > 1 else lens.asks
        if full:
            message = f"no agent has {asks} free, and {', '.join(full[:3])} may not grow enough (size.max)"
            return Outcome.WAIT, Reason.GROUP_FULL, message, "it starts when slots free up; raise size.max to grow"
        if blocked:
            message = f"no agent has {asks} free, and none of the {blocked} capable shapes can be launched now"
            return Outcome.WAIT, Reason.NO_CAPACITY_NOW, message, "launches are tried again after a pause"
        message = f"no agent has {asks} free, and no group can launch one"
        return Outcome.WAIT, Reason.NO_FREE_SLOTS, message, "it starts when slots free up"

    def _tell(self, demand: Demand, lens: Lens, shown: int) -> tuple[tuple[Offer, ...], tuple[Rejection, ...]]:
        key = (lens, demand.expected_s, shown)
        told = self._told.get(key)
        if told is None:
            told = (ranked(demand, lens, self._capacity, shown), rejected(lens, self._capacity, shown))
            self._told[key] = told
        return told
