"""Moves off agents: to end a paid one that few use, to come back to spot, and because the machine must be left.

Only sessions that can take a checkpoint are moved, at most once in the time each of them says, none that is
protected, and no member of a gang. What is moved for money is moved one agent a group at a time, and only when the
saving is worth twice the work that is lost: what is left of a session's run is a guess.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from atoll import money
from atoll.group import GroupKind
from atoll.offer import Offer, OfferKind, expected_cost
from atoll.plan import Move
from atoll.slots import Slots
from atoll.states import AgentState, Reason
from autoscaler.demand import PLAIN, Terms, may_use, share_price
from autoscaler.fleet import room
from autoscaler.pools import hot_fits, hot_sizes
from autoscaler.spot import Paid, choose
from autoscaler.view import AgentView, GroupView, RunningView

_TRIED = 16
"""How many agents a plan tries to empty."""
MARGIN = 2.0
"""How many times the loss a saving must be."""


def moves(groups: Sequence[GroupView], grows: Iterable[str], now: float, terms: Terms = PLAIN) -> tuple[Move, ...]:
    """Return the moves that a plan should ask for. `grows` are the groups that it makes larger."""
    growing = set(grows)
    made: list[Move] = []
    for view in groups:
        if not view.settled:
            continue
        forced = evacuate(view, terms)
        made += forced
        busy = forced or view.pending or view.group.name in growing or _in_motion(view)
        if view.group.kind is GroupKind.ELASTIC and not busy:
            made += consolidate(view, terms) or back_to_spot(view, groups, now, terms)
    return tuple(made)


def evacuate(view: GroupView, terms: Terms = PLAIN) -> tuple[Move, ...]:
    """Return moves off agents that a cloud takes back, and off those whose drain should have ended by now.

    Where the group has no free slots for a session, it goes to the queue. A cloud asks nobody: also protected
    sessions are saved from it, and those that were moved a short time ago.
    """
    leaving = [agent for agent in view.agents if agent.running and agent.connected and _must_go(agent)]
    free = _Free(view, (agent for agent in view.agents if leaving and _stays(agent)), terms)
    made = []
    for agent in leaving:
        for run in agent.running:
            if not run.checkpoint or run.moving or run.demand.nodes > 1 or (run.protected and not agent.notice):
                continue
            reason = Reason.SPOT_NOTICE if agent.notice else Reason.USER
            why = "its cloud takes the machine back" if agent.notice else "the time to drain its machine is over"
            to = free.put(run)
            made.append(_move(run, reason, why, (to,) if to else (), lost=_lost(run, to.price if to else 0, terms)))
    return tuple(made)


def consolidate(view: GroupView, terms: Terms = PLAIN) -> tuple[Move, ...]:
    """Return moves of all sessions of one agent to others of the group, so that it can be ended; or none.

    Of those that are used least for their price, the agent whose end saves most is taken, if the group asked for
    this, has had its cooldown, and keeps its least size and its hot pool without it.
    """
    staying = [agent for agent in view.agents if _stays(agent)]
    rules = view.group.scale_down
    if not rules.consolidate or len(staying) <= view.group.size.min or view.since_growth_s < rules.cooldown_s:
        return ()
    able = [agent for agent in staying if agent.running and all(_movable(run) for run in agent.running)]
    tried = [
        _emptied(view, agent, [other for other in staying if other is not agent], terms)
        for agent in sorted(able, key=_used)[:_TRIED]
    ]
    best = max((moved for moved in tried if moved), key=lambda moved: moved.net, default=None)
    return best.moves if best else ()


def back_to_spot(view: GroupView, groups: Sequence[GroupView], now: float, terms: Terms = PLAIN) -> tuple[Move, ...]:
    """Return the move of one session with a deadline from an on-demand machine to the queue, to go on on spot; or none.

    It is as far as uniform progress asks (see `autoscaler.spot`), and some group may launch a cheaper spot machine.
    """
    best: Move | None = None
    for agent in view.agents:
        for run in agent.running if _stays(agent) and not agent.shape.spot else ():
            move = _to_spot(agent, run, groups, now, terms)
            if move and (best is None or move.saving - move.lost > best.saving - best.lost):
                best = move
    return (best,) if best else ()


class _Free:
    """What is free on the agents that take sessions, while a plan's moves are made."""

    def __init__(self, view: GroupView, agents: Iterable[AgentView], terms: Terms) -> None:
        self._group = view.group
        self._terms = terms
        self.left = {agent.id: (agent, agent.free) for agent in agents}

    def put(self, run: RunningView) -> Offer | None:
        """Take a session's slots where they leave the least, and return them as an offer; None: nowhere."""
        best: tuple[float, str, Slots] | None = None
        for agent, free in self.left.values():
            if may_use(run.demand, self._group, agent.shape, self._terms) and (taken := free.take(run.demand.request)):
                rank = ((free - taken).share_of(agent.capacity), agent.id, taken)
                best = min(best, rank, key=lambda r: r[:2]) if best else rank
        if best is None:
            return None
        _, key, taken = best
        agent, free = self.left[key]
        self.left[key] = (agent, free - taken)
        price = share_price(taken, agent.shape)
        return Offer(
            kind=OfferKind.AGENT,
            site=self._group.site,
            group=self._group.name,
            target=key,
            slots=taken,
            price=price,
            cost=expected_cost(price, run.left_s),
            spot=agent.shape.spot,
        )


