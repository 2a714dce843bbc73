"""An authority made once, and both event loops."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

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


@pytest.fixture(params=["stock", "uvloop"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    """A runner on each kind of loop; a traceback that a loop would have logged fails the test."""
    failures: list[dict[str, object]] = []

    def make() -> asyncio.AbstractEventLoop:
        loop = uvloop.new_event_loop() if request.param == "uvloop" else asyncio.SelectorEventLoop()
        loop.set_exception_handler(lambda _, context: failures.append(context))
        return loop

    with asyncio.Runner(loop_factory=make) as runner:
        yield runner
    assert failures == []
