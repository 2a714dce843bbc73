"""An authority made once."""

import time
from pathlib import Path

import pytest

from tunnel.identity import AgentIdentity, Authority, make_key_and_csr


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.load_or_create(tmp_path_factory.mktemp("authority"), now=time.time())


def join(authority: Authority, directory: Path, url: str, agent_id: str = "a-1", ca_pem: str = "") -> AgentIdentity:
    """Do what a join does, without the HTTP."""
    certificate = authority.sign_agent(make_key_and_csr(directory), agent_id, now=time.time())
    return AgentIdentity.save(
        directory, agent_id=agent_id, url=url, ca_pem=ca_pem or authority.ca_pem, certificate_pem=certificate
    )
