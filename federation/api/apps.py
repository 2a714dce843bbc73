"""Routes of a session's apps: a link that opens one in a browser, and whom it lets in."""

import msgspec

from atoll.client import views as api
from atoll.session import AppAccess, Session
from federation.api import observe
from federation.api.auth import Caller, check_entry
from federation.api.grants import LINK_TTL_S, Purpose
from federation.api.route import Access, Call, Link, Route, Services
from federation.control.sharing import check_app

_BASE = "/v1/projects/{project}/sessions/{ref}/apps/{app}"


class Share(msgspec.Struct, kw_only=True):
    """`access`: owner, project or public."""

    access: AppAccess


def link_to(services: Services, caller: Caller, row: Session, app: str) -> str:
    """Return a URL that opens an app for a caller for a few minutes, with no grant in it where the app is public.

    Raises `NotFound` where there is no such app, `Forbidden` for a caller who may not enter it.
    """
    check_app(row, app)
    url = services.address.app_url(app, row.id)
    if services.door.is_public(row, app):
        return url
    check_entry(caller, row, app)
    grant = services.door.grants.issue(Purpose.LINK, caller.owner, ttl_s=LINK_TTL_S, audience=row.id)
    return f"{url}?atoll_grant={grant}"


async def link(call: Call) -> Link:
    """Return a link that opens an app of a session in a browser without a password."""
    row = await call.control.sessions.get(call.path["project"], call.path["ref"])
    return Link(link_to(call.services, call.caller, row, call.path["app"]))


async def share(call: Call) -> api.SessionView:
    """Open an app to its project or to everyone, or close it again; the session's owner and administrators may."""
    body: Share = call.body
    project, ref = call.path["project"], call.path["ref"]
    row = await call.control.sharing.share(project, ref, call.path["app"], body.access, by=call.caller.owner)
    return await observe.session(call.services, row, call.caller)


ROUTES = (
    Route(
        method="POST", path=_BASE + ":link", handle=link, access=Access.USER,
        answer=Link, summary="Make a link that opens an app in a browser",
    ),
    Route(
        method="POST", path=_BASE + ":share", handle=share, access=Access.OWNER, body=Share,
        answer=api.SessionView, summary="Say whom an app lets in",
    ),
)  # fmt: skip
