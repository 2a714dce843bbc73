"""Meshes as the API shows them, and the calls about them."""

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from atoll.client.calls import Call
from atoll.client.views import View


class MeshEndView(View):
    """One site of a mesh and its gateway, an agent.

    `networks` are the site's prefixes in meshes, `addresses` the gateway's own there, `subnets` are the site's networks
    that the other may reach. `key` is the gateway's public key since `keyed_at`, `next_key` the one that is to follow.
    `endpoint` is where it should be reached by UDP (`endpoint_given`: its owner says so), `peer_endpoint` where it sees
    the other. `handshake_s` is how long ago it last shook hands with the other (None: never); `received` and `sent` are
    its bytes from and to it.
    """

    site: str
    networks: list[str]
    subnets: list[str]
    agent: str
    agent_name: str
    connected: bool
    addresses: list[str]
    key: str
    next_key: str
    keyed_at: float
    endpoint: str
    endpoint_given: bool
    peer_endpoint: str
    handshake_s: float | None
    received: int
    sent: int


class MeshView(View):
    """Two sites joined by WireGuard. `state` is pending, up, degraded or down, since `since`; `message` says why."""

    state: str
    message: str
    hint: str
    ends: list[MeshEndView]
    since: float
    created_at: float


def one(site: str, other: str) -> Call[MeshView]:
    """Look at the mesh of two sites."""
    return Call(method="GET", path=_path(site, other), answer=MeshView)


def up(site: str, other: str, subnets: Mapping[str, Sequence[str]]) -> Call[MeshView]:
    """Join two sites; `subnets` are the networks that each lets the other reach."""
    body = {"subnets": {name: list(networks) for name, networks in subnets.items()}}
    return Call(method="PUT", path=_path(site, other), answer=MeshView, body=body)


def down(site: str, other: str) -> Call[None]:
    """Part two sites."""
    return Call(method="DELETE", path=_path(site, other), answer=type(None))


def rotate(site: str, other: str) -> Call[MeshView]:
    """Change the keys of both gateways."""
    return Call(method="POST", path=f"{_path(site, other)}:rotate", answer=MeshView)


def _path(site: str, other: str) -> str:
    return f"/v1/meshes/{quote(site, safe='')}/{quote(other, safe='')}"
