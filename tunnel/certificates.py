"""Making keys, certificates and signing requests. `cryptography` is loaded only when one is made."""

from __future__ import annotations

import calendar
import hashlib
import ipaddress
import re
import ssl
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from atoll.errors import Invalid
from tunnel.wire import AGENT_NAMES, RELAY_NAME

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

SLACK_S = 300.0
"""Certificates are valid from this long before they are made: hosts' clocks differ."""
AGENT_URI = "atoll://agent/"
"""… and the agent's id, a slash and the certificate's generation: 0 where there is none."""
RELAY_URI = "atoll://relay/"
"""… and the relay's id."""


class Bearer(NamedTuple):
    """The agent that a certificate names, and which of that agent's certificates it is."""

    agent: str
    generation: int = 0

    @property
    def uri(self) -> str:
        """How a certificate says so."""
        return f"{AGENT_URI}{self.agent}/{self.generation}"

    @classmethod
    def of(cls, uris: Iterable[str]) -> Bearer | None:
        """Return whom the URIs of a certificate name; None unless that is one agent."""
        found = [uri.removeprefix(AGENT_URI) for uri in uris if uri.startswith(AGENT_URI)]
        if len(found) != 1:
            return None
        agent, _, generation = found[0].partition("/")
        return cls(agent, int(generation) if generation.isdecimal() else 0)


def new_key() -> bytes:
    """Return a new EC P-256 private key, PEM (PKCS #8, not encrypted)."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def new_request(key_pem: bytes) -> str:
    """Return a signing request (PEM) for a key. It names nobody: the signer decides who the key is."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(_load_key(key_pem), hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def new_authority(key_pem: bytes, *, now: float, ttl_s: float) -> str:
    """Return a self-signed CA certificate, PEM."""
    key = _load_key(key_pem)
    name = _name("Atoll installation CA")
    return _sign(_authority(_builder(key.public_key(), name, name, now, ttl_s)), key, key.public_key())


def new_own(key_pem: bytes, *, now: float, ttl_s: float) -> str:
    """Return a certificate (PEM) of a key by itself: it names nobody, its hash is what it is known by."""
    from cryptography import x509

    key = _load_key(key_pem)
    name = _name("Atoll user")
    builder = _builder(key.public_key(), name, name, now, ttl_s)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    return _sign(builder, key, key.public_key())


def cross_sign(ca_pem: str, by_pem: str, by_key_pem: bytes, *, now: float) -> str:
    """Return a certificate (PEM) of a CA's key by another CA, as long-lived as that one's own.

    Both CAs have the same name, which makes it self-issued: it does not count against a path length (RFC 5280, 6.1).
    """
    from cryptography import x509

    one, other = (x509.load_pem_x509_certificate(pem.encode()) for pem in (ca_pem, by_pem))
    key = one.public_key()
    ttl_s = other.not_valid_after_utc.timestamp() - now
    builder = _authority(_builder(key, one.subject, other.subject, now, ttl_s))  # type: ignore[arg-type]
    return _sign(builder, _load_key(by_key_pem), other.public_key())


def new_server(
    key_pem: bytes, ca_pem: str, ca_key_pem: bytes, *, names: Iterable[str], now: float, ttl_s: float
) -> str:
    """Return a server certificate (PEM) for host names and IP addresses."""
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    authority = x509.load_pem_x509_certificate(ca_pem.encode())
    builder = _builder(_load_key(key_pem).public_key(), _name("Atoll control plane"), authority.subject, now, ttl_s)
    builder = _leaf(builder, [_general_name(name) for name in names], ExtendedKeyUsageOID.SERVER_AUTH)
    return _sign(builder, _load_key(ca_key_pem), authority.public_key())


def sign_request(csr_pem: str, ca_pem: str, ca_key_pem: bytes, *, bearer: Bearer, now: float, ttl_s: float) -> str:
    """Return a client certificate (PEM) for the request's key that names its bearer, whatever names it asked for.

    Raises `Invalid` for a request that cannot be read, is not signed by its own key, or is no EC P-256 key.
    """
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    names = [x509.UniformResourceIdentifier(bearer.uri), x509.DNSName(bearer.agent + AGENT_NAMES)]
    uses = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]  # of inner TLS, and at its own door
    return _sign_leaf(csr_pem, ca_pem, ca_key_pem, bearer.agent, names, uses, now, ttl_s)


def sign_relay(csr_pem: str, ca_pem: str, ca_key_pem: bytes, *, relay: str, now: float, ttl_s: float) -> str:
    """Return a relay's certificate (PEM), towards agents and users and towards the control plane; as `sign_request`."""
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    names = [x509.DNSName(RELAY_NAME), x509.UniformResourceIdentifier(RELAY_URI + relay)]
    uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    return _sign_leaf(csr_pem, ca_pem, ca_key_pem, relay, names, uses, now, ttl_s)


def relay_in(uris: Iterable[str]) -> str:
    """Return the relay that the URIs of a certificate name; "" unless that is one."""
    found = [uri.removeprefix(RELAY_URI) for uri in uris if uri.startswith(RELAY_URI)]
    return found[0] if len(found) == 1 else ""


