"""Certificates: what the authority signs, what it covers, when it is made anew; what lies on disk and how."""

import asyncio
import hashlib
import ssl
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from atoll.errors import Invalid
from tests.tunnel.conftest import join
from tunnel import certificates
from tunnel.certificates import Bearer
from tunnel.identity import (
    AGENT_TTL_S,
    SERVER_NAMES,
    SERVER_TTL_S,
    AgentIdentity,
    Authority,
    make_key_and_csr,
    peer_of,
    write_private,
)
from tunnel.innertls import OwnKey
from tunnel.wire import ALPN_DATA_SPLICE

NOW = 1_800_000_000.0


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_an_authority_is_made_once(tmp_path: Path) -> None:
    first = Authority.load_or_create(tmp_path / "keys", now=NOW)
    again = Authority.load_or_create(tmp_path / "keys", now=NOW + 1000)
    assert (first.pin, first.ca_pem) == (again.pin, again.ca_pem)
    assert first.pin == hashlib.sha256(ssl.PEM_cert_to_DER_cert(first.ca_pem)).hexdigest()
    assert mode(tmp_path / "keys") == 0o700
    assert {mode(path) for path in (tmp_path / "keys").iterdir()} == {0o600}
    assert {path.name for path in (tmp_path / "keys").iterdir()} == {"ca.key", "ca.pem", "server.key", "server.pem"}


def test_the_server_certificate_is_issued_anew_when_it_must(tmp_path: Path) -> None:
    def certificate(now: float, *names: str) -> tuple[str, str]:
        Authority.load_or_create(tmp_path, now=now, names=names)
        return (tmp_path / "server.pem").read_text(), (tmp_path / "server.key").read_text()

    first, key = certificate(NOW)
    assert certificates.server_names(first) == set(SERVER_NAMES)
    assert certificate(NOW + 50 * 86_400)[0] == first
    late, late_key = certificate(NOW + 61 * 86_400)
    assert late != first
    assert late_key == key, "the key stays, so that a pinned client goes on"
    named, _ = certificate(NOW + 61 * 86_400, "atoll.example.org", "10.1.2.3", "fd00::5")
    assert certificates.server_names(named) == {*SERVER_NAMES, "atoll.example.org", "10.1.2.3", "fd00::5"}
    assert certificate(NOW + 61 * 86_400, "10.1.2.3")[0] == named
    (tmp_path / "server.pem").write_text("damaged")
    assert certificates.server_names(certificate(NOW)[0]) == set(SERVER_NAMES)


def test_validity_has_slack_for_clocks_and_is_read_without_cryptography(tmp_path: Path) -> None:
    authority = Authority.load_or_create(tmp_path, now=NOW)
    assert certificates.validity((tmp_path / "server.pem").read_text()) == (NOW - 300, NOW + SERVER_TTL_S)
    start, end = certificates.validity(authority.ca_pem)
    assert start == NOW - 300
    assert end > NOW + 9 * 365 * 86_400
    for bad in ("", "x", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"):
        with pytest.raises(Invalid):
            certificates.validity(bad)


def test_an_agent_cannot_choose_its_name(tmp_path: Path) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    authority = Authority.load_or_create(tmp_path, now=NOW)
    wish = x509.SubjectAlternativeName([x509.UniformResourceIdentifier("atoll://agent/a-victim")])
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(wish, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
        .decode()
    )
    signed = x509.load_pem_x509_certificate(authority.sign_agent(csr, "a-1", now=NOW).encode())
    names = signed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["atoll://agent/a-1/0"]
    assert not signed.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert (signed.not_valid_after_utc - signed.not_valid_before_utc).total_seconds() == AGENT_TTL_S + 300


def test_bad_requests_are_refused(tmp_path: Path) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    authority = Authority.load_or_create(tmp_path, now=NOW)
    wide = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .sign(ec.generate_private_key(ec.SECP384R1()), hashes.SHA256())
    )
    good = ssl.PEM_cert_to_DER_cert(make_key_and_csr(tmp_path / "agent").replace("CERTIFICATE REQUEST", "CERTIFICATE"))
    broken = ssl.DER_cert_to_PEM_cert(good[:-1] + bytes([good[-1] ^ 1])).replace("CERTIFICATE", "CERTIFICATE REQUEST")
    for csr in ("", "nonsense", authority.ca_pem, wide.public_bytes(serialization.Encoding.PEM).decode(), broken):
        with pytest.raises(Invalid):
            authority.sign_agent(csr, "a-1", now=NOW)


