"""Routes of the records of users' streams: a session's for its owner, all for administrators."""

from collections.abc import Sequence

from atoll.client import linkviews as api
from atoll.streamrecord import Sighting, StreamRecord
from federation.api.route import Access, Call, Page, Query, Route
from federation.control.streamlog import CONTROL

LIMIT = 1000


class RecordsQuery(Query):
    """A page of at most `limit` records, newest first; `after` is the `next` of the page before."""

    after: str = ""
    limit: int = 100


class AllQuery(RecordsQuery):
    """Those of one `user`, `session` (its id) or `project` only."""

    user: str = ""
    session: str = ""
    project: str = ""


async def of_session(call: Call) -> Page[api.StreamRecordView]:
    """Return who reached a session: for its owner and administrators."""
    query: RecordsQuery = call.query
    row = await call.control.sessions.get(call.path["project"], call.path["ref"])
    return _page(await call.control.records.list(session=row.id, after=query.after, limit=_limit(query)), query)


async def of_all(call: Call) -> Page[api.StreamRecordView]:
    """Return who reached what."""
    query: AllQuery = call.query
    found = await call.control.records.list(
        project=query.project, session=query.session, user=query.user, after=query.after, limit=_limit(query)
    )
    return _page(found, query)


def _limit(query: RecordsQuery) -> int:
    return max(1, min(query.limit, LIMIT))


def _page(found: Sequence[StreamRecord], query: RecordsQuery) -> Page[api.StreamRecordView]:
    return Page([view(row) for row in found], found[-1].id if len(found) == _limit(query) else "")


def view(row: StreamRecord) -> api.StreamRecordView:
    """Return a record as people see it."""
    return api.StreamRecordView(
        id=row.id,
        state=row.state,
        project=row.project,
        session=row.session,
        run=row.run,
        user=row.user,
        door=row.door,
        app=row.app,
        port=row.port,
        exec=row.exec,
        source=row.source,
        lanes=list(row.lanes),
        ways=[_way(each) for each in row.seen if not each.whole],
        streams=row.streams,
        resumed=row.resumed,
        received=row.received,
        sent=row.sent,
        reason=row.reason,
        message=row.message,
        began_at=row.began_at,
        ended_at=row.ended_at,
    )


def _way(each: Sighting) -> api.StreamWayView:
    return api.StreamWayView(
        via=each.via or CONTROL,
        lane=each.lane,
        source=each.source,
        resumed=each.resumed,
        received=each.received,
        sent=each.sent,
        reason=each.reason,
        message=each.message,
        began_at=each.began_at,
        ended_at=each.ended_at,
    )


ROUTES = (
    Route(
        method="GET", path="/v1/projects/{project}/sessions/{ref}/streams", handle=of_session, access=Access.OWNER,
        query=RecordsQuery, answer=Page[api.StreamRecordView], summary="List who reached a session",
    ),
    Route(
        method="GET", path="/v1/audit/streams", handle=of_all, access=Access.ADMIN, query=AllQuery,
        answer=Page[api.StreamRecordView], summary="List who reached what",
    ),
)  # fmt: skip
