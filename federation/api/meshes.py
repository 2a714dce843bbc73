"""Routes of meshes: list, look, join two sites, part them, change their gateways' keys."""

import msgspec

from atoll.client import mesh as api
from federation.api.route import Access, Call, Page, Route
from federation.control.mesh import EndStanding, Standing

_BASE = "/v1/meshes"
_ONE = _BASE + "/{site}/{other}"


class Join(msgspec.Struct, kw_only=True):
    """Which of their own networks each site lets the other reach, by site."""

    subnets: dict[str, list[str]] = {}


async def list_(call: Call) -> Page[api.MeshView]:
    """Return how all meshes are."""
    return Page([view(each) for each in await call.control.meshes.list()])


async def get(call: Call) -> api.MeshView:
    """Return how one mesh is; the order of its sites does not matter."""
    return view(await call.control.meshes.get(call.path["site"], call.path["other"]))


async def put(call: Call) -> api.MeshView:
    """Join two sites by WireGuard, or change what each lets the other reach."""
    body: Join = call.body
    by = call.caller.owner
    return view(await call.control.meshes.up(call.path["site"], call.path["other"], body.subnets, by=by))


async def delete(call: Call) -> None:
    """Part two sites."""
    await call.control.meshes.down(call.path["site"], call.path["other"], by=call.caller.owner)


async def rotate(call: Call) -> api.MeshView:
    """Have both gateways change their keys now."""
    return view(await call.control.meshes.rotate(call.path["site"], call.path["other"], by=call.caller.owner))


def view(standing: Standing) -> api.MeshView:
    """Return how a mesh is."""
    row = standing.mesh
    first, second = standing.ends
    return api.MeshView(
        state=row.state,
        message=row.message,
        hint=row.hint,
        ends=[_end(first), _end(second)],
        since=row.since,
        created_at=row.created_at,
    )


def _end(standing: EndStanding) -> api.MeshEndView:
    end, peer = standing.end, standing.peer
    return api.MeshEndView(
        site=end.site,
        networks=list(end.networks),
        subnets=list(end.subnets),
        agent=end.agent,
        agent_name=standing.agent_name,
        connected=standing.connected,
        addresses=list(end.addresses),
        key=end.key,
        next_key=end.next,
        keyed_at=end.keyed_at,
        endpoint=end.endpoint,
        endpoint_given=end.given,
        peer_endpoint=peer.endpoint if peer else "",
        handshake_s=standing.handshake_s,
        received=peer.received if peer else 0,
        sent=peer.sent if peer else 0,
    )


ROUTES = (
    Route(
        method="GET", path=_BASE, handle=list_, access=Access.USER,
        answer=Page[api.MeshView], summary="How all meshes are",
    ),
    Route(
        method="GET", path=_ONE, handle=get, access=Access.USER,
        answer=api.MeshView, summary="How a mesh is",
    ),
    Route(
        method="PUT", path=_ONE, handle=put, access=Access.ADMIN, body=Join,
        answer=api.MeshView, summary="Join two sites by WireGuard, or change what each lets the other reach",
    ),
    Route(
        method="DELETE", path=_ONE, handle=delete, access=Access.ADMIN, status=204,
        summary="Part two sites",
    ),
    Route(
        method="POST", path=_ONE + ":rotate", handle=rotate, access=Access.ADMIN,
        answer=api.MeshView, summary="Change the keys of both gateways now",
    ),
)  # fmt: skip
