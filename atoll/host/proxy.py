"""The HTTP proxy that the environment names, if any, and how it wants to be asked."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field

from atoll.errors import Invalid

PORT = 3128
"""Where a proxy is whose URL has no port."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy that tunnels with CONNECT. `user` is None where it asks for nobody's name."""

    host: str
    port: int
    user: str | None = None
    password: str = field(default="", repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """What a CONNECT carries besides: basic auth, where the proxy's URL holds a user."""
        if self.user is None:
            return {}
        return {"Proxy-Authorization": "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()}

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """Where it is, without user and password."""
        return f"http://{self.address}"


def proxy_for(host: str, port: int, environ: Mapping[str, str]) -> Proxy | None:
    """Return the proxy to reach `host` through, None for none. Raises `Invalid` for a URL that names no HTTP proxy.

    HTTPS_PROXY is its URL. NO_PROXY is a comma list of `*`, host names (which cover their subdomains), addresses and
    networks (`10.0.0.0/8`), each but a network with an optional `:port`. Loopback never goes through a proxy.
    """
    url = environ.get("https_proxy") or environ.get("HTTPS_PROXY") or ""
    excepted = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    if not url or host == "localhost" or _is_loopback(host):
        return None
    rules = (rule.strip().lower() for rule in excepted.split(","))
    return None if any(rule and _covers(rule, host.lower(), port) for rule in rules) else _parsed(url)


def _parsed(url: str) -> Proxy:
    from urllib.parse import unquote, urlsplit  # here: most machines have no proxy

    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port or PORT
    except ValueError:
        host, port = None, 0
    if not host or parts.scheme != "http":
        raise Invalid(
            "HTTPS_PROXY must look like http://[user:password@]host:port",
            hint="correct it, or name the hosts that need no proxy in NO_PROXY",
        )
    user = None if parts.username is None else unquote(parts.username)
    return Proxy(host, port, user, unquote(parts.password or ""))


def _is_loopback(host: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _covers(rule: str, host: str, port: int) -> bool:
    import ipaddress

    if rule == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(rule, strict=False)
    except ValueError:
        name, colon, wanted = rule.rpartition(":")
        if colon and wanted.isdecimal():
            if int(wanted) != port:
                return False
            rule = name
        rule = rule.lstrip("*").lstrip(".")
        return host == rule or host.endswith(f".{rule}")
