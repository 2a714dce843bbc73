"""Homecoming: sessions that can take a checkpoint leave paid machines when owned slots are free that nobody waits for.

The dearest come home first, then the oldest: run times are heavy-tailed, so what has run for long is likely to run
for long still. A session too large for what is free at any one owned agent has room made for it, by moving
others from one owned agent to another: nobody is sent away for it. And where a session that cannot be moved is about
to start on a paid machine, one that can takes it instead and leaves its owned slots: it can come home later.

A machine is paid for until it is empty. So sessions that share paid machines come home together, or not at all.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice

from atoll import money
from atoll.offer import Demand, Offer
from atoll.plan import Move
from atoll.session import Checkpoint
from atoll.slots import Slots, total
from atoll.states import Reason
from federation.routing.bins import Row, Seat
from federation.routing.capacity import Capacity
from federation.routing.lens import Lens
from federation.routing.offers import agent_offer

SEARCHED = 256
"""Agents that are looked at for one session, at most."""
TRIED = 16
"""Kinds of sessions that room is sought for in vain in one round, at most: each looks at many owned agents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Homing:
    """How eagerly sessions are moved.

    A move has to save more than `margin` times the work it loses: what the paid machines cost, less what the owned
    slots do. Of a session that has run for a time t, it is
    expected that it runs for as long again, or as its user says, at least for `least_s` and at most for
    `horizon_s`. `defragment` lets owned sessions be moved to make room. At most `max_moves` begin in a round.
    """

    max_moves: int = 20
    margin: float = 1.0
    least_s: float = 600.0
    horizon_s: float = 6 * 3600.0
    defragment: bool = True


PLAIN_HOMING = Homing()
"""What holds where no policy says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Movable:
    """A running session that opted in to being moved, on owned or paid agents.

    `members` are pairs of agent and slots. `started_at` is when the current attempt began to run, `ran_s` how long
    earlier attempts did, `moved_at` when it was last asked to move (Unix seconds). One that is `leaving` was asked
    already: its slots are on their way to be free.
    """

    session: str
    attempt: int
    demand: Demand
    members: tuple[tuple[str, Slots], ...]
    checkpoint: Checkpoint
    started_at: float
    ran_s: float = 0.0
    moved_at: float | None = None
    leaving: bool = False

    def ripe(self, now: float) -> bool:
        """Say whether it may be moved now: not within `every` of its start or last move, never a protected one."""
        since = self.started_at if self.moved_at is None else max(self.started_at, self.moved_at)
        return not self.leaving and not self.demand.protect and now - since >= self.checkpoint.every

    def age(self, now: float) -> float:
        """Return for how long it has run in all."""
        return self.ran_s + max(0.0, now - self.started_at)

    def remaining(self, now: float, homing: Homing) -> float:
        """Return for how long it is expected to run still, as far as that is looked at."""
        age = self.age(now)
        return min(homing.horizon_s, max(homing.least_s, age, self.demand.expected_s - age))


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A move off owned slots, onto a paid machine, so that the waiting `session`, which could not move, gets them."""

    move: Move
    session: str


def homecoming(
    capacity: Capacity,
    movables: Sequence[Movable],
    *,
    waiting: Sequence[Demand] = (),
    now: float,
    homing: Homing = PLAIN_HOMING,
) -> list[Move]:
    """Return the moves to begin now, in their order; their targets have room for all of them, as things are.

    `movables` are all running sessions that opted in, `waiting` those that nothing was found or launched for: agents
    that could ever serve one of them are left to them. To be asked after routing. A move between owned agents
    (to make room) carries the saving of the session it is for, which comes home in a later round.
    """
    return _Round(capacity, movables, now, homing, waiting).home()


def exchange(
    capacity: Capacity,
    movables: Sequence[Movable],
    waiting: Sequence[Demand],
    *,
    now: float,
    homing: Homing = PLAIN_HOMING,
) -> list[Exchange]:
    """Return who makes way for whom: to be asked before routing, with those that wait in their order.

    Each of these waiting sessions would start on a free paid agent now, and stay there; it waits until the other has
    left its owned slots instead (at most that one's grace: nothing is to be launched for it meanwhile).
    """
    return _Round(capacity, movables, now, homing).exchanges(waiting)


