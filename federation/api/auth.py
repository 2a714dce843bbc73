"""Who a request comes from: the one function behind REST, pages, event streams, WebSockets and the gateway."""

from dataclasses import dataclass
from typing import Protocol

from aiohttp import web

from atoll.errors import Forbidden, Unauthorized
from atoll.policy import ADMIN
from atoll.session import Session
from atoll.token import Token
from federation.api.address import Address, same_origin
from federation.api.grants import Grants, Purpose

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
PAGE_COOKIE = "atoll_page"
APP_COOKIE = "atoll_app"
OUR_COOKIES = frozenset({PAGE_COOKIE, APP_COOKIE, f"__Host-{PAGE_COOKIE}", f"__Host-{APP_COOKIE}"})
"""Never passed on to an app."""


class Tokens(Protocol):
    """Where API tokens are checked: `control.tokens`."""

    async def authenticate(self, secret: str) -> Token:
        """Return the API token with this secret, or raise `Unauthorized`."""
        ...


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: `owner` goes into records; `by_cookie` when a browser vouches with its cookie: it has no `roles`.

    `token` is the id of the API token that was shown, empty where none was.
    """

    owner: str
    by_cookie: bool = False
    roles: tuple[str, ...] = ()
    token: str = ""


def may_enter(caller: Caller, session: Session) -> bool:
    """Say whether bytes may pass between a caller and a session's ports, apps and programs: the rule of every door.

    Its owner may, and administrators (S4).
    """
    return caller.owner == session.owner or ADMIN in caller.roles


def check_entry(caller: Caller, session: Session) -> None:
    """Raise `Forbidden` unless `may_enter`."""
    if not may_enter(caller, session):
        raise Forbidden(
            f"{session.name} belongs to {session.owner}: {caller.owner} may not enter it",
            hint="ask its owner, or an administrator",
        )


class Door:
    """Decides who a request comes from, or raises `Unauthorized` or `Forbidden`."""

    def __init__(self, tokens: Tokens, grants: Grants, address: Address) -> None:
        self.grants = grants
        self.address = address
        self._tokens = tokens

    async def caller(self, request: web.BaseRequest, *, session: str = "") -> Caller:
        """Return who asks for a page or the API or, with `session`, for one of that session's apps.

        A bearer token is good anywhere. A cookie is good on our own host names only, and where the
        request changes something or upgrades to a WebSocket, only from a page of this very origin.
        """
        scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and secret.startswith("atk_"):
            token = await self._tokens.authenticate(secret.strip())
            return Caller(token.owner, roles=token.roles, token=token.id)
        name, purpose = (APP_COOKIE, Purpose.APP) if session else (PAGE_COOKIE, Purpose.PAGE)
        cookie = request.cookies.get(cookie_name(request, name))
        if not cookie:
            raise Unauthorized(
                "you are not logged in", hint="send `Authorization: Bearer atk_…`, or open the link of `atoll open`"
            )
        if not session and not self.address.is_ours(request.host):
            raise Forbidden(f"{request.host} is not a name of this installation", hint="set server.public_url to it")
        owner = self.grants.check(cookie, purpose, audience=session).owner
        self._check_origin(request, required=not session)
        return Caller(owner, by_cookie=True)

    def _check_origin(self, request: web.BaseRequest, *, required: bool) -> None:
        upgrade = "upgrade" in request.headers.get("Connection", "").lower()
        if request.method in SAFE_METHODS and not upgrade:
            return
        origin = request.headers.get("Origin")
        if origin is None and not required and not upgrade:
            return
        if not same_origin(origin or "", request.host):
            raise Forbidden("this request comes from another site's page", hint="use an API token outside the pages")


def cookie_name(request: web.BaseRequest, name: str) -> str:
    """Return `name` as it is called on this connection: with TLS it has the `__Host-` prefix."""
    return f"__Host-{name}" if request.secure else name


def set_cookie(response: web.StreamResponse, request: web.BaseRequest, name: str, grant: str, ttl_s: float) -> None:
    """Give the browser a grant as a cookie of exactly this host, out of scripts' reach."""
    response.set_cookie(
        cookie_name(request, name),
        grant,
        max_age=int(ttl_s),
        path="/",
        secure=request.secure,
        httponly=True,
        samesite="Lax",
    )
