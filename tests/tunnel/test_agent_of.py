"""Who a certificate and a request of its key are, for agents that slept past its end."""

import time
from pathlib import Path

import pytest

from atoll.errors import Invalid
from tunnel.identity import Authority, make_key_and_csr


def test_an_ended_certificate_still_says_who_its_key_is(tmp_path: Path) -> None:
    now = time.time()
    ours = Authority.load_or_create(tmp_path / "ours", now=now)
    theirs = Authority.load_or_create(tmp_path / "theirs", now=now)
    csr = make_key_and_csr(tmp_path / "agent")
    ended = ours.sign_agent(csr, "a-1", generation=3, now=now - 5 * 86400, ttl_s=86400)
    assert ours.agent_of(ended, make_key_and_csr(tmp_path / "agent")) == ("a-1", 3)
    for certificate, request in (
        (theirs.sign_agent(csr, "a-1", now=now, ttl_s=86400), csr),
        (ended, make_key_and_csr(tmp_path / "thief")),
        (ours.ca_pem, csr),
        ("nonsense", csr),
        (ended, "nonsense"),
    ):
        with pytest.raises(Invalid):
            ours.agent_of(certificate, request)
