"""Who is who: the installation's certificate authority, and an agent's key and certificate."""

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import ssl
from collections.abc import Sequence
from pathlib import Path

from atoll.errors import Invalid
from tunnel import certificates
from tunnel.certificates import Bearer
from tunnel.wire import ALPN_CONTROL, ALPN_DATA, ALPN_JOIN, CONTROL_NAME

AGENT_TTL_S = 86_400.0
SERVER_TTL_S = 90 * 86_400.0
SERVER_RENEW_S = 30 * 86_400.0
"""A server certificate with less than this left is issued anew."""
AUTHORITY_TTL_S = 3650 * 86_400.0
SERVER_NAMES = (CONTROL_NAME, "localhost", "*.localhost", "127.0.0.1", "::1")
"""What every server certificate covers, besides the names its owner gives."""


class Authority:
    """The installation's own certificate authority and server certificate, in a directory of its own."""

    pin: str
    """Hex SHA-256 of the CA certificate's DER: what a join token carries."""
    server_pin: str
    """Base64 SHA-256 of the server key's SPKI, for `curl --pinnedpubkey sha256//…`."""
    ca_pem: str

    def __init__(self, directory: Path) -> None:
        self._server = (directory / "server.pem", directory / "server.key")
        self._ca_key = (directory / "ca.key").read_bytes()
        self.ca_pem = (directory / "ca.pem").read_text()
        self.pin = hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.ca_pem)).hexdigest()
        server_key = certificates.public_key_der(self._server[1].read_bytes())
        self.server_pin = base64.b64encode(hashlib.sha256(server_key).digest()).decode()

    @classmethod
    def load_or_create(cls, directory: Path, *, now: float, names: Sequence[str] = ()) -> "Authority":
        """Load the authority in `directory`, made (0700, its files 0600) where there is none.

        `names` are further host names and IP addresses of the server certificate, which is issued anew (same
        key) when it lacks one or has less than `SERVER_RENEW_S` left at `now` (Unix seconds).
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (directory / "ca.pem").exists():
            key = _keep_key(directory / "ca.key")
            write_private(
                directory / "ca.pem", certificates.new_authority(key, now=now, ttl_s=AUTHORITY_TTL_S).encode()
            )
        server_key = _keep_key(directory / "server.key")
        ca_pem = (directory / "ca.pem").read_text()
        wanted = list(dict.fromkeys([*SERVER_NAMES, *names]))
        if not _serves(directory / "server.pem", server_key, ca_pem, wanted, now):
            ca_key = (directory / "ca.key").read_bytes()
            fresh = certificates.new_server(server_key, ca_pem, ca_key, names=wanted, now=now, ttl_s=SERVER_TTL_S)
            write_private(directory / "server.pem", fresh.encode())
        return cls(directory)

    def sign_agent(
        self, csr_pem: str, agent_id: str, *, generation: int = 0, now: float, ttl_s: float = AGENT_TTL_S
    ) -> str:
        """Return a certificate (PEM) that says the request's key is this agent's; raise `Invalid` for a bad one."""
        bearer = Bearer(agent_id, generation)
        return certificates.sign_request(csr_pem, self.ca_pem, self._ca_key, bearer=bearer, now=now, ttl_s=ttl_s)

    def agent_of(self, certificate_pem: str, csr_pem: str) -> Bearer:
        """Return the agent whose certificate (expired or not) and key these are; raise `Invalid` when they are not."""
        return certificates.agent_of(certificate_pem, csr_pem, self.ca_pem)

    def key_of(self, csr_pem: str) -> str:
        """Return a name of the key that signed a request; raise `Invalid` when it cannot be read."""
        return certificates.key_of(csr_pem)

    def control_context(self) -> ssl.SSLContext:
        """For `ALPN_CONTROL`: a client certificate of this CA is required."""
        context = _server_context(*self._server, ALPN_CONTROL)
        context.load_verify_locations(cadata=self.ca_pem)
        context.verify_mode = ssl.CERT_REQUIRED
        context.num_tickets = 0  # agents hold one connection: a ticket would only cost memory
        return context

    def data_context(self) -> ssl.SSLContext:
        """For `ALPN_DATA`: our server certificate, no client certificate (a token is a quarter of the cost)."""
        context = _server_context(*self._server, ALPN_DATA)
        context.num_tickets = 0
        return context

    def join_context(self) -> ssl.SSLContext:
        """For `ALPN_JOIN`: our server certificate, no client certificate."""
        return _server_context(*self._server, ALPN_JOIN)

    def http_context(self, own: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        """For `http/1.1`; `own` is (certificate chain, key) files of the owner's: `OSError` if they are bad."""
        return _server_context(*(own or self._server), "http/1.1")


