"""Routes of sessions: submit, list, look, stop, and why."""

import hashlib
from typing import Any

import msgspec

from atoll.client import views as api
from atoll.document import session_spec
from atoll.errors import Invalid
from atoll.states import SessionState
from atoll.suggest import hint
from federation.api import observe, views
from federation.api.route import Access, Call, Page, Query, Route

MAX_COUNT = 10_000
MAX_PAGE = 1000
_BASE = "/v1/projects/{project}/sessions"


class Submission(msgspec.Struct, kw_only=True):
    """`spec` is a session's document; `count` makes as many of them, told apart by `ATOLL_INDEX`."""

    spec: dict[str, Any]
    count: int = 1


class Approval(msgspec.Struct, kw_only=True):
    """`role`: as which of the caller's roles; empty: as each that the session's policies know."""

    role: str = ""


class Destination(msgspec.Struct, kw_only=True):
    """Where a session is to go on: a site's name, or an agent's name or id; empty: wherever the router puts it."""

    to: str = ""


class ListQuery(Query):
    """`state`: one or more, by comma; `live=1`: only sessions that have not ended."""

    state: str = ""
    live: bool = False
    after: str = ""
    limit: int = 100


async def submit(call: Call) -> Page[api.SessionView]:
    """Queue one session, or `count` alike. With `Idempotency-Key` a repeat returns the first answer."""
    body: Submission = call.body
    if not 1 <= body.count <= MAX_COUNT:
        raise Invalid(f"count is {body.count}", hint=f"1 to {MAX_COUNT}")
    spec = session_spec(body.spec)
    call.control.sharing.check(spec)
    rows = await call.control.sessions.submit(
        spec,
        project=call.path["project"],
        owner=call.caller.owner,
        count=body.count,
        idempotency=_idempotency(call, body),
    )
    return Page(await observe.sessions(call.services, rows, call.caller))


def _idempotency(call: Call, body: Submission) -> tuple[str, str] | None:
    key = call.request.headers.get("Idempotency-Key", "")
    if not key:
        return None
    if len(key) > 200 or not key.isprintable():
        raise Invalid("Idempotency-Key must be 1 to 200 printable characters")
    # Bound to caller and project: nobody learns or blocks another's answer by guessing a key.
    scope = f"{call.caller.owner}/{call.path['project']}/{key}"
    fingerprint = hashlib.sha256(msgspec.json.encode(body, order="deterministic")).hexdigest()
    return scope, fingerprint


async def list_(call: Call) -> Page[api.SessionView]:
    """Return sessions, newest first."""
    query: ListQuery = call.query
    states = [part for part in query.state.split(",") if part]
    known = [str(state) for state in SessionState]
    for state in states:
        if state not in known:
            raise Invalid(f"{state!r} is not a session state", hint=hint(state, known, ", ".join(known)))
    if query.live:
        ended = {"succeeded", "failed", "cancelled", "expired"}
        states = [state for state in (states or known) if state not in ended]
        if not states:
            return Page([])
    limit = page_size(query.limit)
    rows = await call.control.sessions.list(call.path["project"], states=states, after=query.after, limit=limit)
    return Page(await observe.sessions(call.services, rows, call.caller), rows[-1].id if len(rows) == limit else "")


def page_size(limit: int) -> int:
    """Return a page size within bounds, or raise `Invalid`."""
    if not 1 <= limit <= MAX_PAGE:
        raise Invalid(f"limit is {limit}", hint=f"1 to {MAX_PAGE}")
    return limit


async def get(call: Call) -> api.SessionView:
    """Return one session by id or name."""
    row = await call.control.sessions.get(call.path["project"], call.path["ref"])
    return await observe.session(call.services, row, call.caller)


async def stop(call: Call) -> api.SessionView:
    """Stop a session: TERM, its grace period, then KILL of the whole tree."""
    row = await call.control.sessions.stop(call.path["project"], call.path["ref"], by=call.caller.owner)
    return await observe.session(call.services, row, call.caller)


async def approve(call: Call) -> api.SessionView:
    """Approve a session that its policy holds until somebody with a role says so."""
    body: Approval = call.body
    project, ref, caller = call.path["project"], call.path["ref"], call.caller
    row = await call.control.approvals.approve(project, ref, by=caller.owner, has=caller.roles, role=body.role)
    return await observe.session(call.services, row, call.caller)


async def move(call: Call) -> api.SessionView:
    """Ask a session for a checkpoint, upon which it goes on elsewhere; one that takes none in its time stays."""
    body: Destination = call.body
    row = await call.control.moves.request(call.path["project"], call.path["ref"], body.to, by=call.caller.owner)
    return await observe.session(call.services, row, call.caller)


async def why(call: Call) -> api.WhyView:
    """Return why a session is as it is, with the decisions that led there."""
    return views.why(await call.control.why.session(call.path["project"], call.path["ref"]))


ROUTES = (
    Route(
        method="POST", path=_BASE, handle=submit, access=Access.USER, status=201, body=Submission,
        answer=Page[api.SessionView], summary="Queue sessions; takes Idempotency-Key",
    ),
    Route(
        method="GET", path=_BASE, handle=list_, access=Access.USER, query=ListQuery,
        answer=Page[api.SessionView], summary="List sessions, newest first",
    ),
    Route(
        method="GET", path=_BASE + "/{ref}", handle=get, access=Access.USER,
        answer=api.SessionView, summary="Look at a session",
    ),
    Route(
        method="POST", path=_BASE + "/{ref}:stop", handle=stop, access=Access.OWNER,
        answer=api.SessionView, summary="Stop a session",
    ),
    Route(
        method="POST", path=_BASE + "/{ref}:approve", handle=approve, access=Access.USER, body=Approval,
        answer=api.SessionView, summary="Approve a session as one of one's roles",
    ),
    Route(
        method="POST", path=_BASE + "/{ref}:move", handle=move, access=Access.OWNER, body=Destination,
        answer=api.SessionView, summary="Move a session that takes checkpoints",
    ),
    Route(
        method="GET", path=_BASE + "/{ref}/why", handle=why, access=Access.USER,
        answer=api.WhyView, summary="Explain a session's state",
    ),
)  # fmt: skip
