"""Renewal with a real authority: the request comes from a process of its own, the key stays."""

import time
from pathlib import Path

from agent.renewal import IdentityRenewal
from atoll.host.system import SystemClock
from tunnel.identity import AgentIdentity, Authority, make_key_and_csr


async def test_a_certificate_is_renewed_at_half_of_its_life(tmp_path: Path) -> None:
    authority = Authority.load_or_create(tmp_path / "authority", now=time.time())
    home = tmp_path / "agent"
    old = authority.sign_agent(make_key_and_csr(home), "a-1", now=time.time() - 60, ttl_s=100)
    identity = AgentIdentity.save(home, agent_id="a-1", url="https://x", ca_pem=authority.ca_pem, certificate_pem=old)
    renewal = IdentityRenewal(identity, home, SystemClock())
    assert renewal.due_in() < 0
    key = (home / "key.pem").read_bytes()
    request = await renewal.request()
    renewal.install(authority.sign_agent(request, "a-1", now=time.time(), ttl_s=1000))
    assert 0 < renewal.due_in() <= 500
    assert (home / "key.pem").read_bytes() == key
    assert AgentIdentity(home).expires_at == identity.expires_at
    identity.context()