@dataclass(frozen=True, slots=True)
class _Bundle:
    """Sessions that share paid machines with each other and nobody else; `price` is what the machines cost an hour."""

    sessions: tuple[Movable, ...]
    price: int


class _Round:
    """One look: what is free, less what this round's moves take."""

    def __init__(
        self,
        capacity: Capacity,
        movables: Sequence[Movable],
        now: float,
        homing: Homing,
        waiting: Sequence[Demand] = (),
    ) -> None:
        self._capacity = capacity
        self._movables = sorted(movables, key=lambda one: one.session)
        self._now = now
        self._homing = homing
        self._free: dict[str, Slots] = {}
        self._kept: set[str] = set()
        self._moves: list[Move] = []
        self._first = list({id(lens): lens for lens in map(capacity.lens, waiting)}.values())

    # -- home -------------------------------------------------------------------------------------

    def home(self) -> list[Move]:
        """Bring home what fits, the dearest first; make room for what does not."""
        full: set[Lens] = set()
        hopeless: set[Lens] = set()
        for bundle in sorted(self._bundles(), key=self._rank):
            kinds = {self._capacity.lens(one.demand) for one in bundle.sessions}
            # Within a round, room only ever shrinks: what did not fit for one does not for its like.
            if len(self._moves) + len(bundle.sessions) > self._homing.max_moves or kinds & hopeless:
                continue
            saving, lost = self._worth(bundle)
            if saving <= lost * self._homing.margin:
                continue
            taken = None if kinds & full else self._places(bundle.sessions)
            if taken is not None:
                saving -= self._at_home(bundle.sessions, [offer.price for offers in taken for offer in offers])
                if saving > lost * self._homing.margin:
                    self._bring(bundle, taken, saving, lost)
            elif len(bundle.sessions) == 1:
                full |= kinds
                seek = self._homing.defragment and len(hopeless) < TRIED
                if not (seek and self._make_room(bundle.sessions[0], bundle.price, saving, lost)):
                    hopeless |= kinds
        return self._moves

    def _rank(self, bundle: _Bundle) -> tuple[int, float, str]:
        oldest = max(one.age(self._now) for one in bundle.sessions)
        return -bundle.price, -oldest, bundle.sessions[0].session

    def _bundles(self) -> Iterator[_Bundle]:
        """Yield the sessions whose leaving empties the paid machines they are on."""
        there = self._there
        seen: set[str] = set()
        for one in self._movables:
            if one.session in seen or not self._is_away(one):
                continue
            sessions, agents = {one.session: one}, dict.fromkeys(agent for agent, _ in one.members)
            reached = list(agents)
            while reached:
                for other, _ in there.get(reached.pop(), ()):
                    if other.session not in sessions:
                        sessions[other.session] = other
                        new = [agent for agent, _ in other.members if agent not in agents]
                        agents.update(dict.fromkeys(new))
                        reached += new
            seen.update(sessions)
            seats = [self._capacity.seat(agent) for agent in agents]
            if all(each.ripe(self._now) and not each.demand.spread for each in sessions.values()) and all(
                seat is not None and not seat.owned and self._empties(seat) for seat in seats
            ):
                price = sum(seat.price for seat in seats if seat is not None)
                yield _Bundle(tuple(sorted(sessions.values(), key=_size)), price)

    def _empties(self, seat: Seat) -> bool:
        """Say whether nobody but movable sessions is on an agent."""
        return seat.free + total(slots for _, slots in self._there[seat.agent]) == seat.capacity

    def _is_away(self, one: Movable) -> bool:
        seat = self._capacity.seat(one.members[0][0]) if one.members else None
        return seat is not None and not seat.owned

    @cached_property
    def _there(self) -> dict[str, list[tuple[Movable, Slots]]]:
        there: dict[str, list[tuple[Movable, Slots]]] = {}
        for one in self._movables:
            for agent, slots in one.members:
                there.setdefault(agent, []).append((one, slots))
        return there

    def _worth(self, bundle: _Bundle) -> tuple[int, int]:
        """Return what the machines cost for as long as they are expected to be needed, and what the work lost does."""
        longest = max(one.remaining(self._now, self._homing) for one in bundle.sessions)
        lost = max(one.checkpoint.lost for one in bundle.sessions)
        return money.cost(bundle.price, longest), money.cost(bundle.price, lost)

    def _at_home(self, sessions: Sequence[Movable], prices: Iterable[int]) -> int:
        """Return what sessions cost on owned slots of these prices, for as long as they are expected to go on."""
        return money.cost(sum(prices), max(one.remaining(self._now, self._homing) for one in sessions))

    def _bring(self, bundle: _Bundle, taken: Sequence[tuple[Offer, ...]], saving: int, lost: int) -> None:
        hours = max(one.remaining(self._now, self._homing) for one in bundle.sessions)
        for number, (one, offers) in enumerate(zip(bundle.sessions, taken, strict=True)):
            seconds = f"{one.checkpoint.lost:g} s"
            text = (
                f"comes home: saves about {money.text(saving)} over the next {_hours(hours)}, "
                f"costs {seconds} of work ({money.text(lost)})"
            )
            if number:
                text = f"comes home with {bundle.sessions[0].session}, which shares its machine"
            self._move(one, text, offers, saving if not number else 0, lost if not number else 0)

    def _move(self, one: Movable, text: str, offers: tuple[Offer, ...], saving: int, lost: int) -> None:
        for offer in offers:
            self._free[offer.target] = self._left(offer.target) - offer.slots
        self._moves.append(
            Move(
                session=one.session,
                attempt=one.attempt,
                reason=Reason.HOMECOMING,
                message=text,
                to=offers,
                saving=saving,
                lost=lost,
            )
        )

    # -- places -----------------------------------------------------------------------------------

    def _left(self, agent: str) -> Slots:
        found = self._free.get(agent)
        if found is None:
            seat = self._capacity.seat(agent)
            found = self._free[agent] = seat.free if seat else Slots()
        return found

    def _places(self, sessions: Iterable[Movable]) -> list[tuple[Offer, ...]] | None:
        """Return owned slots for all members of all of `sessions`, or None."""
        before, taken = dict(self._free), []
        for one in sessions:
            offers = self._owned_for(one.demand)
            if offers is None:
                self._free = before
                return None
            taken.append(offers)
            for offer in offers:
                self._free[offer.target] = self._left(offer.target) - offer.slots
        self._free = before
        return taken

    def _owned_for(self, demand: Demand, shut: Iterable[str] = ()) -> tuple[Offer, ...] | None:
        """Return the tightest fits on owned agents, one a member on distinct agents, at one site where possible."""
        lens = self._capacity.lens(demand)
        found = sorted(
            (_tightness(left), row.seat.agent, row, slots)
            for row in islice(self._open(lens), SEARCHED)
            if row.seat.agent not in shut
            and (slots := (left := self._left(row.seat.agent)).take(demand.request)) is not None
        )
        by_site: dict[str, list[Offer]] = {}
        for _, _, row, slots in found:
            offer = agent_offer(lens, row)
            by_site.setdefault(row.seat.site, []).append(_with_slots(offer, slots))
        for offers in by_site.values():
            if len(offers) >= demand.nodes:
                return tuple(offers[: demand.nodes])
        if demand.together or len(found) < demand.nodes:
            return None
        return tuple(offer for offers in by_site.values() for offer in offers)[: demand.nodes]

    def _open(self, lens: Lens) -> Iterator[Row]:
        for row in self._capacity.fitting(lens):
            if row.seat.owned and not self._is_kept(row):
                yield row

    def _is_kept(self, row: Row) -> bool:
        return row.seat.agent in self._kept or any(lens.allows(row) for lens in self._first)

    # -- room -------------------------------------------------------------------------------------

    def _make_room(self, one: Movable, price: int, saving: int, lost: int) -> bool:
        """Move owned sessions among owned agents, so that `one` will have agents with room; say whether it will."""
        demand, lens = one.demand, self._capacity.lens(one.demand)
        if not self._is_enough(demand):
            return False
        rooms: list[tuple[int, str, tuple[Movable, ...]]] = []
        coming = []
        for agent, there in self._there.items():
            row = self._capacity.row(agent)
            if row is None or not row.seat.owned or not row.seat.open or not lens.allows(row) or self._is_kept(row):
                continue
            leaving = total(slots for other, slots in there if other.leaving)
            if (self._left(agent) + leaving).take(demand.request) is not None:
                coming.append(agent)
            elif (victims := self._victims(demand, agent)) is not None:
                rooms.append((self._cost(victims, one, price), agent, victims))
        free = [row.seat.agent for row in islice(self._open(lens), SEARCHED)]
        ready = list(dict.fromkeys([*coming, *(a for a in free if self._left(a).take(demand.request) is not None)]))
        rooms.sort(key=lambda room: room[:2])
        missing = demand.nodes - len(ready)
        if missing > len(rooms):
            return False
        targets = [*ready[: demand.nodes], *(agent for _, agent, _ in rooms[: max(0, missing)])]
        homes = [row for target in targets if (row := self._capacity.row(target))]
        saving -= self._at_home([one], [agent_offer(lens, row).price for row in homes])
        if saving <= lost * self._homing.margin:
            return False
        if missing > 0 and not self._evacuate(one, rooms[:missing], targets, saving, lost):
            return False
        self._kept.update(targets)
        return True

    @cached_property
    def _spare(self) -> list[str]:
        """The owned agents that had anything free when the round began."""
        return [seat.agent for seat in self._capacity.seats() if seat.owned and seat.open and seat.free.cpu > 0]

    def _is_enough(self, demand: Demand) -> bool:
        """Say whether all that owned agents have free would be enough, slots of leaving sessions included."""
        left = [self._left(agent) for agent in self._spare]
        left += [slots for one in self._movables if one.leaving for _, slots in one.members]
        free, asks = [_tightness(each) for each in left], demand.request
        needs = (asks.gpu.milli * demand.nodes, asks.cpu * demand.nodes, asks.memory * demand.nodes)
        return (
            all(sum(kind) >= need for kind, need in zip(zip(*free, strict=True), needs, strict=True)) if free else False
        )

    def _victims(self, demand: Demand, agent: str) -> tuple[Movable, ...] | None:
        """Return sessions of one agent that would make room for a member by going, the fewest slots that do."""
        ripe = sorted(
            (pair for pair in self._there[agent] if pair[0].ripe(self._now) and len(pair[0].members) == 1),
            key=lambda pair: (_tightness(pair[1]), -pair[0].age(self._now), pair[0].session),
        )
        ways = [_enough(demand, self._left(agent), order) for order in (ripe, ripe[::-1])]
        found = [way for way in ways if way is not None]
        if not found:
            return None
        return tuple(victim for victim, _ in min(found, key=lambda way: _tightness(total(each for _, each in way))))

    def _cost(self, victims: Iterable[Movable], one: Movable, price: int) -> int:
        """Return the work that making room loses, at what the session it is made for pays."""
        return sum(
            money.cost(round(other.members[0][1].share_of(one.members[0][1]) * price), other.checkpoint.lost)
            for other in victims
        )

    def _evacuate(
        self,
        one: Movable,
        rooms: Sequence[tuple[int, str, tuple[Movable, ...]]],
        targets: Sequence[str],
        saving: int,
        lost: int,
    ) -> bool:
        victims = [victim for _, _, few in rooms for victim in few]
        lost += sum(cost for cost, _, _ in rooms)
        if saving <= lost * self._homing.margin or len(self._moves) + len(victims) > self._homing.max_moves:
            return False
        before, going = dict(self._free), []
        for victim in sorted(victims, key=_size):
            offers = self._owned_for(victim.demand, shut=targets)
            if offers is None:
                self._free = before
                return False
            self._free[offers[0].target] = self._left(offers[0].target) - offers[0].slots
            going.append((victim, offers))
        self._free = before
        for victim, offers in going:
            text = (
                f"makes room for {one.session}, which saves about {money.text(saving)} by coming home; "
                f"all its moves cost {money.text(lost)} of work"
            )
            self._move(victim, text, offers, saving, lost)
        return True

    # -- exchanges --------------------------------------------------------------------------------

    def exchanges(self, waiting: Sequence[Demand]) -> list[Exchange]:
        """Let who can move make way for who cannot."""
        found: list[Exchange] = []
        gone: set[str] = set()
        for demand in waiting:
            if demand.nodes != 1 or self._take_owned(demand):
                continue
            lens = self._capacity.lens(demand)
            paid = next((row for row in self._capacity.fitting(lens) if self._has_room(row, demand)), None)
            if paid is None:
                continue
            made = None
            if not demand.checkpoint and len(found) < self._homing.max_moves:
                made = self._way_for(demand, lens, paid, gone)
            if made is None:
                self._take(paid.seat.agent, demand)
            else:
                found.append(made)
                gone.add(made.move.session)
        return found

    def _take_owned(self, demand: Demand) -> bool:
        offers = self._owned_for(demand)
        if offers is not None:
            self._take(offers[0].target, demand)
        return offers is not None

    def _take(self, agent: str, demand: Demand) -> None:
        taken = self._left(agent).take(demand.request)
        if taken is not None:
            self._free[agent] = self._left(agent) - taken

    def _has_room(self, row: Row, demand: Demand) -> bool:
        return not row.seat.owned and self._left(row.seat.agent).take(demand.request) is not None

    def _way_for(self, demand: Demand, lens: Lens, paid: Row, gone: set[str]) -> Exchange | None:
        """Return the exchange by which `demand` gets owned slots and who has them goes to `paid`."""
        able = [
            one
            for one in self._movables
            if one.session not in gone
            and len(one.members) == 1
            and one.ripe(self._now)
            and not self._is_away(one)
            and self._left(paid.seat.agent).take(one.demand.request) is not None
        ]  # fmt: skip
        for one in sorted(able, key=lambda one: (*_size(one)[:1], -one.age(self._now), one.session)):
            (agent, slots), theirs = one.members[0], self._capacity.lens(one.demand)
            row = self._capacity.row(agent)
            if row is None or not row.seat.open or not lens.allows(row) or not theirs.allows(paid):
                continue
            room = self._left(agent) + slots
            taken = room.take(demand.request)
            offer = agent_offer(theirs, paid)
            saving = money.cost(offer.price, min(self._homing.horizon_s, max(self._homing.least_s, demand.expected_s)))
            lost = money.cost(offer.price, one.checkpoint.lost)
            if taken is None or saving <= lost * self._homing.margin:
                continue
            self._free[agent] = room - taken
            text = (
                f"makes way for {demand.session}, which cannot be moved: either of them is on a paid machine now, and "
                f"this one can come home, which saves about {money.text(saving)} "
                f"and costs {one.checkpoint.lost:g} s of work ({money.text(lost)})"
            )
            before = len(self._moves)
            self._move(one, text, (offer,), saving, lost)
            return Exchange(move=self._moves[before], session=demand.session)
        return None


def _enough(demand: Demand, free: Slots, able: Sequence[tuple[Movable, Slots]]) -> list[tuple[Movable, Slots]] | None:
    """Return enough of `able`, from the front, without those that turn out not to be needed; None where all are not."""
    going = []
    for pair in able:
        going.append(pair)
        free += pair[1]
        if free.take(demand.request) is not None:
            break
    else:
        return None
    for pair in going.copy():
        if (free - pair[1]).take(demand.request) is not None:
            going.remove(pair)
            free -= pair[1]
    return going


def _tightness(free: Slots) -> tuple[int, int, int]:
    return free.gpu_milli, free.cpu, free.memory


def _size(one: Movable) -> tuple[tuple[int, int, int], str]:
    """Sort the largest first."""
    gpu, cpu, memory = _tightness(total(slots for _, slots in one.members))
    return (-gpu, -cpu, -memory), one.session


def _with_slots(offer: Offer, slots: Slots) -> Offer:
    return offer if offer.slots == slots else replace(offer, slots=slots)


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"
