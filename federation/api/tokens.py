"""Routes of tokens: make a join token with the lines to paste, list, delete."""

import msgspec

from atoll.client import views as api
from atoll.errors import Invalid
from atoll.policy import ADMIN
from atoll.suggest import hint
from federation.api import joining, views
from federation.api.auth import check_admin
from federation.api.grants import LOGIN_TTL_S, Purpose
from federation.api.route import Access, Call, Link, Page, Route
from tunnel.jointoken import JoinToken

_BASE = "/v1/tokens"
_KINDS = ("join", "api")
MAX_TTL_S = 30 * 86400.0


class NewToken(msgspec.Struct, kw_only=True):
    """`kind` join: for `uses` machines within `ttl_s` seconds, into `group` (default: the site's name) at `site`.

    `kind` api: a credential for `owner`, with `roles`. Only an administrator may make join tokens, tokens for another
    user, and those with roles.
    """

    kind: str = "join"
    site: str = ""
    group: str = ""
    uses: int = 1
    ttl_s: float = 3600.0
    owner: str = ""
    roles: list[str] = []


async def create(call: Call) -> api.TokenView:
    """Make a token; its secret is shown this once."""
    body: NewToken = call.body
    owner = body.owner or call.caller.owner
    if body.roles:
        check_admin(call.caller, "may not give roles")
    if body.kind == "api":
        if owner != call.caller.owner:
            check_admin(call.caller, f"may not make tokens of {owner}")
        row, secret = await call.control.tokens.create_api(owner, body.roles)
        return views.token(row, secret=secret, command=f"atoll login {call.services.address.public_url}")
    if body.kind != "join":
        raise Invalid(f"there is no token kind {body.kind!r}", hint=hint(body.kind, _KINDS, ", ".join(_KINDS)))
    check_admin(call.caller, "may not let machines join")
    if body.roles:
        raise Invalid("a join token has no roles", hint="roles are of API tokens: --api")
    if not body.site:
        raise Invalid("site is missing", hint="say where the machine is, for example --site local")
    if not 1 <= body.uses <= 10_000 or not 0 < body.ttl_s <= MAX_TTL_S:
        raise Invalid("uses must be 1 to 10000 and ttl above 0, up to 30 days")
    row, secret = await call.control.tokens.create_join(
        site=body.site, group=body.group or body.site, uses=body.uses, ttl_s=body.ttl_s, owner=owner
    )
    url = call.services.address.agent_url
    text = JoinToken(url, call.control.config.authority.pin, secret).text()
    return views.token(
        row,
        secret=text,
        command=f"atoll agent join {url} --token {text}",
        paste=joining.line(url, text),
    )


async def login_link(call: Call) -> Link:
    """Return a link that logs a browser in to the pages, good for ten minutes."""
    grant = call.services.door.grants.issue(Purpose.LOGIN, call.caller.owner, ttl_s=LOGIN_TTL_S)
    return Link(f"{call.services.address.public_url}/login?grant={grant}")


async def list_(call: Call) -> Page[api.TokenView]:
    """Return a user's own tokens, to an administrator all, without secrets."""
    rows = await call.control.tokens.list()
    everybody = ADMIN in call.caller.roles
    return Page([views.token(row) for row in rows if everybody or row.owner == call.caller.owner])


async def delete(call: Call) -> None:
    """Make a token worthless at once; another user's, as an administrator."""
    wanted = call.path["id"]
    if any(row.id.startswith(wanted) and row.owner != call.caller.owner for row in await call.control.tokens.list()):
        check_admin(call.caller, "may not delete others' tokens")
    await call.control.tokens.delete(wanted)


ROUTES = (
    Route(
        method="GET", path=_BASE, handle=list_, access=Access.USER,
        answer=Page[api.TokenView], summary="List tokens",
    ),
    Route(
        method="POST", path=_BASE, handle=create, access=Access.USER, status=201, body=NewToken,
        answer=api.TokenView, summary="Make a join or API token",
    ),
    Route(
        method="DELETE", path=_BASE + "/{id}", handle=delete, access=Access.USER, status=204,
        summary="Delete a token",
    ),
    Route(
        method="POST", path="/v1/login:link", handle=login_link, access=Access.USER, answer=Link,
        summary="Make a link that logs a browser in",
    ),
)  # fmt: skip
