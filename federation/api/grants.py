"""Short-lived signed grants: what login links, app links and cookies carry. Nothing is stored for them."""

import base64
import hashlib
import hmac
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from atoll.clock import Clock
from atoll.errors import Unauthorized

LOGIN_TTL_S = 600.0
"""A login link printed by `atoll up` works this long."""
LINK_TTL_S = 300.0
"""A link to an app, likewise."""
COOKIE_TTL_S = 7 * 86400.0
"""A browser stays logged in this long."""


class Purpose(StrEnum):
    """What a grant is good for: one purpose is never taken for another."""

    LOGIN = "login"  # the link that logs a browser in
    PAGE = "page"  # the page's cookie
    LINK = "link"  # the link to an app
    APP = "app"  # the app's cookie


@dataclass(frozen=True, slots=True)
class Grant:
    """What a valid grant says: who, for which session (apps only), until when."""

    owner: str
    audience: str
    expires_at: float


class Grants:
    """Issues and checks grants with the installation's secret key."""

    def __init__(self, secret_key: bytes, clock: Clock) -> None:
        self._key = hmac.digest(secret_key, b"atoll grants v1", "sha256")
        self._clock = clock

    def issue(self, purpose: Purpose, owner: str, *, ttl_s: float, audience: str = "") -> str:
        """Return a grant as text that is safe in URLs and cookies."""
        payload = msgspec.json.encode([purpose, owner, audience, self._clock.now() + ttl_s])
        return f"{_text(payload)}.{_text(self._sign(payload))}"

    def check(self, text: str, purpose: Purpose, *, audience: str = "") -> Grant:
        """Return what a grant says, or raise `Unauthorized`: forged, of another purpose or audience, or too old."""
        head, _, tail = text.partition(".")
        try:
            payload, signature = _bytes(head), _bytes(tail)
        except ValueError:
            raise _refused() from None
        if not hmac.compare_digest(self._sign(payload), signature):
            raise _refused()
        given, owner, bound, expires_at = msgspec.json.decode(payload, type=tuple[str, str, str, float])
        if given != purpose or bound != audience:
            raise _refused()
        if expires_at <= self._clock.now():
            raise Unauthorized("this link or login has expired", hint="ask for a new one: `atoll up` or `atoll open`")
        return Grant(owner, bound, expires_at)

    def _sign(self, payload: bytes) -> bytes:
        return hmac.digest(self._key, payload, hashlib.sha256)


def _refused() -> Unauthorized:
    return Unauthorized("this link or login is not valid here", hint="ask for a new one: `atoll up` or `atoll open`")


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
