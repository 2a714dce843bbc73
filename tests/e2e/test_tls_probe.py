"""What the one port shows to a TLS probe: versions, ciphers, names, and which protocol asks for which certificate."""

import contextlib
import re
import shutil
import socket
import ssl
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from atoll.host.pem import pins
from tests.e2e.installation import Installation
from tunnel.identity import Authority, make_key_and_csr
from tunnel.wire import ALPN_CONTROL, ALPN_DATA, ALPN_JOIN, ALPN_UPLINK, ALPN_USER, CONTROL_NAME

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("tls")]

SUITES = {"TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256"}
OTHER_SUITES = {"TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_8_SHA256"}
HTTP = "http/1.1"
ASKS = {ALPN_CONTROL, ALPN_UPLINK}
"""Protocols whose clients must show a certificate of ours."""
ASKS_NOT = {ALPN_DATA, ALPN_USER, ALPN_JOIN, HTTP}
REFUSED = {
    "closed", "UNEXPECTED_EOF_WHILE_READING", "TLSV1_ALERT_PROTOCOL_VERSION", "TLSV13_ALERT_CERTIFICATE_REQUIRED",
    "TLSV1_ALERT_UNKNOWN_CA",
}  # fmt: skip
"""How a client sees that the handshake came to nothing: uvloop closes without the alert."""
openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


@dataclass
class Port:
    """The port, and certificates: an agent's, and a stranger's of another CA."""

    port: int
    ca: Path
    agent: tuple[Path, Path]
    stranger: tuple[Path, Path]

    def context(self, *protocols: str, certificate: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.ca))
        if protocols:
            context.set_alpn_protocols(list(protocols))
        if certificate:
            context.load_cert_chain(*certificate)
        return context

    def shake(self, context: ssl.SSLContext, say: bytes = b"") -> tuple[ssl.SSLSocket | None, str]:
        """Shake hands, say something, hear the answer; return the socket (None: refused) and what was heard."""
        plain = socket.create_connection(("127.0.0.1", self.port), 10)
        try:
            secured = context.wrap_socket(plain, server_hostname=CONTROL_NAME)
        except (ssl.SSLError, ConnectionError) as error:
            plain.close()
            return None, str(getattr(error, "reason", "") or "closed")
        secured.settimeout(0.7)
        heard = ""
        try:
            secured.sendall(say)
            heard = secured.recv(65536).decode("latin-1") or "closed"
        except TimeoutError:
            heard = "silent"
        except (ssl.SSLError, ConnectionError) as error:
            heard = str(getattr(error, "reason", "") or "closed")
        return secured, heard

    def probe(self, context: ssl.SSLContext, say: bytes = b"") -> str:
        """Return what was heard, or why not."""
        secured, heard = self.shake(context, say)
        if secured is not None:
            secured.close()
        return heard


@pytest.fixture(scope="module")
def port(running: Installation, tmp_path_factory: pytest.TempPathFactory) -> Port:
    home, other = running.home / "agent", tmp_path_factory.mktemp("other")
    foreign = Authority.load_or_create(other / "keys", now=time.time())
    (other / "cert.pem").write_text(foreign.sign_agent(make_key_and_csr(other), "a-1", generation=1, now=time.time()))
    return Port(
        running.port, home / "ca.pem", (home / "cert.pem", home / "key.pem"), (other / "cert.pem", other / "key.pem")
    )


GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("protocol", [*sorted(ASKS | ASKS_NOT), ""])
def test_nothing_older_than_tls_1_3(port: Port, protocol: str) -> None:
    context = port.context(*filter(None, [protocol]))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    secured, heard = port.shake(context)
    assert secured is None
    assert heard in REFUSED


@pytest.mark.parametrize("protocol", sorted(ASKS_NOT))
def test_what_is_agreed_on(port: Port, protocol: str) -> None:
    secured, _ = port.shake(port.context(protocol))
    assert secured is not None
    assert (secured.version(), secured.selected_alpn_protocol(), secured.compression()) == ("TLSv1.3", protocol, None)
    cipher = secured.cipher()
    assert cipher
    assert cipher[0] in SUITES
    secured.close()


def test_the_certificate(port: Port, running: Installation) -> None:
    secured, _ = port.shake(port.context(HTTP))
    assert secured is not None
    certificate: dict[str, Any] = dict(secured.getpeercert() or {})
    names = {value for _, value in certificate["subjectAltName"]}
    assert names >= {CONTROL_NAME, "localhost", "*.localhost", "127.0.0.1"}
    ends = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
    assert 0 < ends - time.time() <= 90 * 86400
    assert "Atoll installation CA" in str(certificate["issuer"])
    secured.close()
    stranger = port.context(HTTP)
    stranger.load_default_certs()
    assert port.probe(ssl.create_default_context()) == "CERTIFICATE_VERIFY_FAILED", "our CA alone vouches"
    shown = running.atoll("ca", "show", "-o", "json")
    assert pins(port.ca.read_text())[0] in shown