@dataclass(frozen=True, slots=True)
class _Emptied:
    """The moves that empty one agent, and by how much (micro-units) they save more than they lose."""

    moves: tuple[Move, ...]
    net: int


def _emptied(view: GroupView, agent: AgentView, others: Sequence[AgentView], terms: Terms) -> _Emptied | None:
    """Return the moves of all its (movable) sessions onto agents that are busy anyway, if they are worth it."""
    runs = agent.running
    if agent.protected or len(runs) != len(agent.sessions):
        return None
    free = _Free(view, (other for other in others if other.sessions), terms)
    placed: list[tuple[RunningView, Offer]] = []
    for run in sorted(runs, key=lambda run: (-run.demand.request.gpu.milli, -run.demand.request.cpu, run.session)):
        to = free.put(run)
        if to is None:
            return None
        placed.append((run, to))
    after = [free.left[other.id][1] if other.id in free.left else other.free for other in others]
    before = [other.free for other in (*others, agent)]
    hot = view.group.pools.hot
    if any(
        hot_fits(hot, count, after) < hot_fits(hot, count, before) for count, _ in hot_sizes(view, view.predicted.keep)
    ):
        return None
    saving = _saving(view, agent, placed, {other.id: other for other in others})
    losses = [_lost(run, to.price, terms) for run, to in placed]
    if saving <= MARGIN * sum(losses):
        return None
    why = f"agent {agent.id} can then be ended, which saves {money.text(saving)}"
    shares = [saving // len(placed)] * len(placed)
    made = tuple(
        _move(run, Reason.CONSOLIDATION, why, (to,), saving=share, lost=lost)
        for (run, to), share, lost in zip(placed, shares, losses, strict=True)
    )
    return _Emptied(made, saving - sum(losses))


def _saving(
    view: GroupView, agent: AgentView, placed: Sequence[tuple[RunningView, Offer]], others: dict[str, AgentView]
) -> int:
    """Return what the early end of an agent saves, less what other agents then run longer for its sessions."""
    graces = [run.checkpoint.grace for run, _ in placed if run.checkpoint]
    until = max(max(graces) + view.group.scale_down.idle_s, agent.paid_s)
    saving = money.cost(agent.shape.price or 0, max(run.left_s for run, _ in placed) - until)
    for key in sorted({to.target for _, to in placed}):
        stays_s = max((run.left_s for run in others[key].running), default=0.0)
        longest = max(run.left_s + _lost_s(run) for run, to in placed if to.target == key)
        saving -= money.cost(others[key].shape.price or 0, longest - stays_s)
    return saving


def _to_spot(agent: AgentView, run: RunningView, groups: Sequence[GroupView], now: float, terms: Terms) -> Move | None:
    demand, pace = run.demand, run.pace
    if pace is None or not demand.spot or not _movable(run):
        return None
    if choose(pace, now, on=Paid.ON_DEMAND, spot=True) is not Paid.SPOT:
        return None
    taken = agent.capacity.take(demand.request)
    here = share_price(taken, agent.shape) if taken else 0
    there = min(
        (
            shape.price or 0
            for view in groups
            for shape in view.shapes
            if room(view)
            and shape.spot
            and shape.price
            and shape.key not in view.blocked
            and may_use(demand, view.group, shape, terms)
        ),
        default=here,
    )
    saving, lost = money.cost(here - there, run.left_s), _lost(run, here, terms) + money.cost(there, pace.changeover_s)
    if saving <= MARGIN * lost:
        return None
    why = f"it has time enough for spot again, at {money.text(there)} an hour instead of {money.text(here)}"
    return _move(run, Reason.SPOT_RETURN, why, (), saving=saving, lost=lost)


def _move(run: RunningView, reason: Reason, why: str, to: tuple[Offer, ...], *, saving: int = 0, lost: int = 0) -> Move:
    where = f"to agent {to[0].target}" if to else "to the queue"
    message = f"{where}: {why}; the move costs {money.text(lost)}"
    return Move(
        session=run.session, attempt=run.attempt, reason=reason, message=message, to=to, saving=saving, lost=lost
    )


def _must_go(agent: AgentView) -> bool:
    over = agent.drain_left_s is not None and agent.drain_left_s <= 0
    return agent.notice or (over and agent.state is AgentState.DRAINING)


def _used(agent: AgentView) -> tuple[float, str]:
    part = (agent.capacity - agent.free).share_of(agent.capacity)
    return (part / max(1, agent.shape.price or 0), agent.id)


def _stays(agent: AgentView) -> bool:
    return agent.state is AgentState.READY and agent.connected and not agent.notice


def _movable(run: RunningView) -> bool:
    able = run.checkpoint is not None and run.ran_s >= run.checkpoint.every
    return able and not run.protected and not run.moving and run.demand.nodes == 1


def _in_motion(view: GroupView) -> bool:
    return any(run.moving for agent in view.agents for run in agent.running)


def _lost_s(run: RunningView) -> float:
    return run.checkpoint.lost + run.checkpoint.grace if run.checkpoint else 0.0


def _lost(run: RunningView, price: int, terms: Terms) -> int:
    """Return what a move costs: the work done again at `price`, and the worth of ending later."""
    again = run.checkpoint.lost if run.checkpoint else 0.0
    return money.cost(price, again) + round(_lost_s(run) * terms.wait_value)
