"""Routes of agents: list, look, cordon, uncordon, remove, revoke, and why."""

import msgspec

from atoll import duration
from atoll.client import views as api
from federation.api import observe, views
from federation.api.route import Access, Call, Page, Query, Route

_BASE = "/v1/agents"


class ListQuery(Query):
    """`all=1` shows agents that have left or whose machine is gone, too."""

    all: bool = False
    site: str = ""
    group: str = ""


class Cordon(msgspec.Struct, kw_only=True):
    """After `deadline` seconds (absent: never) sessions with a checkpoint that are not protected are moved off it."""

    deadline: float | None = None


async def list_(call: Call) -> Page[api.AgentView]:
    """Return agents with their link state and free slots."""
    query: ListQuery = call.query
    found = [
        each
        for each in (await observe.fleet(call.services)).agents
        if (query.all or each.ended_at is None) and query.site in ("", each.site) and query.group in ("", each.group)
    ]
    return Page(found)


async def get(call: Call) -> api.AgentView:
    """Return one agent by id or name."""
    row = await call.control.agents.get(call.path["ref"])
    return (await observe.fleet(call.services)).of(row.id)


async def cordon(call: Call) -> api.AgentView:
    """Let an agent take no new session, and move off it what can be moved once the deadline, if any, is over."""
    body: Cordon = call.body
    deadline_s = None if body.deadline is None else duration.parse(body.deadline)
    await call.control.agents.cordon(call.path["ref"], by=call.caller.owner, deadline_s=deadline_s)
    return await get(call)


async def uncordon(call: Call) -> api.AgentView:
    """Let an agent take sessions again; a deadline is cancelled."""
    await call.control.agents.uncordon(call.path["ref"], by=call.caller.owner)
    return await get(call)


async def remove(call: Call) -> api.AgentView:
    """Take an agent out of the installation."""
    row = await call.control.agents.get(call.path["ref"])
    await call.control.agents.remove(row.id, by=call.caller.owner)
    return (await observe.fleet(call.services)).of(row.id)


async def revoke(call: Call) -> api.AgentView:
    """Make an agent's certificate worth nothing, and end its link with all streams at once."""
    row = await call.control.agents.revoke(call.path["ref"], by=call.caller.owner)
    return (await observe.fleet(call.services)).of(row.id)


async def why(call: Call) -> api.WhyView:
    """Return why an agent is as it is."""
    return views.why(await call.control.why.agent(call.path["ref"]))


ROUTES = (
    Route(
        method="GET", path=_BASE, handle=list_, access=Access.USER, query=ListQuery,
        answer=Page[api.AgentView], summary="List agents",
    ),
    Route(
        method="GET", path=_BASE + "/{ref}", handle=get, access=Access.USER,
        answer=api.AgentView, summary="Look at an agent",
    ),
    Route(
        method="POST", path=_BASE + "/{ref}:cordon", handle=cordon, access=Access.ADMIN, body=Cordon,
        answer=api.AgentView, summary="Let an agent take no new session",
    ),
    Route(
        method="POST", path=_BASE + "/{ref}:uncordon", handle=uncordon, access=Access.ADMIN,
        answer=api.AgentView, summary="Let an agent take sessions again",
    ),
    Route(
        method="POST", path=_BASE + "/{ref}:remove", handle=remove, access=Access.ADMIN,
        answer=api.AgentView, summary="Take an agent out of the installation",
    ),
    Route(
        method="POST", path=_BASE + "/{ref}:revoke", handle=revoke, access=Access.ADMIN,
        answer=api.AgentView, summary="Make an agent's certificate worth nothing, at once",
    ),
    Route(
        method="GET", path=_BASE + "/{ref}/why", handle=why, access=Access.USER,
        answer=api.WhyView, summary="Explain an agent's state",
    ),
)  # fmt: skip
