"""What it has cost: instances by their life, sessions by their share, both against on-demand prices."""

from dataclasses import dataclass, field

from atoll.group import Provider
from atoll.instance import Instance
from atoll.session import Session
from atoll.states import InstanceState
from federation.control.changes import Changes, instance_cost
from federation.control.stretches import all_of


@dataclass(slots=True, kw_only=True)
class Row:
    """One group's part, in micro-units. A session that ran in several groups is one of the `sessions` of each."""

    site: str
    group: str
    sessions: int = 0
    session_cost: int = 0
    instance_cost: int = 0
    on_demand_cost: int = 0
    instances: int = 0
    live: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Rows and totals since a time, in micro-units. `simulated` is set when only pretend clouds took part."""

    since: float
    currency: str = "USD"
    rows: list[Row] = field(default_factory=list)
    session_cost: int = 0
    instance_cost: int = 0
    on_demand_cost: int = 0
    simulated: bool = False


def session_cost(row: Session, now: float) -> int:
    """Return what a session has cost up to `now`, interrupted attempts included."""
    return sum(each.cost for each in all_of(row, now))


def session_on_demand(row: Session, now: float) -> int:
    """Return what a session would have cost up to `now` on demand, without interruptions."""
    return sum(each.on_demand_cost for each in all_of(row, now))


class Ledger:
    """Adds up costs from rows: nothing is counted twice, nothing is lost with a counter."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes

    async def summary(self, since: float) -> Usage:
        """Return costs of instances that were there, and of runs that went on, at or after `since` (Unix seconds).

        What a session cost is booked to where each of its attempts ran.
        """
        async with self._changes.look() as tx:
            sessions = await tx.find(Session)
            instances = await tx.find(Instance)
            kinds = {row.name: row.kind for row in await tx.find(Provider)}
        now = self._changes.clock.now()
        rows: dict[tuple[str, str], Row] = {}
        for session in sessions:
            here = [each for each in all_of(session, now) if each.ended_at >= since]
            for each in here:
                row = rows.setdefault((each.site, each.group), Row(site=each.site, group=each.group))
                row.session_cost += each.cost
                row.on_demand_cost += each.on_demand_cost
            for place in {(each.site, each.group) for each in here}:
                rows[place].sessions += 1
        used = [i for i in instances if (i.ended_at or now) >= since and i.booted_at is not None]
        for instance in used:
            row = rows.setdefault((instance.site, instance.group), Row(site=instance.site, group=instance.group))
            row.instances += 1
            row.live += instance.state is not InstanceState.GONE
            row.instance_cost += instance_cost(instance, now)
        ordered = sorted(rows.values(), key=lambda row: (row.site, row.group))
        return Usage(
            since=since,
            rows=ordered,
            session_cost=sum(row.session_cost for row in ordered),
            instance_cost=sum(row.instance_cost for row in ordered),
            on_demand_cost=sum(row.on_demand_cost for row in ordered),
            simulated=bool(used) and all(kinds.get(i.provider) == "sim" for i in used),
        )
