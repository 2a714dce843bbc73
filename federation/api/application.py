"""The HTTP server's application: routes from the table, one way of checking and answering for all of them."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import msgspec
from aiohttp import web

from atoll.client.address import CA_HEADER
from atoll.errors import Forbidden, Invalid
from atoll.policy import ADMIN
from atoll.suggest import hint
from federation.api import (
    agents,
    apps,
    audit,
    authority,
    budgets,
    groups,
    installation,
    joining,
    links,
    market,
    meshes,
    metrics,
    permits,
    policies,
    prices,
    problems,
    providers,
    relays,
    session_streams,
    sessions,
    sites,
    ssh,
    tokens,
    tunnel,
)
from federation.api.auth import Caller, check_admin, check_entry, check_member
from federation.api.failures import MOST_S, slowing
from federation.api.openapi import document
from federation.api.route import MAX_BODY, MONITOR, Access, Call, Route, Services

Front = Callable[[web.Request], Awaitable[web.StreamResponse | None]]
"""Looks at a request before all routes and may answer it: the gateway."""

RESOURCES = (
    installation, sessions, session_streams, apps, permits, agents, relays, links, groups, sites, meshes, providers,
    prices, policies, budgets, market, tokens, authority, ssh, joining, tunnel, metrics, audit,
)  # fmt: skip
_NOBODY = Caller("")


async def _openapi(call: Call) -> web.Response:
    """Return this API's description in OpenAPI 3.1."""
    return web.Response(body=call.request.app[OPENAPI], content_type="application/json")


ROUTES: tuple[Route, ...] = (
    *(route for module in RESOURCES for route in module.ROUTES),
    Route(
        method="GET", path="/v1/openapi.json", handle=_openapi, access=Access.OPEN,
        answer=dict[str, Any], summary="This API in OpenAPI 3.1",
    ),
)  # fmt: skip
OPENAPI: web.AppKey[bytes] = web.AppKey("openapi", bytes)
SERVICES: web.AppKey[Services] = web.AppKey("services", Services)


def build(
    services: Services,
    *,
    routes: Sequence[Route] = ROUTES,
    pages: Iterable[web.RouteDef] = (),
    fronts: Sequence[Front] = (),
) -> web.Application:
    """Return the application; raises `ValueError` for a route without an access entry."""
    slowed = slowing(services.failures, lambda: _too_many(services))
    app = web.Application(client_max_size=MAX_BODY, middlewares=[slowed, _boundary(services), _fronts(fronts)])
    app[SERVICES] = services
    app[OPENAPI] = msgspec.json.encode(document(routes))
    for route in routes:
        if route.access is None:
            raise ValueError(f"{route.method} {route.path} has no access entry")
        # A `:` ends a name, so that `{ref}` never swallows a verb.
        path = route.path.replace("}", r":[^{}/:]+}")
        app.router.add_route(route.method, path, _serve(services, route))
    app.router.add_routes(pages)
    app.on_shutdown.append(_close)
    return app


async def _close(app: web.Application) -> None:
    app[SERVICES].closing.set()


def _too_many(services: Services) -> web.Response:
    error = problems.TooMany("too many failed attempts from your address", hint="wait some seconds", reason="TOO_MANY")
    return problems.response(problems.from_error(error, services.chance, ""), {"Retry-After": str(int(MOST_S))})


def _boundary(services: Services) -> Any:
    @web.middleware
    async def boundary(request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            response: web.StreamResponse = await handler(request)
        except web.HTTPRedirection:
            raise
        except ConnectionError:
            raise
        except Exception as error:  # noqa: BLE001 - the task's boundary: every error becomes one clear sentence
            problem = problems.from_error(error, services.chance, f"{request.method} {request.path}")
            return problems.response(problem)
        return response

    return boundary


def _fronts(fronts: Sequence[Front]) -> Any:
    @web.middleware
    async def front(request: web.Request, handler: Any) -> web.StreamResponse:
        for look in fronts:
            answer = await look(request)
            if answer is not None:
                return answer
        response: web.StreamResponse = await handler(request)
        return response

    return front


def _serve(services: Services, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def serve(request: web.Request) -> web.StreamResponse:
        call = Call(
            request=request,
            services=services,
            caller=await _admit(services, route, request),
            path=dict(request.match_info),
            query=_query(request, route),
            body=None if route.body is None else await _body(request, route),
        )
        result = await route.handle(call)
        if isinstance(result, web.StreamResponse):
            return result
        if route.answer is None:
            return web.Response(status=route.status)
        headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
        if services.control.config.authority.rotating:
            headers[CA_HEADER] = services.control.config.authority.pin
        body = msgspec.json.encode(result)
        return web.Response(body=body, status=route.status, content_type="application/json", headers=headers)

    return serve


async def _admit(services: Services, route: Route, request: web.Request) -> Caller:
    """Return who asks; raise `Unauthorized`, `Forbidden` or `NotFound` by what the route and its path ask for."""
    if route.access is Access.OPEN:
        return _NOBODY
    caller = await services.door.caller(request)
    if route.access is Access.ADMIN:
        check_admin(caller)
    if route.access is Access.MONITOR and not {ADMIN, MONITOR} & set(caller.roles):
        raise Forbidden(
            f"{caller.owner} may not read the figures",
            hint=f"use a token with the role {MONITOR}: atoll token create --api --role {MONITOR}",
        )
    if project := request.match_info.get("project", ""):
        now = await services.door.with_roles(caller)
        check_member(now, project)
        if route.access is Access.OWNER:
            check_entry(now, await services.control.sessions.get(project, request.match_info["ref"]))
    return caller


def _query(request: web.Request, route: Route) -> Any:
    known = route.query.__struct_fields__
    given: dict[str, str] = {}
    for name, value in request.query.items():
        if name not in known:
            raise Invalid(f"unknown query parameter {name!r}", hint=hint(name, known, _list_of(known)))
        if name in given:
            raise Invalid(f"query parameter {name!r} is given twice", hint="separate values by commas")
        given[name] = value
    try:
        return msgspec.convert(given, route.query, strict=False)
    except msgspec.ValidationError as error:
        raise Invalid(f"wrong query: {_words(error)}", hint=_list_of(known)) from None


def _list_of(known: Sequence[str]) -> str:
    return f"possible: {', '.join(known)}" if known else "this path takes none"


async def _body(request: web.Request, route: Route) -> Any:
    kind = request.content_type
    if request.can_read_body and kind not in ("application/json", "application/octet-stream"):
        # A form of another site's page can only send other types: they are never taken for JSON.
        raise Forbidden(f"the body is {kind}, not JSON", hint="send Content-Type: application/json")
    if route.limit != MAX_BODY:
        request = request.clone(client_max_size=route.limit)
    raw = await request.read()
    try:
        value = msgspec.json.decode(raw or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"the body is not JSON: {error}", hint="send a JSON object") from None
    if not isinstance(value, dict):
        raise Invalid("the body must be a JSON object")
    known: Sequence[str] | None = getattr(route.body, "__struct_fields__", None)
    for key in value if known is not None else ():
        if key not in (known or ()):
            raise Invalid(f"unknown key {key!r} in the body", hint=hint(key, known or (), _list_of(known or ())))
    try:
        return msgspec.convert(value, route.body)
    except msgspec.ValidationError as error:
        raise Invalid(f"wrong body: {_words(error)}", hint=_list_of(known or ())) from None


def _words(error: msgspec.ValidationError) -> str:
    return str(error).replace("Object", "it").replace("`", "'").replace("$.", "").rstrip(".")
