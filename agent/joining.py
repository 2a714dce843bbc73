"""Joining: a single-use token against a certificate for a key that never leaves this machine."""

import asyncio
import hashlib
import http.client
import json
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atoll.errors import BY_CODE, AtollError, Unauthorized, Unavailable
from tunnel.dialer import connect, host_port
from tunnel.identity import AgentIdentity, make_key_and_csr
from tunnel.jointoken import JoinToken
from tunnel.wire import ALPN_JOIN, CONTROL_NAME

TIMEOUT_S = 15.0
_ANSWER_LIMIT = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Joined:
    """What this machine has become."""

    identity: AgentIdentity
    name: str
    site: str
    group: str


def join(url: str, token: JoinToken, directory: Path, *, name: str, facts: Mapping[str, str]) -> Joined:
    """Join the installation at `url` and keep the identity in `directory`.

    The CA is believed only because its hash is the token's pin. Raises `Unavailable`, `Unauthorized`,
    or what the control plane answers.
    """
    ca_pem = _pinned_ca(url, token)
    request = {
        "secret": token.secret,
        "csr": make_key_and_csr(directory),
        "name": name,
        "facts": dict(facts),
    }
    answer = _ask(url, "POST", "/v1/join", _verified(ca_pem), request)
    identity = AgentIdentity.save(
        directory, agent_id=answer["agent"], url=url, ca_pem=ca_pem, certificate_pem=answer["certificate"]
    )
    return Joined(identity, answer["name"], answer["site"], answer["group"])


def renew(directory: Path) -> str:
    """Return a new certificate (PEM) for the identity in `directory`, whose last one may have ended.

    Raises `Unavailable`, or `Unauthorized` when the agent does not belong to the installation any more.
    """
    identity = AgentIdentity(directory)
    last = (directory / "cert.pem").read_text()
    request = {"certificate": last, "csr": make_key_and_csr(directory)}
    answer = _ask(identity.url, "POST", "/v1/renew", _verified((directory / "ca.pem").read_text()), request)
    return str(answer["certificate"])


def _pinned_ca(url: str, token: JoinToken) -> str:
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname = False
    blind.verify_mode = ssl.CERT_NONE
    ca_pem = str(_ask(url, "GET", "/v1/ca", blind)["ca"])
    try:
        pin = hashlib.sha256(ssl.PEM_cert_to_DER_cert(ca_pem.strip())).hexdigest()
    except ValueError:
        pin = ""
    if pin != token.pin:
        raise Unauthorized(
            f"the control plane at {url} is not the one this token was made by: its CA has another fingerprint",
            hint="check the URL; if it is right, someone may be between you and it: do not join",
        )
    return ca_pem


def _verified(ca_pem: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=ca_pem)
    context.set_alpn_protocols([ALPN_JOIN])
    return context


def _ask(
    url: str, method: str, path: str, context: ssl.SSLContext, body: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Make one request and return the JSON answer; raise the error that the control plane names."""
    host, port = host_port(url)
    try:
        plain = asyncio.run(_connected(host, port))
        plain.settimeout(TIMEOUT_S)
        with context.wrap_socket(plain, server_hostname=CONTROL_NAME) as secured:
            connection = http.client.HTTPConnection(host, port)
            connection.sock = secured
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": "application/json", "Connection": "close"})
            response = connection.getresponse()
            status, text = response.status, response.read(_ANSWER_LIMIT)
    except ssl.SSLCertVerificationError as error:
        raise Unauthorized(
            f"the certificate of {url} is not one of the CA that the token names: {error.verify_message}",
            hint="check the URL; behind a proxy that opens TLS, ask for an exception for it",
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise unreachable(url, error) from error
    return _answer(url, status, text)


async def _connected(host: str, port: int) -> Any:
    async with asyncio.timeout(TIMEOUT_S):
        return await connect(host, port, os.environ)


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
