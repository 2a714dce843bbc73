"""Where a control plane is: its URL taken apart, checked, and what TLS is to trust."""

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from atoll.errors import AtollError, Invalid, Unavailable

if TYPE_CHECKING:
    import ssl

CA_HEADER = "Atoll-CA"
"""While the CA is rotated, answers name the new one in this header (SHA-256 in hex)."""
CONTROL_NAME = "control.atoll.internal"
"""Name in every certificate of an installation's own CA (as `tunnel.wire` has it), whatever address is dialled."""


@dataclass(frozen=True, slots=True)
class Address:
    """A control plane's base URL."""

    scheme: str
    host: str
    port: int
    prefix: str

    @classmethod
    def parse(cls, url: str) -> "Address":
        """Take `http(s)://host[:port][/prefix]` apart; raise `Invalid` for anything else."""
        parts = urlsplit(url if "://" in url else f"https://{url}")
        try:
            port = parts.port
        except ValueError:
            port = 0
        if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
            raise Invalid(f"{url!r} is not the URL of a control plane", hint="write it like https://fed.example.com")
        return cls(
            parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80), parts.path.rstrip("/")
        )

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = self.port == (443 if self.scheme == "https" else 80)
        return f"{self.scheme}://{host}{'' if usual else f':{self.port}'}{self.prefix}"


def tls_context(ca: str | None, *, verify: bool = True) -> "ssl.SSLContext":
    """Return the context of a client: it trusts `ca` (PEM) only, or the system's authorities when None."""
    import ssl  # here: most clients talk plain HTTP on loopback

    try:
        context = ssl.create_default_context(cadata=ca)
    except ssl.SSLError as error:
        raise Invalid("the pinned CA certificate is not readable", hint="use `atoll login URL` again") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


def unreachable(address: Address, error: BaseException) -> AtollError:
    """Return the error a person should see when a connection cannot be made or broke."""
    if type(error).__name__ in ("SSLCertVerificationError", "ClientConnectorCertificateError"):
        return Unavailable(
            f"the certificate of {address.url} is not trusted: {getattr(error, 'verify_message', '') or error}",
            hint="pin its CA: `atoll login URL --pin SHA256` (the pin is printed by `atoll up`); where a load balancer "
            "opens TLS: `atoll login URL --ca system` (SSL_CERT_FILE names a CA that this machine does not know)",
        )
    if isinstance(error, ConnectionRefusedError) or isinstance(
        getattr(error, "os_error", None), ConnectionRefusedError
    ):
        local = address.host in ("127.0.0.1", "::1", "localhost")
        advice = "start it with `atoll up`" if local else "check the URL with its operator, and `atoll doctor`"
        return Unavailable(f"no control plane answers at {address.url}", hint=advice)
    why = str(getattr(error, "strerror", "") or error) or type(error).__name__
    return Unavailable(f"cannot reach the control plane at {address.url}: {why}", hint="`atoll doctor` looks closer")
