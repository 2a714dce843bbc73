"""Homecoming in a replay: the router's own decisions, with running tasks shown to it as it sees sessions."""

from collections.abc import Iterable, Sequence

from atoll.offer import Demand
from atoll.plan import Move
from federation.routing.homecoming import PLAIN_HOMING, Exchange, Homing, Movable, exchange, homecoming
from federation.simulate.places import Task
from federation.simulate.world import World

EVERY_S = 15.0
"""As the control plane does (`home_s`)."""


class Home:
    """Asks for moves: at most every `every_s` for sessions that are to come home, at once after any that began.

    With `exchanges` False nobody makes way for a session that cannot be moved.
    """

    def __init__(self, homing: Homing = PLAIN_HOMING, *, every_s: float = EVERY_S, exchanges: bool = True) -> None:
        self._homing = homing
        self._every_s = every_s
        self._exchanges = exchanges
        self._next_at = -1e18

    def bring(self, running: Iterable[Task], waiting: Sequence[Demand], world: World, now: float) -> list[Move]:
        """Return the moves to begin after a round that left these waiting, with nothing launched for them."""
        if now < self._next_at:
            return []
        moves = homecoming(world.settle(now), _movables(running, now), waiting=waiting, now=now, homing=self._homing)
        self._next_at = now if moves else now + self._every_s
        return moves

    def make_way(self, running: Iterable[Task], waiting: Sequence[Demand], world: World, now: float) -> list[Exchange]:
        """Return who makes way for whom, before the round's routing."""
        if not self._exchanges or all(demand.checkpoint for demand in waiting):
            return []
        return exchange(world.settle(now), _movables(running, now), waiting, now=now, homing=self._homing)


def _movables(running: Iterable[Task], now: float) -> list[Movable]:
    return [
        Movable(
            session=task.job.id,
            attempt=task.attempt,
            demand=task.demand,
            members=tuple((member.place.id, member.slots) for member in task.members),
            checkpoint=task.job.checkpoint,
            started_at=task.began or 0.0,
            ran_s=max(0.0, (task.began or 0.0) - (task.first_start or 0.0) - task.stalled_s),
            moved_at=task.moved_at,
            leaving=task.leaving,
        )
        for task in running
        if task.job.checkpoint is not None and not task.protected(now)
    ]
