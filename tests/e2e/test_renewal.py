"""An installation that slept for days comes back: the agent's certificate has ended meanwhile."""

import time

import pytest

from tests.e2e.installation import Installation
from tunnel.identity import AgentIdentity, Authority, make_key_and_csr

pytestmark = pytest.mark.e2e


def test_up_after_the_certificate_has_ended(fresh: Installation) -> None:
    fresh.up()
    [before] = fresh.agents()
    fresh.atoll("down")
    home = fresh.home / "agent"
    authority = Authority.load_or_create(fresh.home / "keys", now=time.time())
    ended = authority.sign_agent(
        make_key_and_csr(home), before["id"], generation=1, now=time.time() - 5 * 86400, ttl_s=86400
    )
    AgentIdentity(home).renew(ended)
    fresh.up()
    [after] = fresh.agents()
    assert (after["id"], after["connected"]) == (before["id"], True)
    assert AgentIdentity(home).expires_at > time.time()
    assert fresh.atoll("run", "--", "echo", "back") == "back\n"
