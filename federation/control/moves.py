"""Moves: a session saves its state where it runs, exits, and resumes on slots that were held for it meanwhile.

A move is a field of the session's row (`Session.moving`), so that no crash loses or repeats one. The watch sends the
request for a checkpoint, the agents' reports end it (`members`), and what does not come to an end in its time is
settled here. A move kills nothing: a session that does not exit by itself stays. Only a preemptible one is stopped,
and a gang some of whose members have saved and exited: the others would wait for them in vain.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from atoll import money
from atoll.agent import Agent
from atoll.errors import Conflict, NotFound
from atoll.offer import Offer, OfferKind, Outcome
from atoll.plan import Move
from atoll.session import Member, MemberState, Moving, Session
from atoll.slots import total
from atoll.states import PLACED, AgentState, Reason, SessionState
from federation.control.agents import used
from federation.control.budgets import Budgets
from federation.control.changes import Change, Changes
from federation.control.config import ControlConfig
from federation.control.demands import demand, protection, ran_s
from federation.control.links import Links
from federation.control.rulings import Held
from federation.control.seating import Seating
from federation.control.sessions import Sessions
from federation.control.spending import Accounts
from federation.control.world import Observer
from federation.routing.capacity import Capacity
from federation.routing.place import rank

_S = SessionState
_TO_SAVE_MONEY = frozenset({Reason.HOMECOMING, Reason.CONSOLIDATION})
"""Moves that nothing but money asks for."""
_KEEP_OUT = _TO_SAVE_MONEY | {Reason.PREEMPTED}
"""Moves that leave a protected session alone."""
_AGAIN_S = 10.0
"""A session that did not heed a request is left alone for this long at least, however short its `every` is."""
_LATE_S = 0.01
"""A move is looked at this long after its time, so that it is surely over."""


class Moves:
    """Begins moves, and settles those that come to nothing. `on_change` wakes the watch, which asks the agents."""

    def __init__(
        self,
        changes: Changes,
        links: Links,
        sessions: Sessions,
        observer: Observer,
        seating: Seating,
        budgets: Budgets,
        config: ControlConfig,
    ) -> None:
        self._changes = changes
        self._links = links
        self._sessions = sessions
        self._observer = observer
        self._seating = seating
        self._budgets = budgets
        self._config = config
        self._noticed: set[tuple[str, int]] = set()
        self.on_change: Callable[[], None] = lambda: None

    async def request(self, project: str, ref: str, to: str, *, by: str) -> Session:
        """Move a session because a user asks for it: to a site or an agent, or with `to` empty to the queue.

        Raises `Conflict` with the reason when it cannot be moved now, `NotFound` when there is no such place.
        """
        row = await self._sessions.get(project, ref)
        offers = await self._offers(row, to) if to else ()
        move = _asked_for(row, offers, by, self._changes.clock.now())
        async with self._changes.commit("session.move") as change:
            refusal = await self.begin(change, move, insist=True)
        if refusal:
            raise Conflict(f"{row.name} cannot be moved: {refusal}")
        self.on_change()
        return await self._sessions.get(project, row.id)

    async def begin(self, change: Change, move: Move, accounts: Accounts | None = None, *, insist: bool = False) -> str:
        """Begin a move within `change`, checked against the rows of this moment; return "" or why it was not begun.

        From this commit on its destination's slots are held. The watch is to be woken once it is made. Unless a
        person insists, a session is asked at most once in `checkpoint.every`, and once when its machine's notice comes.
        `accounts` are the commit's, where it has written anything already.
        """
        row = await change.tx.get(Session, move.session)
        if row is None or row.attempt != move.attempt:
            return "it has gone on since this was decided"
        refusal = self._refusal(row, move, change.now) or ("" if insist else self._too_soon(row, move, change.now))
        refusal = refusal or await self._no_room(change, row, move.to)
        to = tuple(offered_member(rank, offer) for rank, offer in enumerate(move.to))
        if not refusal and to and (insist or move.reason in _TO_SAVE_MONEY):
            accounts = accounts or await self._budgets.open(change)
            refusal = _too_dear(accounts.move(row, to, machines=insist))
        if refusal:
            return refusal
        if move.reason is Reason.SPOT_NOTICE:
            self._noticed.add((row.id, row.attempt))
        checkpoint = row.spec.checkpoint
        moving = Moving(
            reason=move.reason,
            message=move.message,
            to=to,
            site=move.to[0].site if move.to else "",
            group=move.to[0].group if move.to else "",
            asked_at=change.now,
            until=change.now + (checkpoint.grace if checkpoint else 0.0),
            saving=move.saving,
            lost=move.lost,
        )
        if checkpoint is None:
            await _stop(change, replace(row, moving=moving), moving.message)
        else:
            text = f"is asked for a checkpoint, to go on {_where(moving)}: {moving.message}"
            await change.session(row, row.state, move.reason, text, moving=moving)
        return ""

    async def round(self, placed: Sequence[Session], agents: Mapping[str, Agent]) -> float | None:
        """Settle moves whose time is over or whose destination is gone; ask sessions whose machine will be taken.

        Returns the seconds until the time of the next one is over, None while there is none.
        """
        for row in placed:
            if row.moving:
                if not row.stopping_as and (self._over(row, row.moving) or not self._is_there(row.moving, agents)):
                    await self._settle(row)
            elif row.spec.checkpoint and self._will_be_taken(row):
                await self._rescue(row)
        self._noticed &= {(row.id, row.attempt) for row in placed}
        now = self._changes.clock.now()
        left = [row.moving.until - now for row in placed if row.moving and row.moving.until > now]
        return min(left) + _LATE_S if left else None

    def _refusal(self, row: Session, move: Move, now: float) -> str:
        """Return why a session may not be moved for this reason now, or ""."""
        checkpoint, preempted = row.spec.checkpoint, move.reason is Reason.PREEMPTED
        if row.moving or row.stopping_as:
            return "it is being moved already" if row.moving else "it is being stopped"
        if row.state is not _S.RUNNING or any(m.state is not MemberState.RUNNING for m in row.members):
            return f"it is {row.state}" if row.state is not _S.RUNNING else "not all of its members run"
        if preempted and not row.spec.preemptible:
            return "it is not preemptible"
        if not preempted and checkpoint is None:
            return "it takes no checkpoints: its `checkpoint` is not set"
        if move.reason in _KEEP_OUT and protection(row, now):
            return "it is protected"
        return self._unable(row) if checkpoint else ""

    def _too_soon(self, row: Session, move: Move, now: float) -> str:
        checkpoint = row.spec.checkpoint
        if move.reason is Reason.SPOT_NOTICE:
            return "it was asked when the notice came" if (row.id, row.attempt) in self._noticed else ""
        if checkpoint is None or move.reason is Reason.PREEMPTED or row.moved_at is None:
            return ""
        asked, every = now - row.moved_at, max(checkpoint.every, _AGAIN_S)
        return f"it was asked {asked:.0f} s ago; it is asked every {every:g} s at most" if asked < every else ""

    def _unable(self, row: Session) -> str:
        for member in row.members:
            if self._links.live(member.agent) is None:
                return f"agent {member.agent} is not connected"
        return ""

    async def _no_room(self, change: Change, row: Session, to: Sequence[Offer]) -> str:
        """Return why the offers of a move do not hold at this moment, or ""."""
        if to and len(to) != row.spec.nodes:
            return f"{len(to)} places are offered for {row.spec.nodes} members"
        if any(offer.kind is not OfferKind.AGENT for offer in to):
            return "a move goes to running agents only"
        own = {member.agent for member in row.members}
        for key, offers in groupby(sorted(to, key=lambda offer: offer.target), key=lambda offer: offer.target):
            agent, live = await change.tx.get(Agent, key), self._links.live(key)
            if agent is None or agent.state is not AgentState.READY or live is None or live.notice or key in own:
                return f"agent {key} takes no session of it now"
            holding = await change.tx.find(Session, agent=key, state=sorted(PLACED))
            if not (agent.capacity - used(key, holding)).covers(total(offer.slots for offer in offers)):
                return f"agent {key} has too few free slots by now"
        return ""

    async def _offers(self, row: Session, to: str) -> tuple[Offer, ...]:
        """Return the cheapest places for a session at a site or on an agent, other than where it is."""
        world = await self._observer.look()
        own = {member.agent for member in row.members}
        named = {agent.id for agent in world.agents if to in (agent.id, agent.name)}
        if not named and to not in {agent.site for agent in world.agents}:
            raise NotFound(f"there is no site or agent {to!r} with agents", hint="see `atoll agent list`")
        there = Capacity()
        for seat in self._seating.capacity(world).seats():
            if (seat.agent in named or (seat.site == to and not named)) and seat.agent not in own:
                there.put_seat(seat)
        decision = rank(demand(row), there, now=world.now)
        if decision.outcome is not Outcome.PLACE:
            found = next(iter(decision.rejected), None)
            why = found.message if found else decision.message
            raise Conflict(f"{row.name} cannot be moved to {to}: {why}", hint="see `atoll agent list`")
        return decision.taken

    # -- moves that do not end by themselves --------------------------------------------------------

    def _over(self, row: Session, moving: Moving) -> bool:
        """Say whether its time is over; after a start, its agents are to tell first what happened meanwhile."""
        if self._links.returning and any(self._links.live(member.agent) is None for member in row.members):
            return False
        return self._changes.clock.now() > moving.until

    def _is_there(self, moving: Moving, agents: Mapping[str, Agent]) -> bool:
        """Say whether the agents that hold slots for a move are there to take it, as far as known."""
        return all(self._takes(agents.get(member.agent)) for member in moving.to)

    def _takes(self, agent: Agent | None) -> bool:
        if agent is None or agent.state is not AgentState.READY:
            return False
        live = self._links.live(agent.id)
        return not live.notice if live else self._links.silent_for(agent.id) < self._config.lost_after_s

    async def _settle(self, seen: Session) -> None:
        async with self._changes.commit("session.stay") as change:
            row = await change.tx.get(Session, seen.id)
            if row is None or row.moving is None or row.moving != seen.moving or row.stopping_as:
                return
            if not self._over(row, row.moving):
                moving = replace(row.moving, to=(), site="", group="")
                text = f"is asked for a checkpoint, to go on {_where(moving)}: its place at {row.moving.site} is gone"
                reason, text = (moving.reason, text) if row.state is _S.RUNNING else (row.reason, row.message)
                await change.session(row, row.state, reason, text, hint=row.hint, moving=moving)
            elif row.moving.reason is Reason.PREEMPTED:
                await _stop(change, row, row.moving.message)
            elif any(member.saved for member in row.members):
                await _stop(change, row, "some members have saved their state: the others are stopped, all resume")
            else:
                hint = f"it should save its state and exit when it gets {_signal(row)}; or raise checkpoint.grace"
                text = f"it did not exit within {row.moving.until - row.moving.asked_at:g} s of being asked"
                await change.stay(row, text, hint=hint)
        self.on_change()

    def _will_be_taken(self, row: Session) -> bool:
        if row.state is not _S.RUNNING or (row.id, row.attempt) in self._noticed:
            return False
        lives = (self._links.live(m.agent) for m in row.members if m.state is not MemberState.EXITED)
        return any(live and live.notice for live in lives)

    async def _rescue(self, row: Session) -> None:
        """Its machine will be taken away: have it save its state at once and go on elsewhere. Asked once."""
        text = "its machine will be taken away"
        async with self._changes.commit("session.move") as change:
            move = Move(session=row.id, attempt=row.attempt, reason=Reason.SPOT_NOTICE, message=text)
            refusal = await self.begin(change, move)
        self._noticed.add((row.id, row.attempt))
        if not refusal:
            self.on_change()


def leaving(placed: Iterable[Session]) -> list[Session]:
    """Return the sessions that will soon wait for a place because their machine is taken away (L3).

    The planner may order a machine for each now, rather than once it has saved its state.
    """
    return [row for row in placed if row.moving and not row.moving.to and row.moving.reason is Reason.SPOT_NOTICE]


def _asked_for(row: Session, offers: tuple[Offer, ...], by: str, now: float) -> Move:
    """Return the move that a user asks for, with what it is expected to save over the rest of the run."""
    checkpoint, text, price = row.spec.checkpoint, f"asked for by {by}", sum(offer.price for offer in offers)
    if offers:
        text = f"{text}, at {money.text(price)} instead of {money.text(row.price)} an hour"
    left = row.spec.lifetime.expected - row.ran_s - ran_s(row, now)
    saving = money.cost(row.price - price, left) if offers else 0
    lost = money.cost(price, checkpoint.lost) if checkpoint else 0
    if saving:
        text = f"{text}; saves about {money.text(saving)} for {money.text(lost)} of work done again"
    return Move(
        session=row.id,
        attempt=row.attempt,
        reason=Reason.USER,
        message=text,
        to=offers,
        saving=saving,
        lost=lost,
    )


def _too_dear(held: Held | None) -> str:
    return f"{held.message} ({held.hint})" if held else ""


async def _stop(change: Change, row: Session, message: str) -> None:
    """Stop a session's members; their exits then take it on (`members`). The move stays on record until then."""
    to = _S.LOST if row.state is _S.LOST else _S.STOPPING
    reason = row.moving.reason if row.moving else row.reason
    await change.session(row, to, reason, message, stopping_as=_S.INTERRUPTED, moving=row.moving)


def offered_member(rank: int, offer: Offer) -> Member:
    """Return the member that starts on the agent of an offer."""
    return Member(
        rank=rank, agent=offer.target, slots=offer.slots, price=offer.price, site=offer.site, group=offer.group
    )


def _where(moving: Moving) -> str:
    return f"at {moving.site}" if moving.site else "from the queue"


def _signal(row: Session) -> str:
    return f"SIG{row.spec.checkpoint.signal}" if row.spec.checkpoint else "TERM"
