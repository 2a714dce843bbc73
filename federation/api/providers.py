"""Routes of providers: list, create, apply, look, delete, and what their clouds say: shapes, doctor, sweep, health."""

from typing import Any

import msgspec

from atoll.client import views as api
from atoll.document import provider as read
from atoll.states import InstanceState
from federation.api import views
from federation.api.documents import body_for
from federation.api.route import Access, Call, Page, Route

_BASE = "/v1/providers"


class Sweep(msgspec.Struct, kw_only=True):
    """With `dry_run` a sweep only says what it would do."""

    dry_run: bool = False


class Rotation(msgspec.Struct, kw_only=True):
    """The new credentials, all of them."""

    credentials: dict[str, Any]


async def _view(call: Call, name: str) -> api.ProviderView:
    row = await call.control.providers.get(name)
    machines = await call.control.instances.list(provider=name)
    return views.provider(row, sum(each.state is not InstanceState.GONE for each in machines))


async def list_(call: Call) -> Page[api.ProviderView]:
    """Return all providers with their number of live instances."""
    return Page([await _view(call, row.name) for row in await call.control.providers.list()])


async def create(call: Call) -> api.ProviderView:
    """Create a provider; 409 when it exists."""
    row = await call.control.providers.create(read(call.body))
    return await _view(call, row.name)


async def get(call: Call) -> api.ProviderView:
    """Return one provider."""
    return await _view(call, call.path["name"])


async def put(call: Call) -> api.ProviderView:
    """Create a provider or change it to what the document says."""
    row, _ = await call.control.providers.apply(read(body_for(call)))
    return await _view(call, row.name)


async def delete(call: Call) -> None:
    """Delete a provider without groups and instances."""
    await call.control.providers.delete(call.path["name"])


async def shapes(call: Call) -> Page[api.ShapeView]:
    """Return what the provider could make now, cheapest first, with whole-machine prices."""
    name = call.path["name"]
    await call.control.providers.get(name)
    found = [views.shape_offer(row) for row in await call.control.providers.shapes(name)]
    return Page(sorted(found, key=lambda offer: (offer.price == 0, offer.price, offer.target)))


async def doctor(call: Call) -> Page[api.FindingView]:
    """Return what the provider's driver found when it checked credential, rights and clock."""
    name = call.path["name"]
    await call.control.providers.get(name)
    found = await (await call.control.providers.driver(name)).doctor()
    return Page(
        [api.FindingView(check=f.check, ok=f.ok, message=f.message, hint=f.hint, details=f.details) for f in found]
    )


async def sweep(call: Call) -> Page[api.SweepFinding]:
    """Compare the provider's inventory with the store, and end what nobody owns."""
    body: Sweep = call.body
    name = call.path["name"]
    await call.control.providers.get(name)
    return Page([views.sweep(row) for row in await call.control.sweeper.sweep(name, dry_run=body.dry_run)])


async def health(call: Call) -> api.HealthView:
    """Return the account's limits, what is left alone for now, the credentials' age and the last sweep."""
    return views.health(await call.control.health.look(call.path["name"]))


async def rotate(call: Call) -> api.ProviderView:
    """Replace the credentials once the driver's doctor finds the new ones well; 409 and the old stay if not."""
    body: Rotation = call.body
    row = await call.control.providers.rotate(call.path["name"], body.credentials, by=call.caller.owner)
    return await _view(call, row.name)


ROUTES = (
    Route(
        method="GET", path=_BASE, handle=list_, access=Access.USER,
        answer=Page[api.ProviderView], summary="List providers",
    ),
    Route(
        method="POST", path=_BASE, handle=create, access=Access.ADMIN, status=201, body=dict[str, Any],
        answer=api.ProviderView, summary="Add a provider",
    ),
    Route(
        method="GET", path=_BASE + "/{name}", handle=get, access=Access.USER,
        answer=api.ProviderView, summary="Look at a provider",
    ),
    Route(
        method="PUT", path=_BASE + "/{name}", handle=put, access=Access.ADMIN, body=dict[str, Any],
        answer=api.ProviderView, summary="Add or change a provider",
    ),
    Route(
        method="DELETE", path=_BASE + "/{name}", handle=delete, access=Access.ADMIN, status=204,
        summary="Remove a provider without groups and instances",
    ),
    Route(
        method="GET", path=_BASE + "/{name}/shapes", handle=shapes, access=Access.USER,
        answer=Page[api.ShapeView], summary="What the provider could make now",
    ),
    Route(
        method="GET", path=_BASE + "/{name}/doctor", handle=doctor, access=Access.ADMIN,
        answer=Page[api.FindingView], summary="Check the provider without creating anything",
    ),
    Route(
        method="POST", path=_BASE + "/{name}:sweep", handle=sweep, access=Access.ADMIN, body=Sweep,
        answer=Page[api.SweepFinding], summary="Compare the cloud's inventory with ours",
    ),
    Route(
        method="GET", path=_BASE + "/{name}/health", handle=health, access=Access.USER,
        answer=api.HealthView, summary="Limits, pauses, credentials' age and last sweep",
    ),
    Route(
        method="POST", path=_BASE + "/{name}:rotate", handle=rotate, access=Access.ADMIN, body=Rotation,
        answer=api.ProviderView, summary="Replace the credentials by ones that work",
    ),
)  # fmt: skip
