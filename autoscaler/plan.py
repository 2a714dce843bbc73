"""The planner: groups and unplaced demand in, one Plan out; pure, so equal input gives an equal plan."""

from collections.abc import Callable, Iterator, Sequence

from atoll import money
from atoll.group import Group, GroupKind
from atoll.instance import Shape
from atoll.offer import Demand
from atoll.plan import Action, Note, Plan, Quote, Step
from atoll.states import Reason
from autoscaler.consolidate import moves
from autoscaler.demand import PLAIN, Terms, by_kind, mean_expected_s
from autoscaler.fleet import Fleet, Machine, Standing
from autoscaler.grow import quote, serve, serve_in_order
from autoscaler.limits import Ceiling, Limits
from autoscaler.pools import grow_pools
from autoscaler.shrink import Shrink
from autoscaler.spot import fallback
from autoscaler.view import GroupView


def plan(
    groups: Sequence[GroupView],
    demands: Sequence[Demand],
    *,
    plan_id: str,
    generation: int,
    at: float,
    terms: Terms = PLAIN,
    left: Callable[[], float] | None = None,
) -> Plan:
    """Return what to do about `groups` so that `demands` (those the router could not place, in its order) are served.

    Pending instances are filled first, then draining agents are taken back, then stopped instances
    started, then instances launched, cheapest first over all groups. Where the groups may not grow
    enough for all, demands are served in order. Launches' instance ids are `i-<plan>-<n>`. Only empty,
    idle, unprotected agents are drained, only acknowledged ones ended. `terms` is what the installation's policy
    and sites say.

    Equal input gives an equal plan; with `left`, which tells the seconds there are still to look for cheaper launches
    than those packed greedily, also the time it takes counts. The plan's quote says what the launches for demand cost
    an hour, and a proven bound on it.
    """
    fleet, unserved, judged = _served(groups, demands, terms, left)
    for view in groups:
        grow_pools(fleet, view)
    _name_new(fleet, plan_id)
    grown = list(_growth_steps(fleet, {demand.session for demand in demands if demand.spot}))
    growing = {step.group for step in grown}
    shrinks = _shrunk(fleet, groups, growing, unserved)
    steps = [*grown, *(step for shrink in shrinks for step in shrink.steps)]
    notes = [
        *_blocked_notes(groups, demands, terms),
        *_limit_notes(fleet, demands, unserved),
        *_unserved_notes(fleet, unserved),
        *(note for shrink in shrinks for note in shrink.notes),
    ]
    return Plan(
        id=plan_id,
        generation=generation,
        at=at,
        steps=tuple(steps),
        notes=(*notes, *_steady_notes(groups, steps, notes)),
        awaits=tuple(_awaits(fleet)),
        moves=moves(groups, growing, at, terms),
        quote=judged,
    )


def _served(
    groups: Sequence[GroupView], demands: Sequence[Demand], terms: Terms, left: Callable[[], float] | None
) -> tuple[Fleet, list[Demand], Quote | None]:
    """Return the fleet with demands on it, those left out, and what the launches are worth; nothing for pools yet."""
    began = left() if left else 0.0
    expected_s = mean_expected_s(demands)
    fleet = Fleet(groups, expected_s, terms)
    unserved = serve(fleet, demands, left)
    if unserved and _could_grow(groups, unserved, terms):
        fleet = Fleet(groups, expected_s, terms)
        unserved = serve_in_order(fleet, demands)
    return fleet, unserved, quote(fleet, demands, began - left() if left else 0.0)


def _shrunk(fleet: Fleet, groups: Sequence[GroupView], growing: set[str], unserved: Sequence[Demand]) -> list[Shrink]:
    """Return what each group gives up, and why it keeps the rest."""
    stuck = [ceiling for _, _, ceiling in _short(fleet, unserved, fleet.limits)]
    shrinks = []
    for view in groups:
        shrinks.append(shrink := Shrink(fleet, view, grows=view.group.name in growing, stuck=stuck))
        shrink.decide()
    return shrinks


def _could_grow(groups: Sequence[GroupView], unserved: Sequence[Demand], terms: Terms) -> bool:
    """Say whether some group would serve these if it were allowed to be larger: then their order matters."""
    kinds = by_kind(unserved, terms)
    return any(kind.may_use(view.group, shape) for view in groups for shape in view.shapes for kind in kinds)


def _name_new(fleet: Fleet, plan_id: str) -> None:
    for number, machine in enumerate(fleet.standing(Standing.NEW), start=1):
        machine.instance = f"i-{plan_id.removeprefix('p-')}-{number}"


def _growth_steps(fleet: Fleet, take_spot: set[str]) -> Iterator[Step]:
    views = {view.group.name: view for view in fleet.views if view.blocked}
    instead: dict[tuple[str, str], str] = {}
    for machine in fleet.standing(Standing.DRAINING, Standing.COLD, Standing.NEW):
        if machine.wanted:
            launched = machine.standing is Standing.NEW and not take_spot.isdisjoint(machine.sessions)
            view, key = views.get(machine.group.name), (machine.group.name, machine.shape.key)
            if view and launched and key not in instead:
                instead[key] = fallback(machine.shape, view.shapes, view.blocked)
            yield _growth_step(machine, instead.get(key, "") if launched else "")


