"""Sessions as the pure packages see them: waiting ones as demands, placed ones as what runs and what may be moved."""

from atoll.offer import Demand
from atoll.policy import tags
from atoll.session import MemberState, Session
from atoll.states import Reason, SessionState
from federation.control.members import holders
from federation.routing.homecoming import Movable
from federation.routing.timeline import Running

_S = SessionState


def demand(row: Session, max_wait: float | None = None) -> Demand:
    """Return what the pure packages need to know of a session; it expires `max_wait` seconds after it was queued."""
    spec = row.spec
    place, cost, life = spec.placement, spec.cost, spec.lifetime
    wait = life.max_wait if max_wait is None else max_wait
    return Demand(
        session=row.id,
        request=spec.resources,
        nodes=spec.nodes,
        sites=place.sites,
        groups=place.groups,
        max_price=cost.max_price,
        spot=cost.spot,
        expected_s=life.expected,
        priority=spec.priority,
        protect=life.protect,
        queued_at=row.queued_at,
        project=row.project,
        labels=tuple(sorted(place.labels.items())),
        near=place.near,
        data=place.data,
        together=place.together,
        spread=place.spread,
        max_total=cost.max_total,
        start_by=None if wait is None else row.queued_at + wait,
        due_at=None if life.deadline is None else row.created_at + life.deadline,
        preemptible=spec.preemptible,
        checkpoint=spec.checkpoint is not None,
        type=str(spec.type),
        owner=row.owner,
        tags=tags(spec.labels),
    )


def ran_s(row: Session, now: float) -> float:
    """Return for how long a session's current attempt has run."""
    return max(0.0, now - row.started_at) if row.started_at is not None else 0.0


def protection(row: Session, now: float) -> Reason:
    """Return why a placed session must not be disturbed: its user said so, or it has run for long enough."""
    life = row.spec.lifetime
    if life.protect:
        return Reason.PROTECTED
    long = life.protect_after is not None and row.ran_s + ran_s(row, now) >= life.protect_after
    return Reason.LONG_RUNNING if long else Reason.NONE


def running(row: Session, now: float) -> Running:
    """Return a placed session as the queue pass sees it."""
    leaving = row.moving is not None or row.state is _S.STOPPING
    return Running(
        session=row.id,
        members=tuple((member.agent, member.slots) for member in row.members if member.state is not MemberState.EXITED),
        project=row.project,
        priority=row.spec.priority,
        preemptible=row.spec.preemptible,
        checkpoint=row.spec.checkpoint is not None,
        protected=protection(row, now) is not Reason.NONE,
        leaving=leaving,
        ends_at=_ends_at(row, now) if leaving else _expected_end(row),
        started_at=row.started_at,
        price=row.price,
    )


def arriving(row: Session) -> Running | None:
    """Return what a session that is being moved holds where it goes to, None where it goes to the queue."""
    if row.moving is None or not row.moving.to:
        return None
    return Running(
        session=f"{row.id}>",
        members=tuple((member.agent, member.slots) for member in row.moving.to),
        project=row.project,
        priority=row.spec.priority,
        protected=True,
        ends_at=_expected_end(row),
        started_at=row.started_at,
    )


def movable(row: Session, now: float) -> Movable | None:
    """Return a running session that opted in to being moved, None for others."""
    if row.spec.checkpoint is None or row.state is not _S.RUNNING or row.started_at is None:
        return None
    if protection(row, now) is not Reason.NONE:
        return None
    return Movable(
        session=row.id,
        attempt=row.attempt,
        demand=demand(row),
        members=tuple((member.agent, member.slots) for _, member in holders(row) if member in row.members),
        checkpoint=row.spec.checkpoint,
        started_at=row.started_at,
        ran_s=row.ran_s,
        moved_at=row.moved_at,
        leaving=row.moving is not None or row.stopping_as is not None,
    )


def _expected_end(row: Session) -> float | None:
    return None if row.started_at is None else row.started_at + max(0.0, row.spec.lifetime.expected - row.ran_s)


def _ends_at(row: Session, now: float) -> float:
    return row.moving.until if row.moving else now + row.spec.lifetime.grace
