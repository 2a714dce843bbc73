"""Routes of the installation as a whole: status, health, events, the watch stream."""

import msgspec
from aiohttp import web

from atoll.client import views as api
from atoll.errors import Invalid
from atoll.suggest import hint
from federation.api import views
from federation.api.auth import may_see
from federation.api.route import Access, Call, Page, Query, Route
from federation.api.stream import watch as watch_stream

KINDS = (
    "session",
    "agent",
    "group",
    "instance",
    "site",
    "provider",
    "token",
    "plan",
    "price",
    "policy",
    "budget",
    "relay",
    "ca",
    "mesh",
)


class Health(msgspec.Struct):
    """`ok`, or what is wrong."""

    status: str


class EventsQuery(Query):
    """Events after rev `since`, of `kinds` (by comma; empty: all)."""

    since: int = 0
    limit: int = 500
    kinds: str = ""


class WatchQuery(Query):
    """`since` is the last rev already seen; empty: from now on."""

    kinds: str = ""
    since: int | None = None


async def status(call: Call) -> api.StatusView:
    """Return the installation in one look."""
    return views.status(await call.control.status())


async def healthz(call: Call) -> Health:  # noqa: ARG001 - every handler takes the call
    """Say that the process answers."""
    return Health("ok")


async def readyz(call: Call) -> Health:
    """Say that the store answers, too."""
    await call.control.store.last_rev()
    return Health("ok")


async def events(call: Call) -> Page[api.EventView]:
    """Return changes in the order in which they were committed."""
    query: EventsQuery = call.query
    limit = max(1, min(query.limit, 1000))
    rows = await call.control.store.events(query.since, limit=limit, kinds=_kinds(query.kinds))
    caller = await call.services.door.with_roles(call.caller)
    seen = [views.event(row) for row in rows if may_see(caller, row)]
    return Page(seen, str(rows[-1].rev) if len(rows) == limit else "")


async def watch(call: Call) -> web.StreamResponse:
    """Stream changes as they happen; `Last-Event-ID` or `since` continues without a gap."""
    query: WatchQuery = call.query
    kinds = _kinds(query.kinds)
    seen = call.request.headers.get("Last-Event-ID", "")
    since = int(seen) if seen.isdecimal() else query.since
    if since is None:
        since = await call.control.store.last_rev()
    return await watch_stream(call, since, kinds)


def _kinds(text: str) -> list[str]:
    kinds = [part for part in text.split(",") if part]
    for kind in kinds:
        if kind not in KINDS:
            raise Invalid(f"there are no events of kind {kind!r}", hint=hint(kind, KINDS, ", ".join(KINDS)))
    return kinds


ROUTES = (
    Route(
        method="GET", path="/healthz", handle=healthz, access=Access.OPEN, answer=Health,
        summary="Whether the process answers",
    ),
    Route(
        method="GET", path="/readyz", handle=readyz, access=Access.OPEN, answer=Health,
        summary="Whether the store answers",
    ),
    Route(
        method="GET", path="/v1/status", handle=status, access=Access.USER, answer=api.StatusView,
        summary="The installation in one look",
    ),
    Route(
        method="GET", path="/v1/events", handle=events, access=Access.USER, query=EventsQuery,
        answer=Page[api.EventView], summary="Changes, in the order of their commits",
    ),
    Route(
        method="GET", path="/v1/watch", handle=watch, access=Access.USER, query=WatchQuery,
        answer=api.EventView, content="text/event-stream", summary="Stream changes as they happen",
    ),
)  # fmt: skip