TABLE = {
    # (protocol, certificate): what happens
    (ALPN_CONTROL, "none"): "refused",
    (ALPN_CONTROL, "agent"): "served",
    (ALPN_CONTROL, "stranger"): "refused",
    (ALPN_UPLINK, "none"): "refused",
    (ALPN_UPLINK, "agent"): "turned away",
    (ALPN_UPLINK, "stranger"): "refused",
    **{(protocol, who): "served" for protocol in (HTTP, ALPN_JOIN) for who in ("none", "agent", "stranger")},
    **{(protocol, who): "turned away" for protocol in (ALPN_DATA, ALPN_USER) for who in ("none", "agent", "stranger")},
    **{("", who): "served" for who in ("none", "agent", "stranger")},
    **{(protocol, who): "refused" for protocol in ("h2", "atoll-ctl/2", "x") for who in ("none", "agent", "stranger")},
}


@pytest.mark.parametrize(("protocol", "who"), TABLE, ids=[f"{p or 'no protocol'} {w}" for p, w in TABLE])
def test_each_protocol_with_each_certificate(port: Port, protocol: str, who: str) -> None:
    certificate = {"none": None, "agent": port.agent, "stranger": port.stranger}[who]
    context = port.context(*filter(None, [protocol]), certificate=certificate)
    say = GET if protocol in (HTTP, ALPN_JOIN, "") else b"\0" * 64
    heard = port.probe(context, say)
    expected = TABLE[protocol, who]
    if expected == "served" and say == GET:
        assert heard.startswith("HTTP/1.1 200"), heard
    elif expected == "served":
        assert heard not in ("closed", "silent"), "a link says something: a ping, and why it does not like zeros"
        assert "ALERT" not in heard
    elif expected == "turned away":
        assert "HTTP" not in heard
        assert "ALERT" not in heard, "the handshake was fine; what was said was not"
        assert heard != "silent"
    else:
        assert heard in REFUSED


def test_the_first_known_protocol_of_several_is_taken_and_its_rule_holds(port: Port) -> None:
    assert port.probe(port.context(ALPN_CONTROL, HTTP), GET) in REFUSED
    assert port.probe(port.context("h2", HTTP, ALPN_CONTROL), GET).startswith("HTTP/1.1 200")


def _s_client(port: Port, *flags: str, say: str = "") -> str:
    argv = ["openssl", "s_client", "-connect", f"127.0.0.1:{port.port}", "-servername", CONTROL_NAME]
    done = subprocess.run(
        [*argv, "-CAfile", str(port.ca), *flags], input=say, capture_output=True, text=True, timeout=30, check=False
    )
    return done.stdout + done.stderr


@openssl
@pytest.mark.parametrize("suite", sorted(SUITES | OTHER_SUITES))
def test_cipher_suites(port: Port, suite: str) -> None:
    said = _s_client(port, "-alpn", HTTP, "-ciphersuites", suite, "-tls1_3")
    assert bool(re.search(rf"Cipher is {suite}", said)) == (suite in SUITES), said


@openssl
def test_what_openssl_sees(port: Port) -> None:
    said = _s_client(port, "-alpn", HTTP)
    assert "Verify return code: 0 (ok)" in said
    assert "Compression: NONE" in said
    assert "Early data was not sent" in said
    assert re.search(r"Server Temp Key: (X25519|ECDH|X25519MLKEM768)|Negotiated TLS1.3 group: \S+", said)
    for old in ("-ssl3", "-tls1", "-tls1_1", "-tls1_2"):
        with contextlib.suppress(subprocess.TimeoutExpired):
            assert "Cipher is (NONE)" in _s_client(port, old) or "unknown option" in _s_client(port, old).lower()
    assert "No client certificate CA names sent" in said


@openssl
@pytest.mark.parametrize("protocol", sorted(ASKS | ASKS_NOT))
def test_who_is_asked_for_a_certificate(port: Port, protocol: str) -> None:
    trace = _s_client(port, "-alpn", protocol, "-msg")
    assert ("CertificateRequest" in trace) == (protocol in ASKS)


@openssl
def test_no_renegotiation(port: Port) -> None:
    said = _s_client(port, "-alpn", HTTP, say="R\n")
    assert "RENEGOTIATING" not in said or "error" in said or "wrong ssl version" in said
