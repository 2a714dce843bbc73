"""Placement: waiting sessions in, decisions out, each with its offers and the reasons against the others.

What an offer costs is written in `cost`; free slots of a running agent are priced at their share of the machine, a
launch at the whole machine until others join. What is contended has a price on top (`scarcity`), which nobody pays.
"""

from collections.abc import Collection, Iterator, Sequence
from math import inf

from atoll import money
from atoll.offer import DEARER, Decision, Demand, Offer, OfferKind, Outcome
from atoll.slots import Slots
from atoll.states import Reason
from federation.routing.bins import Launchable, Row
from federation.routing.capacity import Capacity
from federation.routing.gangs import gather
from federation.routing.lens import Dear, LaunchTerms, Lens
from federation.routing.miss import limit_miss, nearest_miss, outside_hours
from federation.routing.offers import Place, Told, agent_offer, beside_room, launch_offer, tell, with_scarcity
from federation.routing.rules import PLAIN, Rules
from federation.routing.scarcity import Scarcity
from federation.routing.standby import Standbys, beside, launch_text

SHOWN, SHOWN_WAITING = 4, 36
"""How many alternatives and reasons a decision keeps: a placement needs fewer than a wait."""


def route(demands: Sequence[Demand], capacity: Capacity, *, now: float = 0.0, rules: Rules = PLAIN) -> list[Decision]:
    """Decide for each demand in the given order; a placement takes its slots from what the next ones see.

    `capacity` is left as it was: the caller puts the new seats once it has acted. Gangs get distinct
    agents, all members or none. Alternatives and reasons are those seen by the first demand of its kind
    in this call.
    """
    trial = Trial(capacity, demands, now=now, rules=rules)
    try:
        return [trial.decide(demand) for demand in demands]
    finally:
        trial.undo()


def rank(demand: Demand, capacity: Capacity, *, now: float = 0.0, rules: Rules = PLAIN) -> Decision:
    """Return what `route` would decide for `demand` alone, with more alternatives and reasons (a dry run)."""
    trial = Trial(capacity, (demand,), now=now, rules=rules, shown=SHOWN_WAITING)
    try:
        return trial.decide(demand)
    finally:
        trial.undo()


SPARES = ", leaving what others can do least without"

Mark = tuple[dict[str, int], dict[tuple[str, str], Slots]]
"""Launches counted so far: what room groups have left, and what is free on machines that would be made or joined."""


