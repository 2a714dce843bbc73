"""Routes of agents' links: how they stand, and a ping over each lane."""

import msgspec

from atoll.client import linkviews as api
from federation.api.route import Access, Call, Page, Query, Route
from federation.control.linkfacts import LinkStanding, Pings
from tunnel.lanes import Use

_BASE = "/v1/links"


class ListQuery(Query):
    """Links of agents of one `site` or `group` only."""

    site: str = ""
    group: str = ""


class Ping(msgspec.Struct, kw_only=True):
    """How many pings to send over each way."""

    count: int = 5


async def list_(call: Call) -> Page[api.LinkView]:
    """Return how the links of all agents stand that belong to the installation, connected or not."""
    query: ListQuery = call.query
    rows = [
        row
        for row in await call.control.agents.list()
        if query.site in ("", row.site) and query.group in ("", row.group)
    ]
    return Page([view(call.control.linkfacts.standing(row)) for row in rows])


async def get(call: Call) -> api.LinkView:
    """Return how one agent's link stands."""
    return view(call.control.linkfacts.standing(await call.control.agents.get(call.path["ref"])))


async def ping(call: Call) -> api.PingView:
    """Ping an agent over its link and over a stream on each lane."""
    body: Ping = call.body
    row = await call.control.agents.get(call.path["ref"])
    found = await call.control.linkfacts.ping(row, body.count)
    return api.PingView(
        link=view(found.standing),
        choices=[
            api.ChoiceView(use=use, lane=found.choices[use].lane, why=found.choices[use].why)
            for use in Use
            if use in found.choices
        ],
        pings=[_pings("link", found.link), *(_pings(lane, found.lanes[lane]) for lane in found.lanes)],
    )


def view(standing: LinkStanding) -> api.LinkView:
    """Return how a link stands as people see it."""
    carried = standing.carried
    return api.LinkView(
        agent=standing.agent.id,
        name=standing.agent.name,
        site=standing.agent.site,
        group=standing.agent.group,
        connected=standing.connected,
        since=standing.since,
        silent_s=standing.silent_s,
        dropped_at=standing.dropped_at,
        drop_reason=standing.drop_reason,
        connects=standing.connects,
        drops=standing.drops,
        rtt_ms=milliseconds(standing.rtt),
        protocol=standing.protocol,
        proxy=standing.proxy,
        direct=standing.direct,
        doors=[str(way) for way in standing.ways],
        lanes=[
            api.LaneView(
                lane=lane,
                streams=carried.streams[lane],
                opens=tally.opens,
                resumes=tally.resumes,
                received=tally.received,
                sent=tally.sent,
                refused=tally.refused,
            )
            for lane, tally in carried.lanes.items()
        ],
        data=api.DataConnectionsView(
            ready=carried.held.ready,
            in_use=carried.held.in_use,
            pending=carried.held.pending,
            waiting=carried.held.waiting,
        ),
        buffered=carried.buffered,
    )


def _pings(way: str, pings: Pings) -> api.PingsView:
    least, middle, most = pings.spread or (None, None, None)
    return api.PingsView(
        way=way,
        sent=pings.sent,
        lost=pings.lost,
        min_ms=milliseconds(least),
        median_ms=milliseconds(middle),
        max_ms=milliseconds(most),
        error=pings.error,
    )


def milliseconds(seconds: float | None) -> float | None:
    """Return seconds as people see them, to the microsecond."""
    return None if seconds is None else round(seconds * 1000, 3)


ROUTES = (
    Route(
        method="GET", path=_BASE, handle=list_, access=Access.USER, query=ListQuery,
        answer=Page[api.LinkView], summary="List agents' links",
    ),
    Route(
        method="GET", path=_BASE + "/{ref}", handle=get, access=Access.USER,
        answer=api.LinkView, summary="Look at an agent's link",
    ),
    Route(
        method="POST", path=_BASE + "/{ref}:ping", handle=ping, access=Access.USER, body=Ping,
        answer=api.PingView, summary="Ping an agent over each lane",
    ),
)  # fmt: skip
