"""Deadlines: whether sessions that have one take spot, wait for it, or go on demand (the rules: `autoscaler.spot`)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from atoll.group import Group, GroupKind
from atoll.instance import Shape
from atoll.offer import Demand
from atoll.session import Session
from autoscaler.demand import Kind, Terms, by_kind
from autoscaler.spot import Pace, with_deadline
from federation.control.demands import ran_s
from federation.control.world import World

NOTICED_S = 60.0
"""How long it may take until a machine that was taken away is noticed, and its session is back in the queue."""


def pace(row: Session, now: float, start_s: float) -> Pace | None:
    """Return how far a session with a deadline has come, None for others. A machine takes `start_s` to start.

    Without checkpoints an interruption costs all that will have been done, and there is no way back to spot; there
    is none for a gang either.
    """
    spec, expected = row.spec, row.spec.lifetime.expected
    if spec.lifetime.deadline is None:
        return None
    left_s = max(0.0, expected - row.ran_s - ran_s(row, now))
    return Pace(
        since=row.created_at,
        due_at=row.created_at + spec.lifetime.deadline,
        work_s=expected,
        left_s=left_s,
        changeover_s=start_s + NOTICED_S,
        rework_s=spec.checkpoint.lost if spec.checkpoint else left_s,
        movable=spec.checkpoint is not None and spec.nodes == 1,
    )


def paced(demands: Sequence[Demand], rows: Sequence[Session], world: World, terms: Terms) -> list[Demand]:
    """Return the demands of these sessions with what their deadlines rule out now: spot, or on-demand machines.

    Never both, and never the only one that some group has for a demand: late is better than never.
    """
    due = {row.id: partial(pace, row, world.now) for row in rows if row.spec.lifetime.deadline is not None}
    if not due:
        return list(demands)
    offers = [(group, world.offered(group)) for group in world.groups if group.kind is GroupKind.ELASTIC]
    return in_time(demands, due, offers, world.now, terms)


def in_time(
    demands: Sequence[Demand],
    due: Mapping[str, Callable[[float], Pace | None]],
    offers: Sequence[tuple[Group, Sequence[Shape]]],
    now: float,
    terms: Terms,
) -> list[Demand]:
    """Return demands as `paced` does: `due` has, by session with a deadline, how it paces for a machine's start time.

    `offers` are what the elastic groups may launch.
    """
    ways: dict[str, _Ways] = {}
    for kind in by_kind([asked for asked in demands if asked.session in due], terms):
        found = _ways(kind, offers)
        ways |= {asked.session: found for asked in kind.waiting}
    return [
        ways[asked.session].rule(asked, due[asked.session], now) if asked.session in ways else asked
        for asked in demands
    ]


@dataclass(frozen=True, slots=True)
class _Ways:
    """What is offered to a kind of demand: whether there is spot, and how long on-demand machines take to start.

    None: there are none.
    """

    spot: bool
    start_s: float | None

    def rule(self, asked: Demand, due: Callable[[float], Pace | None], now: float) -> Demand:
        """Return the demand with what its deadline rules out; as it is where it could not go on demand."""
        if self.start_s is None:
            return asked
        return with_deadline(asked, due(self.start_s), now, offered=self.spot)


def _ways(kind: Kind, offers: Sequence[tuple[Group, Sequence[Shape]]]) -> _Ways:
    able = [shape for group, shapes in offers for shape in shapes if shape.price and kind.may_use(group, shape)]
    starts = [shape.start_s for shape in able if not shape.spot]
    return _Ways(spot=any(shape.spot for shape in able), start_s=max(starts, default=None))
