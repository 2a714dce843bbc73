"""How an installation is reached: its URLs, the host names it answers to, and the links to sessions' apps."""

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """URLs have no trailing slash.

    `public_url` is what people and the CLI type, `agent_url` (https) what agents dial, `apps_url` scheme and
    port under which `<app>--<session>.<apps_domain>` is served. `names` are host names that are ours besides
    literal addresses. `own_certificate` is true when browsers are shown a certificate of the owner's choice.
    With `path_mode` apps are at `<apps_domain>/apps/<session>/<app>/` instead, and that name is none of the pages'.
    """

    public_url: str
    agent_url: str
    apps_domain: str = "localhost"
    apps_scheme: str = "http"
    apps_port: int = 0
    names: frozenset[str] = frozenset({"localhost"})
    own_certificate: bool = False
    path_mode: bool = False

    def app_url(self, app: str, session: str) -> str:
        """Return the URL of a session's app, with its trailing slash."""
        port = f":{self.apps_port}" if self.apps_port not in (0, 80 if self.apps_scheme == "http" else 443) else ""
        if self.path_mode:
            return f"{self.apps_scheme}://{self.apps_domain}{port}/apps/{session}/{app}/"
        return f"{self.apps_scheme}://{app}--{session}.{self.apps_domain}{port}/"

    def app_of(self, host: str) -> tuple[str, str] | None:
        """Return `(app, session)` when a Host header names an app below the apps domain, else None.

        Exact: one label, `<app>--<session>`, then the domain and nothing else, whatever the port.
        """
        label, dot, domain = host_name(host).partition(".")
        app, dashes, session = label.partition("--")
        if not (dot and dashes and app and session) or domain != self.apps_domain:
            return None
        return app, session

    def has_paths(self, host: str) -> bool:
        """Say whether a Host header is the name below which all apps have their paths, and nothing else is."""
        return self.path_mode and host_name(host) == self.apps_domain

    def app_at(self, host: str, path: str) -> tuple[str, str] | None:
        """Return `(app, session)` when a Host header and a path name an app in path mode, else None."""
        parts = path.split("/", 4)
        if not self.has_paths(host) or len(parts) < 4 or parts[1] != "apps" or not (parts[2] and parts[3]):
            return None
        return parts[3].partition("?")[0], parts[2]

    def is_ours(self, host: str) -> bool:
        """Say whether a Host header means this installation's pages.

        A literal address always does (no DNS answer can point at it: no rebinding); a name must be known.
        """
        name = host_name(host)
        if self.has_paths(host):
            return False
        if name in self.names or name == urlsplit(self.public_url).hostname:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def host_name(host: str) -> str:
    """Return the lower-case name of a Host header without its port and brackets; empty when malformed."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def same_origin(origin: str, host: str) -> bool:
    """Say whether an Origin header names the very host and port of the Host header."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(host) and parts.netloc.lower() == host.lower()
