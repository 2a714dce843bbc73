"""Who a request comes from: the one function behind REST, pages, event streams, WebSockets and the gateway."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from aiohttp import web

from atoll.errors import AtollError, Forbidden, Unauthorized
from atoll.event import Event
from atoll.policy import ADMIN, COMMON, MEMBER
from atoll.session import AppAccess, Session
from atoll.token import Token
from federation.api.address import Address, same_origin
from federation.api.grants import Grants, Purpose

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
PAGE_COOKIE = "atoll_page"
APP_COOKIE = "atoll_app"
OUR_COOKIES = frozenset(
    {PAGE_COOKIE, APP_COOKIE, f"__Host-{PAGE_COOKIE}", f"__Host-{APP_COOKIE}", f"__Secure-{APP_COOKIE}"}
)
"""Never passed on to an app."""


class Tokens(Protocol):
    """Where API tokens are checked: `control.tokens`."""

    async def authenticate(self, secret: str) -> Token:
        """Return the API token with this secret, or raise `Unauthorized`."""
        ...

    async def standing(self, owner: str, token: str = "") -> tuple[str, ...] | None:
        """Return the roles that a user's API tokens give, or just the one with this id; None where there is none."""
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


ANYONE = Caller("")
"""A visitor of a public app, of whom nothing is known."""


def check_admin(caller: Caller, text: str = "is no administrator") -> None:
    """Raise `Forbidden` for a caller who is no administrator; `text` says what they may not."""
    if ADMIN not in caller.roles:
        raise Forbidden(f"{caller.owner} {text}", hint="use a token with the role admin: atoll token create --api")


def is_member(caller: Caller, project: str) -> bool:
    """Say whether a caller may run sessions in a project and see those that are there."""
    return project == COMMON or ADMIN in caller.roles or MEMBER + project in caller.roles


def check_member(caller: Caller, project: str) -> None:
    """Raise `Forbidden` unless `is_member`."""
    if not is_member(caller, project):
        raise Forbidden(
            f"{caller.owner} is no member of the project {project}",
            hint=f"use a token with the role {MEMBER}{project}: an administrator can make one",
        )


def may_see(caller: Caller, event: Event) -> bool:
    """Say whether a caller may hear of an event: of sessions in projects of theirs, and of all that is shared."""
    return event.kind != "session" or is_member(caller, event.data.get("project", COMMON))


def may_enter(caller: Caller, session: Session, app: str = "") -> bool:
    """Say whether a session is a caller's to read, to enter and to stop: the rule of every door (S4).

    Its owner may, and administrators; by the gateway into an `app` that is open to its project, members too.
    """
    if not caller.owner:
        return False
    if caller.owner == session.owner or ADMIN in caller.roles:
        return True
    shared = bool(app) and session.spec.rule(app).access is AppAccess.PROJECT
    return shared and MEMBER + session.project in caller.roles


def check_entry(caller: Caller, session: Session, app: str = "") -> None:
    """Raise `Forbidden` unless `may_enter`."""
    if may_enter(caller, session, app):
        return
    what, advice = session.name, "ask its owner, or an administrator"
    if app:
        what, advice = f"{session.name}'s app {app}", f"its owner can open it: atoll share {session.name} {app}"
        if session.spec.rule(app).access is AppAccess.PROJECT:
            advice = f"it is open to those with the role {MEMBER}{session.project}"
    raise Forbidden(f"{what} belongs to {session.owner}, not to {caller.owner}", hint=advice)


class Door:
    """Decides who a request comes from, or raises `Unauthorized` or `Forbidden`.

    `public` says whether this installation has public apps at all; else those that ask for it are their owner's.
    """

    def __init__(self, tokens: Tokens, grants: Grants, address: Address, *, public: bool = False) -> None:
        self.grants = grants
        self.address = address
        self._tokens = tokens
        self.public = public

    def is_public(self, session: Session, app: str) -> bool:
        """Say whether anyone may enter an app."""
        return self.public and session.spec.rule(app).access is AppAccess.PUBLIC

    async def visitor(
        self, request: web.BaseRequest, session: Session, app: str, refused: Callable[[Caller, AtollError], None]
    ) -> Caller:
        """Return who asks for an app of a session, and may enter it: the gateway asks this for every request.

        Of a public app's visitors who show nothing that lets them in, `ANYONE`. Tells `refused` of a known caller
        who may not; raises `Unauthorized` or `Forbidden`.
        """
        caller = ANYONE
        try:
            caller = await self.caller(request, session=session.id)
            caller = await self.with_roles(caller)
            check_entry(caller, session, app)
        except (Unauthorized, Forbidden) as error:
            if self.is_public(session, app):
                return ANYONE
            if caller != ANYONE:
                refused(caller, error)
            raise
        return caller

    async def as_of_now(self, caller: Caller) -> Caller:
        """Return a caller with the roles that their API tokens give now; raise `Unauthorized` where none is left."""
        roles = await self._tokens.standing(caller.owner, caller.token)
        if roles is None:
            raise Unauthorized("your API token was deleted", hint="log in again with another one")
        return replace(caller, roles=roles)

    async def with_roles(self, caller: Caller) -> Caller:
        """Return who a browser's cookie vouches for with their roles of now; others as they are."""
        return await self.as_of_now(caller) if caller.by_cookie else caller

    async def over(self, caller: Caller, session: Session, app: str) -> AtollError | None:
        """Return why a visitor of an app has to leave it, None while they may stay."""
        if self.is_public(session, app):
            return None
        if caller == ANYONE:
            return Forbidden(f"{session.name}'s app {app} is public no more", hint="ask its owner")
        try:
            check_entry(await self.as_of_now(caller), session, app)
        except (Unauthorized, Forbidden) as error:
            return error
        return None

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
        below = bool(session) and self.address.has_paths(request.host)
        cookie = request.cookies.get(cookie_name(request, name, below=below))
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


def cookie_name(request: web.BaseRequest, name: str, *, below: bool = False) -> str:
    """Return `name` as it is called on this connection: with TLS it has the `__Host-` prefix.

    A cookie for what is `below` a path cannot have that one (RFC 6265bis): `__Secure-`.
    """
    return f"__{'Secure' if below else 'Host'}-{name}" if request.secure else name


def set_cookie(
    response: web.StreamResponse, request: web.BaseRequest, name: str, grant: str, ttl_s: float, path: str = "/"
) -> None:
    """Give the browser a grant as a cookie of exactly this host and path, out of scripts' reach."""
    response.set_cookie(
        cookie_name(request, name, below=path != "/"),
        grant,
        max_age=int(ttl_s),
        path=path,
        secure=request.secure,
        httponly=True,
        samesite="Lax",
    )
