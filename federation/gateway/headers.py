"""Which headers pass between a browser and a session's app, which are changed, and which end at the gateway."""

from collections.abc import Iterable, Mapping

from multidict import CIMultiDict

from federation.api.auth import OUR_COOKIES
from federation.gateway.mount import Mount

HOP_BY_HOP = frozenset(
    {
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te",
        "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
_OURS = frozenset({"authorization", "forwarded", "expect", "via"})
_WEBSOCKET = frozenset(
    {"sec-websocket-key", "sec-websocket-version", "sec-websocket-extensions", "sec-websocket-protocol"}
)


def towards_app(headers: Iterable[tuple[str, str]], connection: str, *, websocket: bool = False) -> CIMultiDict[str]:
    """Return a browser's headers without ours: credentials, our cookies, `X-Forwarded-*`, hop-by-hop ones."""
    named = _named(connection)
    kept: CIMultiDict[str] = CIMultiDict()
    for name, value in headers:
        lower = name.lower()
        if lower in HOP_BY_HOP | _OURS | named or lower.startswith("x-forwarded-"):
            continue
        if websocket and lower in _WEBSOCKET | {"content-length"}:
            continue
        if lower == "cookie":
            value = _foreign_cookies(value)
            if not value:
                continue
        kept.add(name, value)
    return kept


def towards_browser(headers: Mapping[str, str], mount: Mount, host: str) -> CIMultiDict[str]:
    """Return an app's headers without hop-by-hop ones and without what reaches beyond the app.

    That is cookies named like ours or for other hosts and paths, and orders to the browser about our whole domain.
    """
    named = _named(headers.get("Connection", ""))
    kept: CIMultiDict[str] = CIMultiDict()
    for name, value in headers.items():
        lower = name.lower()
        if lower in HOP_BY_HOP | named or lower == "clear-site-data":
            continue
        if lower == "service-worker-allowed" and mount.prefix:
            continue
        if lower == "set-cookie":
            if value.partition("=")[0].strip() in OUR_COOKIES:
                continue
            value = mount.cookie(value)
        if lower == "location":
            value = mount.location(value, host)
        kept.add(name, value)
    return kept


def _named(connection: str) -> frozenset[str]:
    return frozenset(part.strip().lower() for part in connection.split(",") if part.strip())


def _foreign_cookies(value: str) -> str:
    parts = [part.strip() for part in value.split(";")]
    return "; ".join(part for part in parts if part and part.partition("=")[0].strip() not in OUR_COOKIES)
