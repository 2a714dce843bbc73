"""Routes of groups: list, create, apply, look, delete, and the decisions about them."""

from typing import Any

import msgspec

from atoll import duration
from atoll.client import views as api
from atoll.document import group as read
from atoll.plan import Note, Step
from federation.api import observe, views
from federation.api.documents import body_for
from federation.api.route import Access, Call, Page, Query, Route

_BASE = "/v1/groups"


class DecisionsQuery(Query):
    """How many plans to look back."""

    limit: int = 50


class Resize(msgspec.Struct, kw_only=True):
    """New bounds; what is absent stays."""

    min: int | None = None
    max: int | None = None


class Terminate(msgspec.Struct, kw_only=True):
    """With `now` the group's instances end at once, whatever runs there; else when they are empty.

    After `deadline` seconds (absent: never) sessions with a checkpoint that are not protected are moved off them.
    """

    now: bool = False
    deadline: float | None = None


async def _view(call: Call, name: str) -> api.GroupView:
    row = await call.control.groups.get(name)
    known = await observe.fleet(call.services)
    machines = await call.control.instances.list(group=name)
    return views.group(row, known.agents, machines, call.now)


async def list_(call: Call) -> Page[api.GroupView]:
    """Return all groups with their counts."""
    return Page(await observe.groups(call.services, await observe.fleet(call.services)))


async def create(call: Call) -> api.GroupView:
    """Create a group; 409 when it exists."""
    row = await call.control.groups.create(read(call.body))
    return await _view(call, row.name)


async def get(call: Call) -> api.GroupView:
    """Return one group."""
    return await _view(call, call.path["name"])


async def put(call: Call) -> api.GroupView:
    """Create a group or change it to what the document says."""
    row, _ = await call.control.groups.apply(read(body_for(call)))
    return await _view(call, row.name)


async def delete(call: Call) -> None:
    """Delete a group that has no agents and no instances."""
    await call.control.groups.delete(call.path["name"])


async def resize(call: Call) -> api.GroupView:
    """Change an elastic group's bounds."""
    body: Resize = call.body
    row = await call.control.groups.resize(call.path["name"], least=body.min, most=body.max, by=call.caller.owner)
    return await _view(call, row.name)


async def terminate(call: Call) -> api.GroupView:
    """Close an elastic group: its size becomes 0..0 and its instances go, with `now` whatever runs there."""
    body: Terminate = call.body
    row = await call.control.groups.terminate(
        call.path["name"],
        now=body.now,
        by=call.caller.owner,
        deadline_s=None if body.deadline is None else duration.parse(body.deadline),
    )
    return await _view(call, row.name)


async def why(call: Call) -> api.WhyView:
    """Return why a group has the size it has."""
    return views.why(await call.control.why.group(call.path["name"]))


async def decisions(call: Call) -> Page[api.StepView]:
    """Return the newest steps and decisions not to act, of this group, newest first."""
    name, query = call.path["name"], call.query
    await call.control.groups.get(name)
    found = []
    for plan in await call.control.groups.plans(name, max(1, min(query.limit, 500))):
        rows: tuple[Step | Note, ...] = (*plan.steps, *plan.notes)
        found += [views.step(row, plan.id, plan.at) for row in rows if row.group == name]
    return Page(found)


ROUTES = (
    Route(
        method="GET", path=_BASE, handle=list_, access=Access.USER,
        answer=Page[api.GroupView], summary="List groups",
    ),
    Route(
        method="POST", path=_BASE, handle=create, access=Access.ADMIN, status=201, body=dict[str, Any],
        answer=api.GroupView, summary="Create a group",
    ),
    Route(
        method="GET", path=_BASE + "/{name}", handle=get, access=Access.USER,
        answer=api.GroupView, summary="Look at a group",
    ),
    Route(
        method="PUT", path=_BASE + "/{name}", handle=put, access=Access.ADMIN, body=dict[str, Any],
        answer=api.GroupView, summary="Create or change a group",
    ),
    Route(
        method="DELETE", path=_BASE + "/{name}", handle=delete, access=Access.ADMIN, status=204,
        summary="Delete an empty group",
    ),
    Route(
        method="GET", path=_BASE + "/{name}/why", handle=why, access=Access.USER,
        answer=api.WhyView, summary="Explain a group's size",
    ),
    Route(
        method="GET", path=_BASE + "/{name}/decisions", handle=decisions, access=Access.USER, query=DecisionsQuery,
        answer=Page[api.StepView], summary="The group's decision log, newest first",
    ),
    Route(
        method="POST", path=_BASE + "/{name}:resize", handle=resize, access=Access.ADMIN, body=Resize,
        answer=api.GroupView, summary="Change a group's bounds",
    ),
    Route(
        method="POST", path=_BASE + "/{name}:terminate", handle=terminate, access=Access.ADMIN, body=Terminate,
        answer=api.GroupView, summary="Close a group, at once or as its sessions end",
    ),
)  # fmt: skip
