"""Reservations: slots that fall free are kept for who waits for them; others fill the time until then.

Conservative backfill (Mu'alem and Feitelson, 2001): a waiting session gets the agents and the time at which it is
cheapest to start, and from then on the index shows every other session only what it may hold until its own expected
end without delaying that. Sessions that end in time, or take what is over, go first; nobody is delayed by them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import inf

from atoll.offer import Demand, Offer, OfferKind, Rejection
from atoll.slots import Slots
from atoll.states import Reason
from federation.routing.bins import Row
from federation.routing.gangs import Spot, gather
from federation.routing.lens import Lens
from federation.routing.offers import agent_offer
from federation.routing.place import Trial
from federation.routing.timeline import Calendar, common
from federation.routing.words import duration

LOOKED_AT, LOOKS = {True: 2000, False: 200}, 50_000
"""Times at which slots fall free that are looked at for one session that nothing could start now (or for one that
could start: False), and in one pass. A wait further off is not found."""
FILL_S = 600.0
"""How long a session waits for slots whose time is a guess before others no longer fill the time until then."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Slots that fall free at `start` (Unix seconds), one offer a member.

    Of a `guessed` one something that runs there is past its estimate, or has none.
    """

    start: float
    offers: tuple[Offer, ...]
    guessed: bool

    @property
    def cost(self) -> int:
        """The expected total of all members."""
        return sum(offer.cost for offer in self.offers)


class Reservations:
    """What is kept for whom in one pass. The index shows the rest: call `show` before a demand looks at it."""

    def __init__(self, trial: Trial, calendar: Calendar) -> None:
        self._trial = trial
        self.calendar = calendar
        self._now = calendar.now
        self._kept: dict[str, tuple[Demand, float]] = {}
        self._loose: set[str] = set()
        self._shown_for = inf
        self._seen: dict[Lens, float] = {}
        self._looks = {True: LOOKS, False: LOOKS}
        self.count = 0

    # -- what others may use ----------------------------------------------------------------------

    def show(self, demand: Demand) -> None:
        """Let the index show of reserved agents what `demand` may hold until its expected end."""
        lasts = lasting(demand)
        if lasts != self._shown_for:
            self._shown_for = lasts
            for agent in sorted(self._loose):
                self._limit(agent, lasts)

    def take(self, offers: Sequence[Offer], demand: Demand) -> None:
        """Note agents that were given to `demand` from now on."""
        for offer in offers:
            self.calendar.take(offer.target, offer.slots, self._now + lasting(demand))
            if offer.target in self._kept:
                self._limit(offer.target, self._shown_for)

    def give_back(self, offers: Sequence[Offer]) -> None:
        """Let the index show again what a trial took and `take` was not told of."""
        for offer in offers:
            if offer.target in self._kept:
                self._loose.add(offer.target)
            self._limit(offer.target, self._shown_for)

    def keep(self, demand: Demand, offers: Sequence[Offer], start: float, *, guessed: bool = False) -> None:
        """Keep the slots of `offers` for `demand` from `start` until its expected end, where no one else has them.

        Others fill the time until then; until a `guessed` start only while `demand` has waited for less than `FILL_S`,
        for a guess recedes: after that, what falls free there stays free for it.
        """
        self.count += 1
        until = start + lasting(demand)
        fills = not guessed or self._now - demand.queued_at < FILL_S
        for offer in offers:
            line = self.calendar.of(offer.target)
            if not line.least(start, until).covers(offer.slots):
                continue
            if not fills:
                self.calendar.hold(offer.target, common(offer.slots, line.least(self._now, start)), self._now, start)
            self.calendar.hold(offer.target, offer.slots, start, until)
            self._kept.setdefault(offer.target, (demand, start))
            self._loose.add(offer.target)
            self._limit(offer.target, self._shown_for)

    def keeps(self, agent: str) -> bool:
        """Say whether slots of an agent are kept for anyone."""
        return agent in self._kept

    def release(self, agent: str, slots: Slots, start: float, until: float) -> None:
        """Note that slots fall free at `start` rather than at `until`."""
        self.calendar.free(agent, slots, start, until)
        self._seen.clear()

    def against(self, demand: Demand, lens: Lens) -> Iterator[Rejection]:
        """Yield the agents that have room for a member now, but not for as long as it is expected to run."""
        for agent in sorted(self._loose):
            whose, start = self._kept[agent]
            row = self._trial.capacity.row(agent)
            if row is None or not lens.allows(row):
                continue
            if self.calendar.of(agent).least(self._now, self._now).take(demand.request):
                first = whose.session if whose.project == demand.project else "an earlier session"
                yield Rejection(
                    site=row.seat.site,
                    group=row.seat.group,
                    target=agent,
                    reason=Reason.RESERVED,
                    message=f"has room now, but is kept for {first} in {duration(start - self._now)}",
                )

    def _limit(self, agent: str, lasts: float) -> None:
        line, now = self.calendar.of(agent), self._now
        self._trial.limit(agent, line.least(now, now + lasts))
        if agent in self._loose and line.least(now, now) == line.least(now, inf):
            self._loose.discard(agent)

    # -- when slots fall free ---------------------------------------------------------------------

    def soonest(self, demand: Demand, *, by: float = inf, below: float = inf, guess: bool = True) -> Wait | None:
        """Return the cheapest way to wait for slots of running agents, or None: prices, and the worth of the delay.

        Only starts until `by` that cost less than `below` count, and guesses only with `guess`. Of a gang the first
        time at which all members fit is taken.
        """
        lens = self._trial.lens(demand)
        if demand.start_by is not None:
            by = min(by, demand.start_by)
        if demand.nodes > 1:
            return self._gathered(demand, lens, by, below, guess)
        return self._single(demand, lens, by, below, guess)

    def _single(self, demand: Demand, lens: Lens, by: float, below: float, guess: bool) -> Wait | None:
        lasts, worth = lasting(demand), self._trial.rules.wait_value
        best: Offer | None = None
        fresh = by == below == inf and guess
        offers: dict[int, Offer] = {}
        for at, row in self._opening(lens, self._seen.get(lens, -inf) if guess else -inf, by, guess):
            delay = round((at - self._now) * worth)
            if lens.least + delay >= below:
                break
            offer = offers.get(row.bin.number) or offers.setdefault(row.bin.number, agent_offer(lens, row))
            if offer.cost + delay >= below:
                continue
            line = self.calendar.of(row.seat.agent)
            slots = line.least(at, at + lasts).take(demand.request)
            if slots is None or (not guess and at >= line.guessed_from):
                continue
            if best is None and fresh:
                self._seen[lens] = at
            best = expected(offer, row, slots, at - self._now, delay)
            below = best.cost
        if best is None:
            if fresh:
                self._seen[lens] = inf
            return None
        start = self._now + best.start_s
        return Wait(start, (best,), start >= self.calendar.of(best.target).guessed_from)

    def _gathered(self, demand: Demand, lens: Lens, by: float, below: float, guess: bool) -> Wait | None:
        lasts, worth = lasting(demand), self._trial.rules.wait_value
        capacity = self._trial.capacity
        able: dict[str, Spot] = {}
        for row in islice(capacity.fitting(lens, demand.nodes), LOOKED_AT[guess]):
            able[row.seat.agent] = (agent_offer(lens, row).cost, row)
        for at, row in self._opening(lens, -inf, by, guess):
            delay = round((at - self._now) * worth)
            if delay * demand.nodes >= below:
                break
            if row.seat.agent not in able and self._fits(row, demand, at):
                able[row.seat.agent] = (agent_offer(lens, row).cost, row)
            if len(able) < demand.nodes:
                continue
            spots = [spot for agent, spot in able.items() if agent not in self._kept or self._fits(spot[1], demand, at)]
            gang = gather(demand, spots, region=capacity.region) if len(spots) >= demand.nodes else None
            if gang is None:
                continue
            guessed = any(at >= self.calendar.of(row.seat.agent).guessed_from for row in gang.rows)
            if guessed and not guess:
                return None
            offers = []
            for row in gang.rows:
                slots = self.calendar.of(row.seat.agent).least(at, at + lasts).take(demand.request)
                offer = agent_offer(lens, row)
                offers.append(expected(offer, row, slots or offer.slots, at - self._now, delay))
            wait = Wait(at, tuple(offers), guessed)
            return wait if wait.cost < below else None
        return None

    def _fits(self, row: Row, demand: Demand, at: float) -> bool:
        free = self.calendar.of(row.seat.agent).least(at, at + lasting(demand))
        return free.take(demand.request) is not None

    def _opening(self, lens: Lens, begin: float, by: float, guess: bool) -> Iterator[tuple[float, Row]]:
        """Yield the times at which something falls free on agents that `lens` may use, in order."""
        last = max(0, self._looks[guess] - LOOKED_AT[guess])
        for at, agent in self.calendar.since(begin):
            if at > by or self._looks[guess] <= last:
                return
            self._looks[guess] -= 1
            row = self._trial.capacity.row(agent)
            if row is not None and row.seat.open and lens.allows(row):
                yield at, row


def expected(offer: Offer, row: Row, slots: Slots, start_s: float, delay: int) -> Offer:
    """Return the offer of an agent's slots once they are free."""
    return replace(
        offer,
        kind=OfferKind.WAIT,
        target=row.seat.agent,
        slots=slots,
        start_s=start_s,
        cost=offer.cost + delay,
        parts=replace(offer.parts, delay=offer.parts.delay + delay),
    )


def lasting(demand: Demand) -> float:
    """Return how long a session is expected to hold its slots: at least a second, so that it does hold them."""
    return max(demand.expected_s, 1.0)
