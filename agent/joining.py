"""Joining: a single-use token against a certificate for a key that never leaves this machine."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from atoll.errors import Unauthorized
from tunnel.asking import ask, pinned_ca, verified
from tunnel.dialer import why_not
from tunnel.identity import AgentIdentity, make_key_and_csr
from tunnel.jointoken import JoinToken


@dataclass(frozen=True, slots=True)
class Joined:
    """What this machine has become."""

    identity: AgentIdentity
    name: str
    site: str
    group: str


def join(url: str, token: JoinToken, directory: Path, *, name: str, facts: Mapping[str, str]) -> Joined:
    """Join the installation at `url` and keep the identity in `directory`.

    A CA is believed only because its hash is the token's pin, and others because who has shown that one vouches
    for them. Raises `Unavailable`, `Unauthorized`,
    or what the control plane answers.
    """
    ca_pem = pinned_ca(url, token)
    request = {
        "secret": token.secret,
        "csr": make_key_and_csr(directory),
        "name": name,
        "facts": dict(facts),
    }
    answer = ask(url, "POST", "/v1/join", verified(ca_pem), request)
    identity = AgentIdentity.save(
        directory, agent_id=answer["agent"], url=url, ca_pem=answer["ca"], certificate_pem=answer["certificate"]
    )
    return Joined(identity, answer["name"], answer["site"], answer["group"])


def renew(directory: Path) -> str:
    """Return a new certificate (PEM) for the identity in `directory`, whose last one may have ended.

    Raises `Unavailable`, or `Unauthorized` when the agent does not belong to the installation any more.
    """
    identity = AgentIdentity(directory)
    last = (directory / "cert.pem").read_text()
    request = {"certificate": last, "csr": make_key_and_csr(directory)}
    known = verified((directory / "ca.pem").read_text())
    try:
        return str(ask(identity.url, "POST", "/v1/renew", known, request)["certificate"])
    except Unauthorized as error:
        if isinstance(error.__cause__, ssl.SSLCertVerificationError):
            raise Unauthorized(why_not(error.__cause__), hint="`atoll agent leave`, then join anew") from error
        raise