class Trial:
    """One look at the index that takes what it decides, so that the next demand sees the rest; `undo` gives it back.

    `decide` is the whole of it for a plain list order. A queue with reservations and preemption builds on the
    parts: `lens` (how a demand sees the index), `limit` (show less or more of an agent as free), `mark` and `back`
    (take back the launches counted since), `joined` (the agents that launches of the last decision complete to a
    gang). Between the first call and `undo` nobody else may change the index.
    """

    def __init__(
        self,
        capacity: Capacity,
        demands: Sequence[Demand] = (),
        *,
        now: float = 0.0,
        rules: Rules = PLAIN,
        shown: int = SHOWN,
    ) -> None:
        """Look at `capacity` for `demands` (all that wait, for the scarcity price) at Unix time `now`."""
        capacity.use(rules)
        self.capacity = capacity
        self.rules = rules
        self.now = now
        self._shown = shown
        self._room: dict[str, int] = {}
        self._machines: dict[tuple[str, str], Slots] = {}
        self._standbys = Standbys(capacity.standbys, self._room, self._machines) if capacity.standbys else None
        self._told: dict[tuple[Lens, int], Told] = {}
        self._reasons: dict[tuple[Lens, int], tuple[Outcome, Reason, str, str]] = {}
        self._considered = capacity.considered
        self._demand: Demand | None = None
        self._lens: Lens | None = None
        self.joined: tuple[Row, ...] = ()
        self.scarcity = Scarcity(capacity, demands, rules)

    # -- parts ------------------------------------------------------------------------------------

    def undo(self) -> None:
        """Give back everything that was taken, and take what was given."""
        self.capacity.undo()

    def lens(self, demand: Demand) -> Lens:
        """Return the view of the index that demands like this one share, under the trial's rules."""
        if demand is self._demand and self._lens:
            return self.capacity.renew(self._lens)
        self._demand, self._lens = demand, self.capacity.lens(demand)
        return self._lens

    def limit(self, agent: str, free: Slots) -> None:
        """Show so much of an open agent as free from now on, whatever was taken; an unknown agent is no error."""
        row = self.capacity.row(agent)
        if row is not None and row.seat.open:
            self.capacity.limit(row, free)

    def mark(self) -> Mark:
        """Return what `back` needs to take back the launches that are counted from now on."""
        return dict(self._room), dict(self._machines)

    def back(self, mark: Mark) -> None:
        """Take back the launches that were counted since `mark`; what was taken from agents stays taken."""
        self._room.clear()
        self._room.update(mark[0])
        self._machines.clear()
        self._machines.update(mark[1])
        if self._standbys:
            self._standbys.renew()

    # -- a decision -------------------------------------------------------------------------------

    def decide(self, demand: Demand) -> Decision:
        """Decide for one demand and take what it gets."""
        self.joined = ()
        lens = self.lens(demand)
        if demand.nodes > 1:
            return self._decide_gang(demand, lens)
        dear = self.scarcity.seen_by(lens)
        found = lens.find(dear)
        if found is None:
            launched = self._launch(demand, lens)
            return self._launched(demand, lens, [launched]) if launched else self._unplaced(demand, lens)
        row, head, extra = found
        offer = agent_offer(lens, row, head, extra)
        if self._standbys or (lens.terms and lens.floor(joining=bool(self._machines)) < offer.cost):
            cheaper = self._launch(demand, lens, below=offer.cost)
            if cheaper:
                return self._launched(demand, lens, [cheaper])
        steered = extra > 0 or head is not lens.heads[0]
        return self._placed(demand, lens, [Place(row, head, offer)], dear if steered else None)

    def _decide_gang(self, demand: Demand, lens: Lens) -> Decision:
        dear = self.scarcity.seen_by(lens)
        spots = {place.row.seat.agent: place for place in self._spots(demand, lens, dear)}
        gang = gather(
            demand,
            [(place.offer.cost, place.row) for place in spots.values()],
            region=self.capacity.region,
            launch=lambda sites, count: self._launches(demand, lens, count, sites),
            launch_sites={
                *(self.capacity.launchable(terms.group, terms.index).site for terms in lens.terms),
                *(standby.site for standby in self.capacity.standbys),
            },
        )
        if gang is None:
            return self._unplaced(demand, lens)
        if not gang.launches:
            return self._placed(demand, lens, [spots[row.seat.agent] for row in gang.rows], dear)
        self._launches(demand, lens, len(gang.launches), {offer.site for offer in gang.launches}, count=True)
        self.joined = gang.rows
        return self._launched(demand, lens, gang.launches)

    def _spots(self, demand: Demand, lens: Lens, dear: Dear | None) -> Iterator[Place]:
        """Yield agents with room for a member, cheapest first, until others are too dear for any gang."""
        best, most = 0, inf
        for count, (row, head, extra) in enumerate(lens.fitting(demand.nodes, dear), 1):
            offer = agent_offer(lens, row, head, extra)
            if offer.cost > most:
                return
            yield Place(row, head, offer)
            best += offer.cost if count <= demand.nodes else 0
            if count == demand.nodes and not (demand.together or demand.spread):
                most = best * (1 + DEARER)

    def _launches(
        self, demand: Demand, lens: Lens, members: int, sites: Collection[str] | None, *, count: bool = False
    ) -> tuple[Offer, ...] | None:
        """Return what a machine for each member at these sites (None: any) would be, or None; `count` them or not."""
        mark = self.mark()
        offers: list[Offer] = []
        while len(offers) < members:
            taken = {offer.target for offer in offers}
            offer = self._launch(demand, lens, fresh=True, sites=sites, taken=taken)
            if offer is None:
                break
            offers.append(offer)
        if not count:
            self.back(mark)
        return tuple(offers) if len(offers) == members else None

    def _placed(self, demand: Demand, lens: Lens, found: Sequence[Place], dear: Dear | None) -> Decision:
        told = self._tell(lens, self._shown, None if dear or len(found) > 1 else found[0])
        alternatives = with_scarcity(told, lens, dear) if dear else told.ranked
        for place in found:
            self.capacity.take(place.row, lens)
        self.scarcity.decided(demand, lens)
        taken = tuple([place.offer for place in found])
        first = taken[0]
        if not dear and (not alternatives or alternatives[0].cost > first.cost):
            alternatives = (first, *alternatives[: self._shown - 1])
        if len(taken) == 1:
            where, price = first.target, first.price
        else:
            where = f"{len(taken)} agents, the first {first.target}"
            price = sum(offer.price for offer in taken)
        spares = SPARES if alternatives and alternatives[-1].parts.scarcity > first.parts.scarcity else ""
        return Decision(
            session=demand.session,
            outcome=Outcome.PLACE,
            reason=Reason.PLACED,
            message=f"cheapest capable: {where} at {first.site}, {money.text(price)} an hour{spares}",
            taken=taken,
            ranked=alternatives,
            rejected=told.rejected,
            considered=self._considered,
            on_demand_price=lens.on_demand,
        )

    def _launched(self, demand: Demand, lens: Lens, offers: Sequence[Offer]) -> Decision:
        told = self._tell(lens, self._shown)
        self.scarcity.decided(demand, lens)
        return Decision(
            session=demand.session,
            outcome=Outcome.LAUNCH,
            reason=Reason.WAITING_FOR_INSTANCE,
            message=launch_text(offers),
            taken=tuple(offers),
            ranked=beside(told.ranked, offers[0]),
            rejected=told.rejected,
            considered=self._considered,
            on_demand_price=lens.on_demand,
        )

    def _unplaced(self, demand: Demand, lens: Lens) -> Decision:
        told = self._tell(lens, SHOWN_WAITING)
        rejected, room = told.rejected, SHOWN_WAITING - len(told.rejected)
        if room and self._standbys:
            rejected += tuple(self._standbys.against(lens, room))
        if room and demand.nodes > 1:
            rejected = beside_room(lens, rejected, SHOWN_WAITING)
        self.scarcity.decided(demand, lens)
        key = (lens, demand.nodes)
        if key not in self._reasons:
            self._reasons[key] = self._why(demand, lens)
        outcome, reason, message, hint = self._reasons[key]
        return Decision(
            session=demand.session,
            outcome=outcome,
            reason=reason,
            message=message,
            hint=hint,
            ranked=tuple([offer for offer in told.ranked if offer.kind is OfferKind.AGENT]),
            rejected=rejected,
            considered=self._considered,
            on_demand_price=lens.on_demand,
        )

    # -- launches ---------------------------------------------------------------------------------

    def _launch(
        self,
        demand: Demand,
        lens: Lens,
        *,
        below: int | None = None,
        fresh: bool = False,
        sites: Collection[str] | None = None,
        taken: Collection[str] = (),
    ) -> Offer | None:
        """Return the cheapest launch and count it, joining one this call wants anyway unless it must be `fresh`.

        Machines on their way (but those `taken`) come before that, and a stopped one where it costs no more.
        """
        stopped = None
        if self._standbys:
            if joined := self._standbys.join(demand, lens, below, sites, taken):
                return joined
            stopped = self._standbys.stopped(lens, below, sites)
        for terms in lens.terms:
            launchable = self.capacity.launchable(terms.group, terms.index)
            if launchable.blocked or (sites is not None and launchable.site not in sites):
                continue
            machine = self._machines.get((terms.group, launchable.shape.key))
            joins = not fresh and machine is not None and machine.take(demand.request) is not None
            if not joins and self._room.get(terms.group, launchable.room) <= 0:
                continue
            cost = (terms.joined if joins else terms.alone).total
            if below is not None and cost >= below:
                continue
            if stopped is not None and stopped.terms.joined.total <= terms.alone.total:
                break
            self._count(demand, terms, launchable, machine if joins else None)
            return launch_offer(terms, launchable, alone=not joins)
        return self._standbys.start(stopped) if stopped and self._standbys else None

    def _count(self, demand: Demand, terms: LaunchTerms, launchable: Launchable, machine: Slots | None) -> None:
        if machine is None:
            machine = launchable.shape.slots
            self._room[terms.group] = self._room.get(terms.group, launchable.room) - 1
        taken = machine.take(demand.request)
        if taken is not None:
            self._machines[terms.group, launchable.shape.key] = machine - taken

    # -- words ------------------------------------------------------------------------------------

    def _why(self, demand: Demand, lens: Lens) -> tuple[Outcome, Reason, str, str]:
        if not (lens.ladders or lens.terms or (self._standbys and self._standbys.able(lens))):
            reason, message, hint = limit_miss(lens, self.capacity) or (
                Reason.NO_CAPABLE_SITE,
                *nearest_miss(lens, self.capacity),
            )
            return Outcome.HOLD, reason, message, hint
        offered = [self.capacity.launchable(terms.group, terms.index) for terms in lens.terms]
        blocked = sum(1 for launchable in offered if launchable.blocked)
        full = sorted({launchable.group for launchable in offered if not launchable.blocked})
        asks = f"{demand.nodes} x {lens.asks}" if demand.nodes > 1 else lens.asks
        if full:
            message = f"no agent has {asks} free, and {', '.join(full[:3])} may not grow enough (size.max)"
            return Outcome.WAIT, Reason.GROUP_FULL, message, "it starts when slots free up; raise size.max to grow"
        if blocked:
            message = f"no agent has {asks} free, and none of the {blocked} capable shapes can be launched now"
            return Outcome.WAIT, Reason.NO_CAPACITY_NOW, message, "launches are tried again after a pause"
        if shut := outside_hours(lens, self.now):
            return Outcome.WAIT, Reason.OUTSIDE_HOURS, *shut
        message = f"no agent has {asks} free, and no group can launch one"
        return Outcome.WAIT, Reason.NO_FREE_SLOTS, message, "it starts when slots free up"

    def _tell(self, lens: Lens, shown: int, first: Place | None = None) -> Told:
        key = (lens, shown)
        told = self._told.get(key)
        if told is None:
            before = lens.told.get(shown) if self._shown <= SHOWN else None
            lens.told[shown] = told = tell(lens, self.capacity, shown, before, first)
            if self._standbys:
                told = self._standbys.told(told, lens, shown)
            self._told[key] = told
        return told
