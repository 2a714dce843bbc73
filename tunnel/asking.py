"""One HTTP request to a control plane under the installation's own CA, by a machine that has no certificate yet."""

import asyncio
import contextlib
import http.client
import json
import os
import socket
import ssl
from collections.abc import Mapping
from typing import Any

from atoll.errors import BY_CODE, AtollError, Invalid, Unauthorized, Unavailable
from atoll.host.pem import blocks, pins
from tunnel.dialer import connect, host_port, ways_of
from tunnel.envelope import enveloped, outer_context
from tunnel.jointoken import JoinToken
from tunnel.ways import Way
from tunnel.wire import ALPN_JOIN, CONTROL_NAME

TIMEOUT_S = 15.0
_ANSWER_LIMIT = 1024 * 1024


def pinned_ca(url: str, token: JoinToken) -> str:
    """Return the CA (PEM) at `url` that a token pins; raise `Unauthorized` where there is another."""
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname = False
    blind.verify_mode = ssl.CERT_NONE
    blind.set_alpn_protocols([ALPN_JOIN])
    shown = str(ask(url, "GET", "/v1/ca", blind)["ca"])
    for block in blocks(shown):
        with contextlib.suppress(Invalid):
            if pins(block) == [token.pin]:
                return block
    raise Unauthorized(
        f"the control plane at {url} is not the one this token was made by: its CA has another fingerprint",
        hint="check the URL; if it is right, its CA was rotated since (make another token), or someone may be "
        "between you and it: do not go on",
    )


def verified(ca_pem: str) -> ssl.SSLContext:
    """Return a context that trusts these CAs alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=ca_pem)
    context.set_alpn_protocols([ALPN_JOIN])
    return context


def ask(
    url: str, method: str, path: str, context: ssl.SSLContext, body: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Make one request and return the JSON answer; raise `Unavailable`, or the error that the control plane names.

    Where anything else than the control plane answers, that is asked inside a WebSocket.
    """
    request = (method, path, None if body is None else json.dumps(body))
    try:
        status, text = asyncio.run(_exchange(url, context, request))
    except ssl.SSLCertVerificationError as error:
        raise Unauthorized(
            f"the certificate of {url} is not one of the CA that the token names: {error.verify_message}",
            hint="check the URL; something that opens TLS on the way must let WebSockets to /v1/tunnel pass and have a "
            "certificate that this machine trusts (SSL_CERT_FILE names others)",
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise unreachable(url, error) from error
    return _answer(url, status, text)


async def _exchange(url: str, context: ssl.SSLContext, request: tuple[str, str, str | None]) -> tuple[int, bytes]:
    """Connect, make the request, and return the answer's status and body."""
    async with asyncio.timeout(2 * TIMEOUT_S):
        secured = await _reach(url, context)
    # In a thread, for the loop carries what is inside a WebSocket meanwhile.
    return await asyncio.to_thread(_request, secured, request)


async def _reach(url: str, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Return TLS to the control plane. No request is made twice: nothing was said where the second way is tried."""
    if ways_of(url).current is Way.WEBSOCKET:
        return await _secured(Way.WEBSOCKET, url, context)
    try:
        return await _secured(Way.SMALL, url, context)  # a few packets: small ones do
    except (ssl.SSLError, ConnectionError) as first:
        try:
            return await _secured(Way.WEBSOCKET, url, context)
        except OSError as second:
            told = (each for each in (first, second) if isinstance(each, ssl.SSLCertVerificationError))
            raise next(told, first) from second


async def _secured(way: Way, url: str, context: ssl.SSLContext) -> ssl.SSLSocket:
    host, port = host_port(url)
    async with asyncio.timeout(TIMEOUT_S):
        plain = await connect(host, port, os.environ, way.segment)
        if way is Way.WEBSOCKET:
            plain = await enveloped(plain, host, port, _outer(context))
        return await asyncio.to_thread(_handshake, plain, context)


def _handshake(plain: socket.socket, context: ssl.SSLContext) -> ssl.SSLSocket:
    plain.settimeout(TIMEOUT_S)
    secured = context.wrap_socket(plain, server_hostname=CONTROL_NAME)
    if secured.selected_alpn_protocol() != ALPN_JOIN:
        secured.close()
        raise ssl.SSLError(ssl.SSL_ERROR_SSL, "another server than a control plane answers there")
    return secured


def _request(secured: ssl.SSLSocket, request: tuple[str, str, str | None]) -> tuple[int, bytes]:
    with secured:
        connection = http.client.HTTPConnection(CONTROL_NAME)
        connection.sock = secured
        connection.request(*request, {"Content-Type": "application/json", "Connection": "close"})
        response = connection.getresponse()
        return response.status, response.read(_ANSWER_LIMIT)


def _outer(context: ssl.SSLContext) -> ssl.SSLContext:
    """Return the context for the envelope; who believes the inside by a pin alone needs none for the outside."""
    outer = outer_context(context)
    if context.verify_mode is ssl.CERT_NONE:
        outer.check_hostname = False
        outer.verify_mode = ssl.CERT_NONE
    return outer


def _answer(url: str, status: int, text: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise Unavailable(f"{url} answered with no JSON object (HTTP {status})", hint="is this an Atoll URL?")
    if status >= 400:
        kind = BY_CODE.get(str(answer.get("code")), AtollError if status >= 500 else Unauthorized)
        message = str(answer.get("detail") or answer.get("title") or f"HTTP {status}")
        raise kind(message, hint=str(answer.get("hint") or ""))
    return answer


def unreachable(url: str, error: Exception) -> Unavailable:
    """Return the error a person should see when no connection to `url` can be made."""
    why = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return Unavailable(
        f"the control plane at {url} cannot be reached: {why.lower()}",
        hint="check the URL, that `atoll up` runs there, and that this machine may connect out (HTTPS_PROXY helps)",
    )
