"""Routes of sites: list, create, apply, look, delete."""

from typing import Any

from atoll.client import views as api
from atoll.document import site as read
from federation.api import observe
from federation.api.documents import body_for
from federation.api.route import Access, Call, Page, Route

_BASE = "/v1/sites"


async def _view(call: Call, name: str) -> api.SiteView:
    await call.control.sites.get(name)
    known = await observe.sites(call.services, await observe.fleet(call.services))
    return next(each for each in known if each.name == name)


async def list_(call: Call) -> Page[api.SiteView]:
    """Return all sites with what is free there."""
    return Page(await observe.sites(call.services, await observe.fleet(call.services)))


async def create(call: Call) -> api.SiteView:
    """Create a site; 409 when it exists."""
    row = await call.control.sites.create(read(call.body))
    return await _view(call, row.name)


async def get(call: Call) -> api.SiteView:
    """Return one site."""
    return await _view(call, call.path["name"])


async def put(call: Call) -> api.SiteView:
    """Create a site or change it to what the document says."""
    row, _ = await call.control.sites.apply(read(body_for(call)))
    return await _view(call, row.name)


async def delete(call: Call) -> None:
    """Delete a site without groups."""
    await call.control.sites.delete(call.path["name"])


ROUTES = (
    Route(
        method="GET", path=_BASE, handle=list_, access=Access.USER,
        answer=Page[api.SiteView], summary="List sites",
    ),
    Route(
        method="POST", path=_BASE, handle=create, access=Access.ADMIN, status=201, body=dict[str, Any],
        answer=api.SiteView, summary="Create a site",
    ),
    Route(
        method="GET", path=_BASE + "/{name}", handle=get, access=Access.USER,
        answer=api.SiteView, summary="Look at a site",
    ),
    Route(
        method="PUT", path=_BASE + "/{name}", handle=put, access=Access.ADMIN, body=dict[str, Any],
        answer=api.SiteView, summary="Create or change a site",
    ),
    Route(
        method="DELETE", path=_BASE + "/{name}", handle=delete, access=Access.ADMIN, status=204,
        summary="Delete a site without groups",
    ),
)  # fmt: skip