class AgentIdentity:
    """An agent's identity on its disk: `ca.pem cert.pem key.pem agent.json`.

    `agent.json` is written last by a join: without it a directory is no identity.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        try:
            about = json.loads((directory / "agent.json").read_text())
            self._agent_id, self._url = str(about["agent"]), str(about["url"])
            self._load_validity()
        except (OSError, ValueError, KeyError, TypeError):
            raise Invalid(
                f"{directory} holds no agent identity",
                hint="join first: `atoll agent join URL --token …`",
            ) from None

    @classmethod
    def save(cls, directory: Path, *, agent_id: str, url: str, ca_pem: str, certificate_pem: str) -> "AgentIdentity":
        """Write what a join returned (each file atomically, 0600) and return the identity."""
        certificates.validity(certificate_pem)
        write_private(directory / "ca.pem", ca_pem.encode())
        write_private(directory / "cert.pem", certificate_pem.encode())
        write_private(directory / "agent.json", json.dumps({"agent": agent_id, "url": url}, indent=1).encode())
        return cls(directory)

    @property
    def agent_id(self) -> str:
        """The agent's id."""
        return self._agent_id

    @property
    def url(self) -> str:
        """The control plane's URL."""
        return self._url

    @property
    def issued_at(self) -> float:
        """Unix seconds from which the certificate is valid."""
        return self._issued_at

    @property
    def expires_at(self) -> float:
        """Unix seconds at which the certificate ends."""
        return self._expires_at

    def renew(self, certificate_pem: str) -> None:
        """Replace the certificate, atomically; the key stays. Raises `Invalid` for what is no certificate."""
        certificates.validity(certificate_pem)
        write_private(self._directory / "cert.pem", certificate_pem.encode())
        self._load_validity()

    def context(self) -> ssl.SSLContext:
        """For dialling the control plane: TLS 1.3, its certificate by our CA and for `CONTROL_NAME`."""
        context = self._client_context(ALPN_CONTROL)
        context.load_cert_chain(self._directory / "cert.pem", self._directory / "key.pem")
        return context

    def data_context(self) -> ssl.SSLContext:
        """For data connections to it: the same, but without our certificate."""
        return self._client_context(ALPN_DATA)

    def _client_context(self, protocol: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_verify_locations(cafile=str(self._directory / "ca.pem"))
        context.set_alpn_protocols([protocol])
        return context

    def _load_validity(self) -> None:
        pem = (self._directory / "cert.pem").read_text()
        self._issued_at, self._expires_at = certificates.validity(pem)


def make_key_and_csr(directory: Path) -> str:
    """Return a request (PEM) for `key.pem` in `directory`, which is made (0600) if it is not there.

    A renewal asks for the same key again, so that key and certificate never disagree after a crash. Loads
    `cryptography` (some 20 MB): a running agent calls it in a short-lived process.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return certificates.new_request(_keep_key(directory / "key.pem"))


def peer_of(transport: asyncio.BaseTransport) -> Bearer:
    """Return whom the transport's client certificate (or memory transport) names; agent "" where there is none."""
    certificate = transport.get_extra_info("peercert")
    if not certificate:
        return transport.get_extra_info("atoll_agent") or Bearer("")
    names = certificate.get("subjectAltName", ())
    return Bearer.of(value for kind, value in names if kind == "URI") or Bearer("")


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner reads (0600), atomically and durably."""
    draft = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        draft.unlink()
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor, not a path
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _keep_key(path: Path) -> bytes:
    if not path.exists():
        write_private(path, certificates.new_key())
    return path.read_bytes()


def _serves(path: Path, key: bytes, ca_pem: str, names: Sequence[str], now: float) -> bool:
    if not path.exists():
        return False
    pem = path.read_text()
    try:
        fresh = certificates.validity(pem)[1] - now > SERVER_RENEW_S
    except Invalid:
        return False
    return fresh and certificates.signed_by(pem, ca_pem, key) and certificates.server_names(pem) >= set(names)


def _server_context(certificate: Path, key: Path, protocol: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols([protocol])
    return context