def _growth_step(machine: Machine, instead: str) -> Step:
    agent = machine.agent
    action = {Standing.DRAINING: Action.UNDRAIN, Standing.COLD: Action.START, Standing.NEW: Action.LAUNCH}
    why = {
        Reason.DEMAND: f"for {len(machine.sessions)} waiting session{'s' * (len(machine.sessions) != 1)}",
        Reason.MIN_SIZE: f"the group keeps at least {machine.group.size.min}",
        Reason.HOT_POOL: "the hot pool lacks free slots",
        Reason.PREDICTED: "the group's history says that free slots will soon be wanted",
    }[machine.reason]
    reason = machine.reason
    if machine.standing is Standing.DRAINING and reason is Reason.DEMAND:
        reason = Reason.DEMAND_RETURNED
    elif instead:
        reason = Reason.SPOT_FALLBACK
    text = f"{why}: {machine.shape.key}, {money.text(machine.shape.price or 0)} an hour"
    return Step(
        action=action[machine.standing],
        group=machine.group.name,
        reason=reason,
        message=f"{text}, {instead}" if instead else text,
        shape=machine.shape if agent is None else None,
        agent=agent.id if agent else "",
        instance=machine.instance,
        epoch=agent.epoch if agent else 0,
        sessions=tuple(machine.sessions),
    )


def _awaits(fleet: Fleet) -> Iterator[tuple[str, str]]:
    for machine in fleet.standing(Standing.PENDING, Standing.COLD, Standing.NEW):
        for session in machine.sessions:
            yield session, machine.instance


def _blocked_notes(groups: Sequence[GroupView], demands: Sequence[Demand], terms: Terms) -> Iterator[Note]:
    kinds = by_kind(demands, terms) if any(view.blocked for view in groups) else []
    for view in groups:
        wanted = [
            f"{shape.key}: {view.blocked[shape.key]}"
            for shape in view.shapes
            if shape.key in view.blocked and any(kind.may_use(view.group, shape) for kind in kinds)
        ]
        if wanted:
            more = f" and {len(wanted) - 3} more" if len(wanted) > 3 else ""
            yield Note(group=view.group.name, reason=Reason.BACKOFF, message="; ".join(wanted[:3]) + more)


def _limit_notes(fleet: Fleet, demands: Sequence[Demand], unserved: Sequence[Demand]) -> Iterator[Note]:
    """Note QUOTA for each group whose account may not have more of a shape that would serve what waits.

    Where all are served, limits that the plan itself has used up are no news.
    """
    limits = fleet.limits if unserved else Limits.of(view.limits for view in fleet.views)
    short = list(_short(fleet, unserved or demands, limits))
    for view in fleet.views:
        keys = [shape.key for group, shape, _ in short if group is view.group]
        if keys:
            why = "; ".join(dict.fromkeys(ceiling.text() for group, _, ceiling in short if group is view.group))
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            yield Note(group=view.group.name, reason=Reason.QUOTA, message=f"{', '.join(keys[:3])}{more}: {why}")


def _short(fleet: Fleet, demands: Sequence[Demand], limits: Limits) -> Iterator[tuple[Group, Shape, Ceiling]]:
    """Yield what would serve these demands, were it not for a limit of its account; a gang wants all its machines."""
    if not limits.ceilings or not demands:
        return
    kinds = [(kind, max(demand.nodes for demand in kind.waiting)) for kind in by_kind(demands, fleet.terms)]
    most = max(nodes for _, nodes in kinds)
    for view in fleet.views:
        for shape in view.shapes:
            if shape.key in view.blocked or not limits.short(view.group.provider, shape, most):
                continue
            count = max((nodes for kind, nodes in kinds if kind.may_use(view.group, shape)), default=0)
            ceiling = limits.short(view.group.provider, shape, count) if count else None
            if ceiling:
                yield view.group, shape, ceiling


def _unserved_notes(fleet: Fleet, unserved: Sequence[Demand]) -> Iterator[Note]:
    """Note MAX_SIZE for each group that a larger size would let serve more, naming the first such session."""
    kinds = by_kind(unserved, fleet.terms)
    for view in fleet.views if kinds else ():
        open_shapes = [
            shape
            for shape in view.shapes
            if shape.price and shape.key not in view.blocked and not fleet.limits.short(view.group.provider, shape)
        ]
        left = [
            demand
            for kind in kinds
            if any(kind.may_use(view.group, shape) for shape in open_shapes)
            for demand in kind.waiting
        ]
        if left and view.group.kind is GroupKind.ELASTIC:
            yield Note(
                group=view.group.name,
                reason=Reason.MAX_SIZE,
                message=f"{len(left)} waiting sessions would fit, but the group may have {view.group.size.max} at most",
                session=left[0].session,
            )


def _steady_notes(groups: Sequence[GroupView], steps: Sequence[Step], notes: Sequence[Note]) -> Iterator[Note]:
    said = {step.group for step in steps} | {note.group for note in notes}
    for view in groups:
        if view.group.name not in said and view.group.kind is GroupKind.ELASTIC:
            yield Note(group=view.group.name, reason=Reason.STEADY, message="nothing waits, nothing is idle")