def server_names(certificate_pem: str) -> set[str]:
    """Return the host names and IP addresses of a certificate."""
    from cryptography import x509

    certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    addresses = names.get_values_for_type(x509.IPAddress)
    return {*names.get_values_for_type(x509.DNSName), *(str(address) for address in addresses)}


def signed_by(certificate_pem: str, ca_pem: str, key_pem: bytes) -> bool:
    """Say whether a certificate is for this key and was issued by this CA."""
    from cryptography import x509

    certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
    issued = _issued(certificate, x509.load_pem_x509_certificate(ca_pem.encode()))
    return issued and certificate.public_key() == _load_key(key_pem).public_key()


def agent_of(certificate_pem: str, csr_pem: str, ca_pem: str) -> Bearer:
    """Return whom a certificate names, expired or not, when the request is signed by that very key.

    Raises `Invalid` when none of these CAs issued the certificate, or the request is of another key.
    """
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
        if not any(_issued(certificate, authority) for authority in x509.load_pem_x509_certificates(ca_pem.encode())):
            raise ValueError("of another CA")
        request = x509.load_pem_x509_csr(csr_pem.encode())
        same = request.is_signature_valid and request.public_key() == certificate.public_key()
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.ExtensionNotFound):
        raise Invalid("the certificate is not one of this installation") from None
    bearer = Bearer.of(names.get_values_for_type(x509.UniformResourceIdentifier))
    if not same or bearer is None:
        raise Invalid("the certificate signing request is not of the certificate's own key")
    return bearer


def key_of(csr_pem: str) -> str:
    """Return the SHA-256, in hex, of the public key whose holder signed this request; raise `Invalid` for none."""
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    try:
        request = x509.load_pem_x509_csr(csr_pem.encode())
        signed = request.is_signature_valid
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        public = request.public_key().public_bytes(serialization.Encoding.DER, form)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        signed, public = False, b""
    if not signed:
        raise Invalid("the certificate signing request cannot be read", hint="send a PEM request signed by its own key")
    return hashlib.sha256(public).hexdigest()


def validity(certificate_pem: str) -> tuple[float, float]:
    """Return from when to when (Unix seconds) a certificate is valid; raise `Invalid` where it is none.

    Reads the DER itself: a running agent needs no more of X.509, and stays without `cryptography`.
    """
    try:
        der = ssl.PEM_cert_to_DER_cert(certificate_pem.strip())
        fields = _children(_children(der)[0][1])[0][1]
        parts = [value for tag, value in _children(fields) if tag != 0xA0]  # [0] is the version
        start, end = (_unix(tag, value) for tag, value in _children(parts[3]))
    except (ValueError, IndexError):
        raise Invalid("this is not a certificate in PEM form") from None
    return start, end


def _children(data: bytes) -> list[tuple[int, bytes]]:
    """Return the (tag, value) pairs that DER bytes hold in sequence."""
    found, at = [], 0
    while at < len(data):
        tag, size, at = data[at], data[at + 1], at + 2
        if size & 0x80:
            width = size & 0x7F
            size, at = int.from_bytes(data[at : at + width], "big"), at + width
        if at + size > len(data):
            raise ValueError("cut short")
        found.append((tag, data[at : at + size]))
        at += size
    return found


def _unix(tag: int, value: bytes) -> float:
    text = value.decode("ascii")
    if not re.fullmatch(r"\d{12}(\d\d)?Z", text):
        raise ValueError("not a time")
    return float(calendar.timegm(time.strptime(text, "%y%m%d%H%M%SZ" if tag == 0x17 else "%Y%m%d%H%M%SZ")))


def _sign_leaf(
    csr_pem: str,
    ca_pem: str,
    ca_key_pem: bytes,
    common: str,
    names: Sequence[x509.GeneralName],
    uses: list[x509.ObjectIdentifier],
    now: float,
    ttl_s: float,
) -> str:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        request = x509.load_pem_x509_csr(csr_pem.encode())
        key = request.public_key()
        sound = request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature):
        raise Invalid("the certificate signing request cannot be read") from None
    if not sound or not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Invalid("the certificate signing request must be signed by an EC P-256 key of its own")
    authority = x509.load_pem_x509_certificate(ca_pem.encode())
    builder = _leaf(_builder(key, _name(common), authority.subject, now, ttl_s), names, *uses)
    return _sign(builder, _load_key(ca_key_pem), authority.public_key())


def _issued(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Invalid("the private key is not an EC key")
    return key


def _name(common: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _general_name(name: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _builder(
    key: ec.EllipticCurvePublicKey, subject: x509.Name, issuer: x509.Name, now: float, ttl_s: float
) -> x509.CertificateBuilder:
    from cryptography import x509

    start = datetime.fromtimestamp(now - SLACK_S, UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(seconds=SLACK_S + ttl_s))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _leaf(
    builder: x509.CertificateBuilder, names: Sequence[x509.GeneralName], *uses: x509.ObjectIdentifier
) -> x509.CertificateBuilder:
    from cryptography import x509

    return (
        builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(list(uses)), critical=False)
    )


def _authority(builder: x509.CertificateBuilder) -> x509.CertificateBuilder:
    from cryptography import x509

    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return builder.add_extension(_usage(sign_certificates=True), critical=True)


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _sign(builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey, issuer: object) -> str:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer)  # type: ignore[arg-type]
    builder = builder.add_extension(identifier, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
