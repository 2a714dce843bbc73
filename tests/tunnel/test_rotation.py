"""Two CAs at a time: who trusts either is served, and who trusts only the old one is not any more afterwards."""

import contextlib
import ssl
import time
from pathlib import Path

import pytest

from atoll.errors import Conflict, Invalid
from atoll.host.pem import blocks, pins
from tests.tunnel.conftest import join
from tunnel.certificates import validity
from tunnel.identity import AgentIdentity, Authority, make_key_and_csr
from tunnel.wire import ALPN_DATA, CONTROL_NAME

NOW = time.time()
STRANGERS = ("unable to get local issuer certificate", "self-signed certificate in certificate chain")


def meet(server: ssl.SSLContext, client: ssl.SSLContext) -> str:
    """Shake hands in memory; return the client's certificate's subject, or why an end refuses."""
    there, here, back, forth = ssl.MemoryBIO(), ssl.MemoryBIO(), ssl.MemoryBIO(), ssl.MemoryBIO()
    one = server.wrap_bio(there, here, server_side=True)
    two = client.wrap_bio(back, forth, server_hostname=CONTROL_NAME)
    try:
        for _ in range(4):
            for end in (two, one):
                with contextlib.suppress(ssl.SSLWantReadError):
                    end.do_handshake()
                there.write(forth.read())
                back.write(here.read())
        with contextlib.suppress(ssl.SSLWantReadError):
            two.read(1)
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    except ssl.SSLError as error:
        return error.reason
    return str((one.getpeercert() or {}).get("subject", "nobody"))


def knows(authority: Authority, folder: Path, ca_pem: str) -> AgentIdentity:
    return join(authority, folder, "https://x", ca_pem=ca_pem)


def test_both_are_trusted_in_the_overlap_and_only_the_new_one_afterwards(tmp_path: Path) -> None:
    authority = Authority.load_or_create(tmp_path / "keys", now=NOW)
    changes: list[str] = []
    authority.on_change = lambda: changes.append(authority.pin)
    old_ca, old_pin = authority.ca_pem, authority.pin
    before = knows(authority, tmp_path / "before", old_ca)
    assert "a-1" in meet(authority.control_context(), before.context())
    authority.rotate(NOW)
    assert authority.rotating
    assert authority.pin != old_pin
    assert pins(authority.ca_pem) == [authority.pin, old_pin]
    half = knows(authority, tmp_path / "half", old_ca)  # a new certificate, and only the old CA known
    after = knows(authority, tmp_path / "after", authority.ca_pem)
    for identity in (before, half, after):
        assert "a-1" in meet(authority.control_context(), identity.context())
        assert meet(authority.stream_context(ALPN_DATA), identity.data_context()) == "nobody"
    with pytest.raises(Conflict, match="already"):
        authority.rotate(NOW)
    authority.retire(NOW)
    assert pins(authority.ca_pem) == [authority.pin]
    assert "a-1" in meet(authority.control_context(), after.context())
    assert meet(authority.control_context(), before.context()) in STRANGERS
    assert meet(authority.control_context(), half.context()) in STRANGERS
    before.trust(authority.ca_pem)
    assert meet(authority.stream_context(ALPN_DATA), before.data_context()) == "nobody"
    assert meet(authority.control_context(), before.context()) in STRANGERS, "by the server, too"
    assert changes == [authority.pin] * 2
    with pytest.raises(Conflict, match="no CA"):
        authority.retire(NOW)


def test_a_certificate_that_has_ended_is_known_by_either(tmp_path: Path) -> None:
    authority = Authority.load_or_create(tmp_path / "keys", now=NOW)
    csr = make_key_and_csr(tmp_path / "agent")
    ended = authority.sign_agent(csr, "a-1", generation=3, now=NOW - 5 * 86400)
    authority.rotate(NOW)
    assert authority.agent_of(ended, csr) == ("a-1", 3)
    assert authority.agent_of(authority.sign_agent(csr, "a-1", generation=4, now=NOW), csr) == ("a-1", 4)
    authority.retire(NOW)
    with pytest.raises(Invalid, match="not one of this installation"):
        authority.agent_of(ended, csr)


