"""Where an app is, at a host name of its own or below a path, and what that means for targets, redirects, cookies."""

from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Mount:
    """`prefix` is empty at a host name of its own, else `/apps/<session>/<app>`; `whole`: the app is given it, too."""

    prefix: str = ""
    whole: bool = False

    @property
    def stripped(self) -> bool:
        """Whether the app does not know its prefix."""
        return bool(self.prefix) and not self.whole

    def target(self, raw: str) -> str:
        """Return a request's target as the app is to see it; nothing is decoded or normalised."""
        return raw[len(self.prefix) :] if self.stripped else raw

    def location(self, value: str, host: str) -> str:
        """Return an app's redirect as the browser is to see it: untouched unless the app does not know its prefix."""
        if not self.stripped:
            return value
        if value.startswith("/") and not value.startswith("//"):
            return self.prefix + value
        parts = urlsplit(value)
        if parts.netloc == host and parts.scheme in ("http", "https"):
            return parts._replace(path=self.prefix + (parts.path or "/")).geturl()
        return value

    def cookie(self, value: str) -> str:
        """Return an app's `Set-Cookie` for its own host name and path alone: other apps never see it."""
        pair, *attributes = value.split(";")
        kept = [pair]
        for attribute in attributes:
            name, _, path = attribute.strip().partition("=")
            if name.lower() == "domain":
                continue
            if name.lower() == "path" and self.prefix:
                attribute = f" Path={self._path(path.strip())}"
            kept.append(attribute)
        return ";".join(kept)

    def _path(self, path: str) -> str:
        if not self.stripped and f"{path}/".startswith(f"{self.prefix}/"):
            return path
        return self.prefix + (path if self.stripped and path.startswith("/") else "/")
