"""The queue pass: every waiting session is looked at in turn, and told what it gets, or waits for, and why.

A session gets what is cheapest by expected total cost: free slots now, a launch, or slots of running sessions that
are expected to end (for which it then has a reservation, and others only fill the time until then). One of higher
priority that would wait takes the slots of preemptible sessions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice

from atoll import money, slots
from atoll.offer import Decision, Demand, Offer, Outcome, Rejection
from atoll.slots import Gpu, Slots
from atoll.states import Reason
from federation.routing.capacity import Capacity
from federation.routing.lens import Lens
from federation.routing.offers import agent_offer
from federation.routing.place import SHOWN_WAITING, Mark, Trial
from federation.routing.preempt import Room, There, by_agent, choose, make_room, may_preempt, victims_of
from federation.routing.queue import Ledger, in_turn, whole_of
from federation.routing.reserve import LOOKED_AT, Reservations, Wait, expected, lasting
from federation.routing.rules import PLAIN, Rules
from federation.routing.timeline import Calendar, Running
from federation.routing.words import duration, enough

RESERVED = 64
"""How many sessions have slots kept for them in one pass; those behind them fill what is over."""
NOTICE_S = 60.0
"""How long a preempted session is expected to take to go away: a wait as short as this preempts nobody."""
VICTIMS_AT = 500
"""Agents with preemptible sessions that are looked at for one session."""


def schedule(
    demands: Sequence[Demand],
    capacity: Capacity,
    *,
    now: float,
    rules: Rules = PLAIN,
    running: Sequence[Running] = (),
) -> list[Decision]:
    """Decide for every demand, and return the decisions in the order of `demands`.

    `running` are all sessions that hold slots of the agents in `capacity`, which is left as it was. Sessions are
    looked at by priority, then deadline, fair share and queue time (`queue.in_turn`), so equal input in any order is
    decided equally. Preempted sessions are still running: the caller sees that they go, and names them `leaving`
    from then on.
    """
    ledger = _ledger(demands, capacity, rules, running)
    trial = Trial(capacity, demands, now=now, rules=rules)
    turn = _Turn(trial, ledger, running)
    decided: dict[int, Decision] = {}
    try:
        for number in in_turn(demands, ledger, now):
            decided[number] = turn.decide(demands[number])
    finally:
        trial.undo()
    return [decided[number] for number in range(len(demands))]


def _ledger(demands: Sequence[Demand], capacity: Capacity, rules: Rules, running: Sequence[Running]) -> Ledger:
    """Return what each project holds that has sessions waiting, where more than one has."""
    waiting = {demand.project for demand in demands}
    if len(waiting) < 2:
        return Ledger(Slots(), rules.shares)
    machines = ((home.make.capacity, len(home.rows)) for home in capacity.bins())
    wanted = (Slots(d.request.cpu, d.request.memory, 0, (Gpu("", d.request.gpu.milli),)) for d in demands)
    ledger = Ledger(whole_of(machines, wanted), rules.shares)
    for one in running:
        if one.project in waiting:
            for _, amount in one.members:
                ledger.add(one.project, amount)
    return ledger


class _Turn:
    """One pass over the queue: the trial, and reservations once there is anything to wait for."""

    def __init__(self, trial: Trial, ledger: Ledger, running: Sequence[Running]) -> None:
        self._trial = trial
        self._ledger = ledger
        self._running = running
        self._now = trial.now
        self._given: list[tuple[Demand, tuple[Offer, ...]]] = []
        self._book: Reservations | None = None
        self._victims: Mapping[str, There] = {}
        self._tried: dict[tuple[Lens, int], tuple[float, float]] = {}

    def decide(self, demand: Demand) -> Decision:
        """Decide for the next demand."""
        if self._book:
            self._book.show(demand)
        mark = self._trial.mark()
        decision = self._trial.decide(demand)
        if decision.outcome is Outcome.HOLD:
            return decision
        if decision.outcome is Outcome.WAIT:
            return self._wait(demand, decision)
        if self._running and (wait := self._cheaper(demand, decision)):
            hint = _sooner(decision, wait)
            self._take_back(decision, mark)
            return self._keep(demand, decision, wait, hint)
        self._ledger.add(demand.project, decision.taken[0].slots, demand.nodes)
        if decision.outcome is Outcome.PLACE:
            self._note(demand, decision.taken)
        elif self._trial.joined:
            start = self._now + max(offer.start_s for offer in decision.taken)
            lens = self._trial.lens(demand)
            self._reservations().keep(demand, [agent_offer(lens, row) for row in self._trial.joined], start)
        return decision

    def _reservations(self) -> Reservations:
        if self._book is None:
            self._book = Reservations(self._trial, Calendar(self._trial.capacity, self._running, self._now))
            for demand, offers in self._given:
                self._book.take(offers, demand)
            self._victims = by_agent(self._running, self._now, self._now + NOTICE_S)
        return self._book

    def _note(self, demand: Demand, offers: tuple[Offer, ...]) -> None:
        if self._book:
            self._book.take(offers, demand)
        else:
            self._given.append((demand, offers))

    def _take_back(self, decision: Decision, mark: Mark) -> None:
        self._trial.back(mark)
        if decision.outcome is Outcome.PLACE:
            self._reservations().give_back(decision.taken)

    # -- waiting ----------------------------------------------------------------------------------

    def _cheaper(self, demand: Demand, decision: Decision) -> Wait | None:
        """Return a short, sure wait that costs less than what the session could have now."""
        by = demand.queued_at + self._trial.rules.patience_s
        if demand.due_at is not None:
            by = min(by, demand.due_at - lasting(demand))
        if by <= self._now:
            return None
        lens = self._trial.lens(demand)
        below = sum(offer.cost - offer.parts.scarcity for offer in decision.taken)
        below += sum(agent_offer(lens, row).cost for row in self._trial.joined)
        if below <= lens.least * demand.nodes:
            return None
        kind = (lens, demand.nodes)
        tried = self._tried.get(kind)
        if tried and by <= tried[0] and below <= tried[1]:
            return None
        wait = self._reservations().soonest(demand, by=by, below=below, guess=False)
        if wait is None:
            self._tried[kind] = (by, below)
        return wait

    def _wait(self, demand: Demand, decision: Decision) -> Decision:
        """Keep slots for a session that nothing can start now, or make room for it, and say when it is to start."""
        book = self._reservations()
        rejected, hint = self._kept_from(demand, decision), self._or_pay(demand, decision)
        if rejected is not decision.rejected or hint is not decision.hint:
            decision = replace(decision, rejected=rejected, hint=hint)
        if book.count >= RESERVED:
            return decision
        wait = book.soonest(demand)
        if rooms := self._rooms(demand, wait):
            return self._preempt(demand, decision, rooms)
        return self._keep(demand, decision, wait, decision.hint) if wait else decision

    def _keep(self, demand: Demand, decision: Decision, wait: Wait, hint: str) -> Decision:
        self._reservations().keep(demand, wait.offers, wait.start, guessed=wait.guessed)
        self._ledger.add(demand.project, wait.offers[0].slots, demand.nodes)
        return replace(
            decision,
            outcome=Outcome.WAIT,
            reason=Reason.SLOTS_EXPECTED,
            message=_expectation(demand, wait, self._now),
            hint=hint,
            taken=(),
            ranked=_with(decision.ranked, wait.offers),
        )

    def _kept_from(self, demand: Demand, decision: Decision) -> tuple[Rejection, ...]:
        """Return the reasons against the others, those against reserved agents first."""
        kept = tuple(self._reservations().against(demand, self._trial.lens(demand)))
        if not kept:
            return decision.rejected
        agents = {no.target for no in kept}
        return (*kept, *(no for no in decision.rejected if no.target not in agents))[:SHOWN_WAITING]

    def _or_pay(self, demand: Demand, decision: Decision) -> str:
        """Return the hint: at which price a session that limits it could start."""
        if demand.max_price is None or demand.nodes > 1:
            return decision.hint
        capacity, lens = self._trial.capacity, self._trial.lens(replace(demand, max_price=None))
        if row := capacity.first(lens):
            return f"raise max_price to {enough(agent_offer(lens, row).price)} to start at once"
        for terms in lens.terms:
            made = capacity.launchable(terms.group, terms.index)
            if not made.blocked and made.room > 0:
                return f"raise max_price to {enough(terms.price)} to have {made.shape.key} launched for it"
        return decision.hint

    # -- preemption -------------------------------------------------------------------------------

    def _rooms(self, demand: Demand, wait: Wait | None) -> tuple[Room, ...]:
        """Return agents that lower priorities can make room on, unless the session is to start soon anyway."""
        book, soon = self._reservations(), self._now + NOTICE_S
        if wait and wait.start <= max(soon, book.calendar.leaving_until):
            return ()
        if not any(may_preempt(demand, one) for there in self._victims.values() for one, _ in there):
            return ()
        lens, capacity = self._trial.lens(demand), self._trial.capacity
        able = {row.seat.agent: row for row in islice(capacity.fitting(lens, demand.nodes), LOOKED_AT[True])}
        for agent in islice(self._victims, VICTIMS_AT):
            row = capacity.row(agent)
            if row is not None and row.seat.open and lens.allows(row):
                able[agent] = row
        rooms = []
        for agent, row in sorted(able.items()):
            if book.keeps(agent):
                continue
            free = book.calendar.of(agent).least(soon, soon + lasting(demand))
            rooms.append(make_room(demand, agent, row.seat.site, free, self._victims.get(agent, ()), self._now))
        return choose(demand, (room for room in rooms if room), self._now) or ()

    def _preempt(self, demand: Demand, decision: Decision, rooms: Sequence[Room]) -> Decision:
        """Keep the rooms for the session, as free once the victims have gone; no one is a victim twice."""
        book, soon, lens = self._reservations(), self._now + NOTICE_S, self._trial.lens(demand)
        going = victims_of(rooms)
        gone = {victim.session for victim in going}
        for victim in going:
            end, _ = victim.end(self._now)
            for agent, amount in victim.members:
                book.release(agent, amount, soon, end)
        self._victims = {
            agent: kept
            for agent, there in self._victims.items()
            if (kept := [pair for pair in there if pair[0].session not in gone])
        }
        offers, delay = [], round(NOTICE_S * self._trial.rules.wait_value)
        for room in rooms:
            row = self._trial.capacity.row(room.agent)
            if row is not None:
                offers.append(expected(agent_offer(lens, row), row, room.slots, NOTICE_S, delay))
        book.keep(demand, offers, soon)
        self._ledger.add(demand.project, rooms[0].slots, demand.nodes)
        where = ", ".join(room.agent for room in rooms[:3])
        return replace(
            decision,
            reason=Reason.PREEMPTS,
            message=f"{len(going)} preemptible sessions of lower priority make room for it on {where}",
            hint=f"it starts when they have gone, in about {duration(NOTICE_S)}",
            ranked=_with(decision.ranked, offers),
            preempts=tuple(sorted(gone)),
        )


def _expectation(demand: Demand, wait: Wait, now: float) -> str:
    first, soon = wait.offers[0], duration(wait.start - now)
    sites = sorted({offer.site for offer in wait.offers})
    if demand.nodes > 1:
        text = f"room for its {demand.nodes} members at {', '.join(sites)} is expected in about {soon}"
    else:
        text = f"{slots.text(first.slots)} free in about {soon} on agent {first.target} at {first.site}"
    text += ", and kept for it"
    if wait.guessed:
        text += "; a guess: what runs there now is past its estimate or has none"
    if demand.due_at is not None and wait.start + lasting(demand) > demand.due_at:
        text += "; too late for its deadline"
    return text


def _sooner(decision: Decision, wait: Wait) -> str:
    """Return the hint of a session that waits although it could start: what that would cost."""
    first = decision.taken[0]
    more = money.text(sum(offer.cost for offer in decision.taken) - wait.cost)
    how = f"in {duration(first.start_s)}" if first.start_s else "at once"
    return f"{first.target} could start it {how}, for an expected {more} more"


def _with(ranked: Sequence[Offer], waits: Sequence[Offer]) -> tuple[Offer, ...]:
    return tuple(sorted((*ranked, *waits), key=lambda offer: (offer.cost, offer.start_s, offer.target))[:SHOWN_WAITING])
