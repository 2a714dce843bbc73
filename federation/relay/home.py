"""A relay's home: its identity, and the last terms that its control plane gave it, on disk."""

import json
import ssl
from dataclasses import dataclass
from pathlib import Path

from atoll.errors import Invalid
from atoll.host.config import atoll_home
from atoll.host.files import write_private
from atoll.host.pem import pins
from tunnel import certificates
from tunnel.wire import ALPN_UPLINK


@dataclass(frozen=True, slots=True)
class About:
    """Who this relay is: its id and name, its own URL, its control plane's, and the hash of the token it used."""

    relay: str
    name: str
    url: str
    control: str
    token: str = ""


class RelayHome:
    """The files of one relay under `path`, `$ATOLL_HOME/relay` by default."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = (path or atoll_home() / "relay").expanduser().absolute()

    def about(self) -> About | None:
        """Return who this relay is, None before it has enrolled; raise `Invalid` where the file is damaged."""
        place = self.path / "relay.json"
        if not place.exists():
            return None
        try:
            return About(**json.loads(place.read_text()))
        except (ValueError, TypeError):
            raise Invalid(f"{place} is damaged", hint="remove it and enrol anew, with another token") from None

    def enrolled(self, about: About, *, ca: str, certificate: str) -> None:
        """Keep what enrolling returned; terms of another relay that was here are forgotten."""
        (self.path / "terms.json").unlink(missing_ok=True)
        self.trust(ca)
        self.install(certificate)
        fields = {name: getattr(about, name) for name in About.__slots__}
        write_private(self.path / "relay.json", json.dumps(fields, indent=1))

    def install(self, certificate: str) -> None:
        """Keep a new certificate (PEM); raise `Invalid` for what is none."""
        certificates.validity(certificate)
        write_private(self.path / "cert.pem", certificate)

    def trust(self, ca: str) -> bool:
        """Trust these CAs (PEM) and no others from now on; say whether they are other ones than before."""
        pins(ca)
        place = self.path / "ca.pem"
        if place.exists() and place.read_text() == ca:
            return False
        write_private(place, ca)
        return True

    def validity(self) -> tuple[float, float]:
        """Return from when to when (Unix seconds) the certificate is valid."""
        return certificates.validity((self.path / "cert.pem").read_text())

    def server_context(self, protocol: str, *, agents: bool = False) -> ssl.SSLContext:
        """For clients that speak `protocol`; `agents` must show a certificate of our CA."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._fill(context, protocol)
        context.num_tickets = 0
        if agents:
            context.load_verify_locations(cafile=str(self.path / "ca.pem"))
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def uplink_context(self) -> ssl.SSLContext:
        """For dialling the control plane, with our certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._fill(context, ALPN_UPLINK)
        context.load_verify_locations(cafile=str(self.path / "ca.pem"))
        return context

    def terms(self) -> tuple[bytes, list[str]]:
        """Return the grant key and the refused agents that were kept last; an empty key where none were."""
        try:
            kept = json.loads((self.path / "terms.json").read_text())
            return bytes.fromhex(kept["grant_key"]), [str(agent) for agent in kept["refused"]]
        except (OSError, ValueError, KeyError, TypeError):
            return b"", []

    def keep_terms(self, grant_key: bytes, refused: list[str]) -> None:
        """Keep them, so that a relay that is started without its control plane goes on as it was."""
        write_private(self.path / "terms.json", json.dumps({"grant_key": grant_key.hex(), "refused": refused}))

    def _fill(self, context: ssl.SSLContext, protocol: str) -> None:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self.path / "cert.pem", self.path / "key.pem")
        context.set_alpn_protocols([protocol])
