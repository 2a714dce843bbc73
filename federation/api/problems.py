"""Errors as problem+json (RFC 9457): ours with their hint, any other as an internal error with a number to quote."""

from http import HTTPStatus

import msgspec
import structlog
from aiohttp import web

from atoll.client.views import Problem
from atoll.clock import Chance
from atoll.errors import BY_CODE, AtollError, Invalid, Unauthorized

log = structlog.get_logger("api")
TYPE = "application/problem+json"


class TooLarge(Invalid):
    """The request's body is over the limit."""

    status = 413


class TooMany(Unauthorized):
    """Too many failed attempts from one address."""

    status = 429


class NoRoute(AtollError):
    """No such path."""

    code = "NOT_FOUND"
    status = 404
    exit_code = 122


class WrongMethod(AtollError):
    """The path exists, but not with this method."""

    code = "INVALID"
    status = 405
    exit_code = 120


def from_error(error: Exception, chance: Chance, where: str) -> Problem:
    """Return the problem to show for an error; one that is not ours is logged with the id shown."""
    ours = _as_ours(error)
    if ours is not None:
        return Problem(
            title=_title(ours.status),
            status=ours.status,
            detail=ours.message,
            code=_public_code(ours),
            reason=ours.reason,
            hint=ours.hint,
        )
    number = chance.token_bytes(5).hex()
    log.error("internal error", id=number, where=where, error=repr(error), exc_info=error)
    return Problem(
        title=_title(500),
        status=500,
        detail="internal error",
        hint=f"look for {number} in the control plane's log",
        id=number,
    )


def response(problem: Problem, headers: dict[str, str] | None = None) -> web.Response:
    """Return a problem as an HTTP response."""
    extra = dict(headers or {})
    if problem.status == 401:
        extra["WWW-Authenticate"] = 'Bearer realm="atoll"'
    return web.Response(body=msgspec.json.encode(problem), status=problem.status, content_type=TYPE, headers=extra)


def _as_ours(error: Exception) -> AtollError | None:
    if isinstance(error, AtollError):
        return error
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return TooLarge("the request is larger than 1 MiB", hint="let the program read a file instead")
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return WrongMethod(f"{error.method} is not possible here", hint=f"possible: {allowed}")
    if isinstance(error, web.HTTPNotFound):
        return NoRoute("there is no such path", hint="all paths are in /v1/openapi.json")
    if isinstance(error, web.HTTPException) and error.status < 500:
        return Invalid(error.reason)
    return None


def _public_code(error: AtollError) -> str:
    # A client finds its exception class by this code; a finer one (STALE) rides in `reason`.
    for kind in type(error).__mro__:
        code = getattr(kind, "code", "")
        if code in BY_CODE:
            return str(code)
    return "INTERNAL"


def _title(status: int) -> str:
    return HTTPStatus(status).phrase