def test_an_identity_on_disk(tmp_path: Path) -> None:
    authority = Authority.load_or_create(tmp_path / "keys", now=NOW)
    home = tmp_path / "agent"
    with pytest.raises(Invalid, match="no agent identity"):
        AgentIdentity(home)
    csr = make_key_and_csr(home)
    key = (home / "key.pem").read_bytes()
    certificate = authority.sign_agent(csr, "a-1", now=NOW)
    with pytest.raises(Invalid, match="no agent identity"):
        AgentIdentity(home)
    identity = AgentIdentity.save(
        home, agent_id="a-1", url="https://x:8700", ca_pem=authority.ca_pem, certificate_pem=certificate
    )
    assert (identity.agent_id, identity.url) == ("a-1", "https://x:8700")
    assert (identity.issued_at, identity.expires_at) == (NOW - 300, NOW + AGENT_TTL_S)
    assert {path.name for path in home.iterdir()} == {"ca.pem", "cert.pem", "key.pem", "agent.json"}
    assert {mode(path) for path in home.iterdir()} == {0o600}
    identity.renew(authority.sign_agent(make_key_and_csr(home), "a-1", now=NOW + 40_000))
    assert (home / "key.pem").read_bytes() == key
    assert AgentIdentity(home).expires_at == identity.expires_at == NOW + 40_000 + AGENT_TTL_S
    assert identity.context().minimum_version is ssl.TLSVersion.TLSv1_3
    with pytest.raises(Invalid):
        identity.renew("nonsense")
    assert AgentIdentity(home).expires_at == NOW + 40_000 + AGENT_TTL_S


def test_contexts_are_made_once_and_anew_with_what_they_are_made_of(authority: Authority, tmp_path: Path) -> None:
    identity = join(authority, tmp_path / "agent", "https://x")
    users = [OwnKey(time.time()) for _ in range(2)]
    data, inner = identity.data_context(), identity.inner_context(users[0].certificate)
    assert data is identity.data_context() is not identity.data_context(ALPN_DATA_SPLICE)
    assert inner is identity.inner_context(users[0].certificate) is not identity.inner_context(users[1].certificate)
    assert users[0].context(authority.ca_pem) is users[0].context(authority.ca_pem)

    other = Authority.load_or_create(tmp_path / "other", now=NOW)
    identity.trust(authority.ca_pem + other.ca_pem)
    assert len(data.get_ca_certs()) == 1
    assert len(identity.data_context().get_ca_certs()) == 2
    identity.renew(authority.sign_agent(make_key_and_csr(tmp_path / "agent"), "a-1", now=NOW))
    assert identity.inner_context(users[0].certificate) is not inner
    for number in range(200):
        identity.data_context(str(number))
    assert len(identity._contexts) <= 64


def test_an_own_certificate_for_https(authority: Authority, tmp_path: Path) -> None:
    Authority.load_or_create(tmp_path, now=NOW, names=["atoll.example.org"])
    context = authority.http_context((tmp_path / "server.pem", tmp_path / "server.key"))
    assert context.verify_mode is ssl.CERT_NONE
    with pytest.raises(OSError):
        authority.http_context((tmp_path / "missing.pem", tmp_path / "server.key"))


@pytest.mark.parametrize(
    ("extra", "agent"),
    [
        ({}, ("", 0)),
        ({"peercert": {}}, ("", 0)),
        ({"atoll_agent": Bearer("a-2", 4)}, ("a-2", 4)),
        ({"peercert": {"subjectAltName": (("DNS", "x"), ("URI", "atoll://agent/a-3"))}}, ("a-3", 0)),
        ({"peercert": {"subjectAltName": (("URI", "atoll://agent/a-3/12"),)}}, ("a-3", 12)),
        ({"peercert": {"subjectAltName": (("URI", "atoll://agent/a-3"), ("URI", "atoll://agent/a-4"))}}, ("", 0)),
        ({"peercert": {"subjectAltName": (("DNS", "atoll://agent/a-4"),)}, "atoll_agent": Bearer("a-5")}, ("", 0)),
        ({"peercert": {"subjectAltName": (("URI", "https://x/a-4"),)}}, ("", 0)),
    ],
)
def test_the_peer_of_a_transport(extra: dict[str, object], agent: tuple[str, int]) -> None:
    assert peer_of(asyncio.BaseTransport(extra)) == Bearer(*agent)


def test_private_files_replace_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("old")
    path.chmod(0o644)
    (tmp_path / ".secret.new").write_text("left by a crash")
    write_private(path, b"new")
    assert path.read_bytes() == b"new"
    assert mode(path) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret"]


def test_the_running_agents_side_loads_no_heavy_library(authority: Authority, tmp_path: Path) -> None:
    join(authority, tmp_path, "https://x:1")
    code = (
        "import sys, pathlib, tunnel.link, tunnel.dialer, tunnel.jointoken, tunnel.backoff;"
        "from tunnel.identity import AgentIdentity;"
        f"AgentIdentity(pathlib.Path({str(tmp_path)!r})).context();"
        "print(sorted({'cryptography', 'aiohttp', 'sqlalchemy', 'urllib.request', 'http.client'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
