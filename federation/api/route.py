"""The route table's row, from which routing, OpenAPI and the access test are made."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, TypeAlias, TypeVar

import msgspec
from aiohttp import web

from atoll.clock import Chance
from federation.api.address import Address
from federation.api.agentpack import AgentPack
from federation.api.auth import Caller, Door
from federation.api.failures import Failures
from federation.api.plane import Plane
from tunnel.metrics import Family
from tunnel.sshkeys import SshKeys

Item = TypeVar("Item")
MAX_BODY = 1024 * 1024
"""Bytes of a request to the API unless its route says otherwise; users' traffic to apps is not limited."""


MONITOR = "monitor"
"""The role that may read the figures, and whatever every user may."""


class Access(StrEnum):
    """Who may use a route."""

    OPEN = "open"  # anyone who can reach the port
    USER = "user"  # the bearer of an API token, or a logged-in browser; in a project, one of its members
    OWNER = "owner"  # the owner of the session in the path, or an administrator
    MONITOR = "monitor"  # the bearer of an API token with the role `monitor` or `admin`
    ADMIN = "admin"  # the bearer of an API token with the role `admin`


class Page(msgspec.Struct, Generic[Item]):
    """One page of a list; `next` is the `after` of the following one, empty on the last."""

    items: list[Item]
    next: str = ""


class Link(msgspec.Struct):
    """A URL for a browser, good for a few minutes."""

    url: str


class Query(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Base of the query parameters of a route: fields are parameters, unknown ones are refused."""


class NoQuery(Query):
    """No parameters."""


@dataclass(slots=True)
class Services:
    """What all handlers share. `closing` is set when the server is about to stop: streams end then.

    `figures` are asked for what the control plane itself does not know of: the port, the event loop. `take` serves an
    agent's connection that came from an address inside something else, False where it does not. `failures` slows those
    who guess.
    """

    control: Plane
    door: Door
    address: Address
    chance: Chance
    pack: AgentPack
    ssh: SshKeys
    figures: list[Callable[[], list[Family]]] = field(default_factory=list)
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    take: Callable[[socket.socket, str], bool] | None = None
    failures: Failures = field(init=False)

    def __post_init__(self) -> None:
        self.failures = Failures(self.control.clock)


@dataclass(slots=True)
class Call:
    """One request, checked and decoded: what a handler gets."""

    request: web.Request
    services: Services
    caller: Caller
    path: Mapping[str, str]
    query: Any
    body: Any

    @property
    def control(self) -> Plane:
        """The control plane."""
        return self.services.control

    @property
    def now(self) -> float:
        """Unix seconds."""
        return self.services.control.clock.now()


Handle: TypeAlias = Callable[[Call], Awaitable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One row. `path` has `{name}` parts; `access` must be given, None is refused when the table is built.

    `handle` returns an object of type `answer` (None: no body), or a response of its own for `content`
    other than JSON. `limit` is how many bytes a request's body may have.
    """

    method: str
    path: str
    handle: Handle
    summary: str
    access: Access | None = None
    answer: Any = None
    status: int = 200
    query: type[Query] = NoQuery
    body: Any = None
    content: str = "application/json"
    limit: int = MAX_BODY
