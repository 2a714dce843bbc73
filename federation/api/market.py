"""Routes about what runs cost and where they could: offers, instances, usage."""

from typing import Any

import msgspec

from atoll.client import views as api
from atoll.document import session_spec
from atoll.policy import COMMON
from atoll.states import InstanceState
from federation.api import views
from federation.api.auth import check_member
from federation.api.route import Access, Call, Page, Query, Route


class Search(msgspec.Struct, kw_only=True):
    """`spec` is a session's document, `project` that of the session."""

    spec: dict[str, Any]
    project: str = COMMON


class InstancesQuery(Query):
    """`live=1` leaves out those that are gone."""

    group: str = ""
    provider: str = ""
    live: bool = False


class UsageQuery(Query):
    """From this time on, in Unix seconds."""

    since: float = 0.0


async def search(call: Call) -> api.DecisionView:
    """Return where a session would run now, ranked, and why not elsewhere; nothing is started."""
    body: Search = call.body
    check_member(await call.services.door.with_roles(call.caller), body.project)
    spec = session_spec(body.spec)
    return views.decision(await call.control.offers.search(spec, project=body.project, owner=call.caller.owner))


async def instances(call: Call) -> Page[api.InstanceView]:
    """Return machines at providers, from intent to their observed end."""
    query: InstancesQuery = call.query
    rows = await call.control.instances.list(group=query.group, provider=query.provider)
    return Page(
        [views.instance(row, call.now) for row in rows if not query.live or row.state is not InstanceState.GONE]
    )


async def usage(call: Call) -> api.UsageView:
    """Return cost by site and group."""
    query: UsageQuery = call.query
    return views.usage(await call.control.usage.summary(query.since))


ROUTES = (
    Route(
        method="POST", path="/v1/offers:search", handle=search, access=Access.USER, body=Search,
        answer=api.DecisionView, summary="Rank offers for a session without running it",
    ),
    Route(
        method="GET", path="/v1/instances", handle=instances, access=Access.USER, query=InstancesQuery,
        answer=Page[api.InstanceView], summary="List instances",
    ),
    Route(
        method="GET", path="/v1/usage", handle=usage, access=Access.USER, query=UsageQuery,
        answer=api.UsageView, summary="Cost by site and group",
    ),
)  # fmt: skip
