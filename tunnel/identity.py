"""Who is who: the installation's certificate authority, and an agent's key and certificate."""

import asyncio
import contextlib
import json
import os
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path

from atoll.errors import Invalid
from atoll.host.pem import blocks, pins
from tunnel import certificates
from tunnel.certificates import Bearer
from tunnel.roots import Roots
from tunnel.wire import (
    ALPN_CONTROL,
    ALPN_DATA,
    ALPN_INNER,
    ALPN_JOIN,
    ALPN_RELAY,
    ALPN_UPLINK,
    ALPN_USER,
    CONTROL_NAME,
)

AGENT_TTL_S = 86_400.0
SERVER_TTL_S = 90 * 86_400.0
SERVER_RENEW_S = 30 * 86_400.0
"""A server certificate with less than this left is issued anew."""
_CONTEXTS_LIMIT = 64
"""Most TLS contexts that an agent keeps: each user of blind streams needs one."""
SERVER_NAMES = (CONTROL_NAME, "localhost", "*.localhost", "127.0.0.1", "::1")
"""What every server certificate covers, besides the names its owner gives."""


class Authority:
    """The installation's own certificate authority and server certificate, in a directory of its own.

    While it is rotated there are two: the new one signs, both are trusted. The server then shows a certificate of the
    new one with the chain that leads to the one before. `on_change` is called when contexts must be made anew.
    """

    def __init__(self, directory: Path, roots: Roots, names: Sequence[str]) -> None:
        self._directory = directory
        self._server = (directory / "server.pem", directory / "server.key")
        self._roots = roots
        self._names = names
        self.on_change: Callable[[], None] = lambda: None

    @classmethod
    def load_or_create(cls, directory: Path, *, now: float, names: Sequence[str] = ()) -> "Authority":
        """Load the authority in `directory`, made (0700, its files 0600) where there is none.

        `names` are further host names and IP addresses of the server certificate, which is issued anew (same
        key) when it lacks one or has less than `SERVER_RENEW_S` left at `now` (Unix seconds).
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        roots = Roots.load_or_create(directory, now)
        _keep_key(directory / "server.key")
        authority = cls(directory, roots, list(dict.fromkeys([*SERVER_NAMES, *names])))
        authority.renew_server(now)
        return authority

    @property
    def pin(self) -> str:
        """Hex SHA-256 of the DER of the CA's certificate that signs: what a join token carries."""
        return pins(self._roots.pem)[0]

    @property
    def ca_pem(self) -> str:
        """The CAs to trust, PEM: the one that signs and, while it is rotated, the one before."""
        return self._roots.trusted

    @property
    def rotating(self) -> bool:
        """Whether there are two CAs at this time."""
        return bool(self._roots.before)

    def rotate(self, now: float) -> None:
        """Begin to sign with a new CA, and trust both; raise `Conflict` while there are two, `Refused` by the disk."""
        self._roots = self._roots.rotated(self._directory, now)
        self._changed(now)

    def retire(self, now: float) -> None:
        """Trust the CA that signs alone; raise `Conflict` where there is no other, `Refused` by the disk."""
        self._roots = self._roots.retired(self._directory)
        self._changed(now)

    def keep(self, now: float) -> None:
        """Issue the server's certificate anew in time: to be called every day or so."""
        if self.renew_server(now):
            self.on_change()

    def renew_server(self, now: float) -> bool:
        """Issue the server's certificate anew where it must be; say whether that was done."""
        path, key = self._server[0], self._server[1].read_bytes()
        if _serves(path, key, self._roots, self._names, now):
            return False
        signer = (self._roots.pem, self._roots.key)
        fresh = certificates.new_server(key, *signer, names=self._names, now=now, ttl_s=SERVER_TTL_S)
        write_private(path, (fresh + self._roots.cross).encode())
        return True

    def _changed(self, now: float) -> None:
        self.renew_server(now)
        self.on_change()

    def sign_agent(
        self, csr_pem: str, agent_id: str, *, generation: int = 0, now: float, ttl_s: float = AGENT_TTL_S
    ) -> str:
        """Return a certificate (PEM) that says the request's key is this agent's; raise `Invalid` for a bad one."""
        bearer = Bearer(agent_id, generation)
        signer = (self._roots.pem, self._roots.key)
        return certificates.sign_request(csr_pem, *signer, bearer=bearer, now=now, ttl_s=ttl_s)

    def sign_relay(self, csr_pem: str, relay: str, *, now: float, ttl_s: float) -> str:
        """Return a chain (PEM) that says the request's key is this relay's; raise `Invalid` for a bad one."""
        signer = (self._roots.pem, self._roots.key)
        return certificates.sign_relay(csr_pem, *signer, relay=relay, now=now, ttl_s=ttl_s) + self._roots.cross

    def agent_of(self, certificate_pem: str, csr_pem: str) -> Bearer:
        """Return the agent whose certificate (expired or not) and key these are; raise `Invalid` when they are not."""
        return certificates.agent_of(certificate_pem, csr_pem, self.ca_pem)

    def key_of(self, csr_pem: str) -> str:
        """Return a name of the key that signed a request; raise `Invalid` when it cannot be read."""
        return certificates.key_of(csr_pem)

    def uplink_context(self) -> ssl.SSLContext:
        """For `ALPN_UPLINK`: the same as for agents."""
        context = self.control_context()
        context.set_alpn_protocols([ALPN_UPLINK])
        return context

    def control_context(self) -> ssl.SSLContext:
        """For `ALPN_CONTROL`: a client certificate of this CA is required."""
        return _server_context(*self._server, ALPN_CONTROL, clients=self.ca_pem)

    def stream_context(self, protocol: str) -> ssl.SSLContext:
        """For data connections and users' streams: no client certificate, for a token is a quarter of the cost."""
        return _server_context(*self._server, protocol)

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
        self._contexts: dict[tuple[str | bytes, int, int], ssl.SSLContext] = {}
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

    @property
    def authorities(self) -> list[str]:
        """The CAs that are trusted: the SHA-256 (hex) of each."""
        return pins((self._directory / "ca.pem").read_text())

    def trust(self, ca_pem: str) -> None:
        """Trust these CAs (PEM) from the next dial on, and no others. Raises `Invalid` for what is none."""
        pins(ca_pem)
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=ca_pem)
        except ssl.SSLError:
            raise Invalid("this is not a certificate in PEM form") from None
        write_private(self._directory / "ca.pem", ca_pem.encode())

    def renew(self, certificate_pem: str) -> None:
        """Replace the certificate, atomically; the key stays. Raises `Invalid` for what is no certificate."""
        certificates.validity(certificate_pem)
        write_private(self._directory / "cert.pem", certificate_pem.encode())
        self._load_validity()

    def context(self, protocol: str = ALPN_CONTROL) -> ssl.SSLContext:
        """For dialling the control plane or (`ALPN_RELAY`) a relay: TLS 1.3, its certificate by our CA, and ours."""
        context = self._client_context(protocol)
        context.load_cert_chain(*self._certificate)
        return context

    def relay_context(self) -> ssl.SSLContext:
        """For a link to a relay."""
        return self.context(ALPN_RELAY)

    def data_context(self, protocol: str = ALPN_DATA) -> ssl.SSLContext:
        """For data connections to it: the same, but without our certificate."""
        return self._kept(protocol, "ca.pem", lambda: self._client_context(protocol))

    def inner_context(self, client: bytes) -> ssl.SSLContext:
        """For TLS inside a stream: ours is shown, and who has this certificate (DER) is let in. Raises `OSError`."""
        return self._kept(client, "cert.pem", lambda: _server_context(*self._certificate, ALPN_INNER, clients=client))

    def direct_context(self, protocol: str = ALPN_USER) -> ssl.SSLContext:
        """For users at the agent's own door: our certificate is shown, theirs is a grant. Raises `OSError`."""
        return _server_context(*self._certificate, protocol)

    @property
    def _certificate(self) -> tuple[Path, Path]:
        return self._directory / "cert.pem", self._directory / "key.pem"

    def _kept(self, purpose: str | bytes, file: str, make: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        """Return the context that was made for a purpose with the present version of a file."""
        found = (self._directory / file).stat()
        key = purpose, found.st_ino, found.st_mtime_ns
        if key not in self._contexts:
            if len(self._contexts) >= _CONTEXTS_LIMIT:
                self._contexts.clear()
            self._contexts[key] = make()
        return self._contexts[key]

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


def relay_of(transport: asyncio.BaseTransport) -> str:
    """Return the id of the relay that the transport's client certificate names; "" where there is none."""
    certificate = transport.get_extra_info("peercert") or {}
    return certificates.relay_in(value for kind, value in certificate.get("subjectAltName", ()) if kind == "URI")


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
    with contextlib.suppress(OSError):  # not every file system lets a folder be written out
        _write_out(path.parent)


def _write_out(folder: Path) -> None:
    """Make the names in a folder durable: a certificate that came back after a power cut would be a clone's."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _keep_key(path: Path) -> bytes:
    if not path.exists():
        write_private(path, certificates.new_key())
    return path.read_bytes()


def _serves(path: Path, key: bytes, roots: Roots, names: Sequence[str], now: float) -> bool:
    """Say whether a server certificate's file is good for long enough, for all names, and leads to every CA."""
    found = blocks(path.read_text()) if path.exists() else []
    if not found or found[1:] != blocks(roots.cross):
        return False
    pem = found[0]
    try:
        fresh = certificates.validity(pem)[1] - now > SERVER_RENEW_S
    except Invalid:
        return False
    return fresh and certificates.signed_by(pem, roots.pem, key) and certificates.server_names(pem) >= set(names)


def _server_context(
    certificate: Path, key: Path, protocol: str, *, clients: str | bytes | None = None
) -> ssl.SSLContext:
    """Return the context of a server; its clients must show a certificate that `clients` (PEM or DER) vouches for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols([protocol])
    if protocol != "http/1.1":
        context.num_tickets = 0  # who comes back to these proves anew who it is: a ticket would only cost memory
    if clients is not None:
        context.load_verify_locations(cadata=clients)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
