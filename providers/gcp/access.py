"""Signing in to Google, and plain HTTP calls to its smaller services: signed, through the proxy, errors as ours."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, cast

import google.auth
import requests
from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.exceptions import GoogleAuthError, TransportError
from google.auth.transport.requests import AuthorizedSession
from google.oauth2 import service_account

from providers.errors import Auth, Unknown
from providers.gcp.errors import answered
from providers.gcp.settings import SignIn

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
TIMEOUT_S = 20.0
"""For connecting and for each read. No call is repeated here: the next round is the retry."""
_HINT = "give credentials: a service account's key, or run gcloud auth application-default login"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A document, and what time it was at Google when it was sent (Unix seconds, 0: not told)."""

    document: dict[str, Any]
    at: float


def credentials(sign_in: SignIn) -> Credentials:
    """Return what signs calls; raise `Auth` where the settings or the environment give nothing usable."""
    keys: Any = service_account.Credentials
    try:
        if sign_in.anonymous:
            return AnonymousCredentials()  # type: ignore[no-untyped-call]
        if sign_in.key:
            return cast(Credentials, keys.from_service_account_info(dict(sign_in.key), scopes=[SCOPE]))
        if sign_in.file:
            return cast(Credentials, keys.from_service_account_file(sign_in.file, scopes=[SCOPE]))
        return google.auth.default(scopes=[SCOPE])[0]
    except (GoogleAuthError, OSError, ValueError):
        raise Auth("there is no credential for Google that can be used", hint=_HINT) from None  # may quote the key


def session(signed: Credentials, proxy: str) -> AuthorizedSession:
    """Return an HTTP session that signs its calls."""
    made = AuthorizedSession(signed)  # type: ignore[no-untyped-call]
    route(made, proxy)
    return made


def route(made: AuthorizedSession, proxy: str) -> None:
    """Send a session's calls, and those that renew its token, through `proxy`; empty: what the environment says."""
    if not proxy:
        return
    for each in (made, made._auth_request_session):
        if each is not None:
            each.trust_env = False  # else the environment's proxies win over these
            each.proxies = {"http": proxy, "https": proxy}
            each.verify = os.environ.get("REQUESTS_CA_BUNDLE") or True


def ask(
    made: AuthorizedSession,
    url: str,
    parameters: Mapping[str, str] | None = None,
    body: Mapping[str, Any] | None = None,
) -> Reply:
    """Get a document, or post one and get the answer; errors are `providers.errors`."""
    with told():
        if body is None:
            reply = made.get(url, params=parameters, timeout=TIMEOUT_S)
        else:
            reply = made.post(url, params=parameters, json=body, timeout=TIMEOUT_S)
        document = reply.json()
    if not reply.ok:
        error = document.get("error", {})
        raise answered(reply.status_code, _reason(error), str(error.get("message", "")))
    date = reply.headers.get("Date", "")
    return Reply(document=document, at=parsedate_to_datetime(date).timestamp() if date else 0.0)


@contextmanager
def told() -> Iterator[None]:
    """Raise errors of signing in and of HTTP as ours, without a cause: theirs repeat what was sent."""
    try:
        yield
    except TransportError:
        raise Unknown("Google's token service cannot be reached") from None
    except GoogleAuthError:
        raise Auth("Google refused the credential", hint="check credentials: in the provider's settings") from None
    except requests.RequestException as error:
        raise Unknown(f"Google did not answer: {type(error).__name__}") from None


def _reason(error: Mapping[str, Any]) -> str:
    return next((str(each.get("reason", "")) for each in (*error.get("details", []), *error.get("errors", []))), "")