def test_a_second_rotation_follows_the_first(tmp_path: Path) -> None:
    authority = Authority.load_or_create(tmp_path / "keys", now=NOW)
    seen = [authority.pin]
    for _ in range(2):
        authority.rotate(NOW)
        authority.retire(NOW)
        seen.append(authority.pin)
    assert len(set(seen)) == 3
    assert Authority.load_or_create(tmp_path / "keys", now=NOW).pin == seen[-1]


def test_the_state_survives_a_restart_and_the_old_key_is_gone(tmp_path: Path) -> None:
    authority = Authority.load_or_create(tmp_path, now=NOW)
    [old_key] = blocks((tmp_path / "ca.key").read_text())[:1]
    authority.rotate(NOW)
    again = Authority.load_or_create(tmp_path, now=NOW)
    assert (again.pin, again.ca_pem, again.rotating) == (authority.pin, authority.ca_pem, True)
    for path in tmp_path.iterdir():
        assert old_key not in path.read_text()
        assert path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "ca.pem").read_text() == authority.ca_pem
    authority.retire(NOW)
    assert not Authority.load_or_create(tmp_path, now=NOW).rotating


WRITTEN = ("ca.key", "ca.pem", "server.pem")
"""By a rotation, in this order."""


@pytest.mark.parametrize("written", range(len(WRITTEN) + 1))
def test_a_crash_leaves_the_old_state_or_the_new(tmp_path: Path, written: int) -> None:
    authority = Authority.load_or_create(tmp_path, now=NOW)
    before = authority.ca_pem
    files = {name: (tmp_path / name).read_bytes() for name in WRITTEN}
    authority.rotate(NOW)
    changed = {name for name in WRITTEN if (tmp_path / name).read_bytes() != files[name]}
    assert changed == set(WRITTEN)
    for name in WRITTEN[written:]:  # the crash came before this one
        (tmp_path / name).write_bytes(files[name])
    again = Authority.load_or_create(tmp_path, now=NOW)
    assert again.rotating == (written > 0)
    assert before in again.ca_pem
    assert "a-1" in meet(again.control_context(), knows(again, tmp_path / "old", before).context())
    assert "a-1" in meet(again.control_context(), knows(again, tmp_path / "new", again.ca_pem).context())


def test_the_servers_certificate_is_renewed_while_it_serves(tmp_path: Path) -> None:
    authority = Authority.load_or_create(tmp_path, now=NOW)
    changes: list[str] = []
    authority.on_change = lambda: changes.append((tmp_path / "server.pem").read_text())
    authority.keep(NOW + 59 * 86400)
    assert changes == []
    authority.keep(NOW + 61 * 86400)
    authority.keep(NOW + 61 * 86400)
    [renewed] = changes
    assert abs(validity(renewed)[1] - NOW - 151 * 86400) < 2


def test_keys_of_before_the_first_rotation_are_read(tmp_path: Path) -> None:
    authority = Authority.load_or_create(tmp_path, now=NOW)
    [key, _] = blocks((tmp_path / "ca.key").read_text())
    (tmp_path / "ca.key").write_text(key)
    assert Authority.load_or_create(tmp_path, now=NOW).pin == authority.pin
    (tmp_path / "ca.key").write_text("nonsense")
    with pytest.raises(Invalid, match=r"ca\.key is damaged"):
        Authority.load_or_create(tmp_path, now=NOW)


def test_an_agent_trusts_only_what_is_a_certificate(tmp_path: Path) -> None:
    authority = Authority.load_or_create(tmp_path / "keys", now=NOW)
    identity = knows(authority, tmp_path / "agent", authority.ca_pem)
    torn = authority.ca_pem.replace("M", "!", 1)
    for bad in ("", "nonsense", torn, make_key_and_csr(tmp_path / "agent")):
        with pytest.raises(Invalid):
            identity.trust(bad)
    assert identity.authorities == [authority.pin]
