"""What handlers and pages look at together: agents with their live facts, sites, groups, sessions as views."""

from collections.abc import Sequence
from dataclasses import dataclass

from atoll.client import views as api
from atoll.session import Session
from atoll.slots import Slots
from atoll.states import AgentState
from federation.api import views
from federation.api.auth import Caller, may_enter
from federation.api.route import Services
from federation.control.agents import used

EVER = tuple(AgentState)
"""All agents on record, those that left or whose machine is gone too."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """The agents of one moment; `amounts` has (capacity, free) by agent id, of connected ones only."""

    agents: list[api.AgentView]
    amounts: dict[str, tuple[Slots, Slots]]

    def of(self, agent_id: str) -> api.AgentView:
        """Return one agent."""
        return next(each for each in self.agents if each.id == agent_id)


async def fleet(services: Services) -> Fleet:
    """Return all agents with link state, free slots and runs."""
    control = services.control
    placed = await control.agents.placed()
    found, amounts = [], {}
    for row in await control.agents.list(states=EVER):
        runs = placed.get(row.id, [])
        live = control.agents.live(row.id)
        connected = live is not None and live.connected
        sessions = list({session.id: session for _, session in runs}.values())
        free = row.capacity - used(row.id, sessions) if connected else Slots()
        if connected:
            amounts[row.id] = (row.capacity, free)
        found.append(
            views.agent(
                row,
                connected=connected,
                rtt=live.rtt if live is not None else None,
                free=free,
                runs=[run for run, _ in runs],
                protected=any(session.spec.lifetime.protect for session in sessions),
            )
        )
    return Fleet(found, amounts)


async def sites(services: Services, now: Fleet) -> list[api.SiteView]:
    """Return all sites with the sums over their connected agents."""
    return [views.site(row, now.agents, now.amounts) for row in await services.control.sites.list()]


async def groups(services: Services, now: Fleet) -> list[api.GroupView]:
    """Return all groups with their counts and costs."""
    control = services.control
    machines = await control.instances.list()
    return [views.group(row, now.agents, machines, control.clock.now()) for row in await control.groups.list()]


async def sessions(services: Services, rows: Sequence[Session], caller: Caller) -> list[api.SessionView]:
    """Return sessions as views for a caller, who sees no secrets of those that are not theirs."""
    caller = await services.door.with_roles(caller)
    names = {row.id: row.name for row in await services.control.agents.list(states=EVER)}
    now = services.control.clock.now()
    return [views.session(row, now, names, services.address, whole=may_enter(caller, row)) for row in rows]


async def session(services: Services, row: Session, caller: Caller) -> api.SessionView:
    """Return one session as a view for a caller."""
    return (await sessions(services, [row], caller))[0]
