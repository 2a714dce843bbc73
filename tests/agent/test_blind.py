"""Blind runs: the agent itself lets in streams alone that are encrypted to it, after a restart, too."""

import asyncio
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import structs

from atoll.host.system import SystemChance
from tests.agent.control import ME, RUN, until
from tests.agent.test_permission import GOOD, KEY, NOW, SECRET
from tests.agent.test_run import Echo, House, User
from tests.tunnel.conftest import join
from tunnel import wire
from tunnel.grant import relay_key, seal
from tunnel.identity import AgentIdentity, Authority
from tunnel.innertls import OwnKey, towards_agent
from tunnel.lanes import Lane
from tunnel.redial import RedialledTransport
from tunnel.relay import Relay
from tunnel.stream import StreamReset


class Dark:
    """An agent with a run that echoes on 8080, and streams to it."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority.load_or_create(folder / "ca", now=time.time())
        self.identity: AgentIdentity | None = join(self.authority, folder / "agent", "https://x", ME)
        self.own = OwnKey(time.time())
        self.house = House()
        self.relay = Relay(SystemChance())
        self.house.network.listen(self.house.control.accept, self.relay.accept)
        self.house.control.welcome = {"protocol": wire.GRANTS, "grant_key": KEY, "now": NOW}

    async def begin(self, times: int = 1) -> None:
        house = self.house
        inner = self.identity.inner_context if self.identity is not None else None
        house.begin(lines=house.network.dialer(ME, data=True), inner_context=inner)
        await house.registered(times)
        assert house.control.link is not None
        self.relay.linked(ME, house.control.link, boot=str(times), dials=True)

    async def run(self, *, blind: bool) -> None:
        self.house.runtime.apps[8080] = Echo
        self.house.control.start(apps={"web": 8080}, blind=blind)
        await until(lambda: self.house.control.states() == ["starting", "running"])

    async def stream(self, user: User, client: bytes, make: Callable[[asyncio.Protocol], asyncio.Protocol]) -> None:
        """Open a resumable stream that shows `client` as the user's certificate, and talk over it."""
        grant = structs.replace(GOOD, resume=os.urandom(16), client=hashlib.sha256(client).digest() if client else b"")
        asked = wire.OpenStream(run=RUN, port=8080, resume=grant.resume, client=client)
        asked = structs.replace(asked, grant=seal(grant, relay_key(SECRET), KEY))

        async def dial(made: Callable[[], asyncio.Protocol]) -> None:
            await self.relay.open(ME, asked, made(), lane=Lane.MUX)

        stream = RedialledTransport(grant.resume, dial, chance=SystemChance(), peer=ME)
        stream.attach(make(user))
        stream.start()

    def sealed(self, above: asyncio.Protocol) -> asyncio.Protocol:
        return towards_agent(self.own.context(self.authority.ca_pem), ME, above)

    async def refusal(self, client: bytes, make: Callable[[asyncio.Protocol], asyncio.Protocol]) -> str:
        user = User()
        await self.stream(user, client, make)
        await until(lambda: user.lost)
        assert isinstance(user.lost, StreamReset)
        assert user.got == b""
        return str(user.lost)

    async def talks(self, client: bytes, make: Callable[[asyncio.Protocol], asyncio.Protocol]) -> None:
        user = Talking()
        await self.stream(user, client, make)
        await until(lambda: user.got == b"hello")

    async def close(self) -> None:
        await self.house.shell.stop()
        await asyncio.gather(self.house.task, return_exceptions=True)
        self.relay.close("test over")


class Talking(User):
    """Says something as soon as it may."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        transport.write(b"hello")  # type: ignore[attr-defined]


def plain(above: asyncio.Protocol) -> asyncio.Protocol:
    return above


async def test_a_blind_run_is_entered_by_encrypted_streams_alone(tmp_path: Path) -> None:
    dark = Dark(tmp_path)
    await dark.begin()
    await dark.run(blind=True)
    assert "encrypted end to end, and no others" in await dark.refusal(b"", plain)
    await dark.talks(dark.own.certificate, dark.sealed)
    await dark.house.crash()
    await dark.begin(2)
    assert "encrypted end to end, and no others" in await dark.refusal(b"", plain)
    await dark.close()


async def test_any_run_may_be_entered_so(tmp_path: Path) -> None:
    dark = Dark(tmp_path)
    await dark.begin()
    await dark.run(blind=False)
    await dark.talks(dark.own.certificate, dark.sealed)
    await dark.talks(b"", plain)
    assert "certificate cannot be read" in await dark.refusal(b"no certificate", dark.sealed)
    await dark.close()


async def test_an_agent_without_a_certificate_says_so(tmp_path: Path) -> None:
    dark = Dark(tmp_path)
    dark.identity = None
    await dark.begin()
    await dark.run(blind=True)
    assert "no certificate" in await dark.refusal(dark.own.certificate, dark.sealed)
    await dark.close()


@pytest.mark.parametrize("shown", [b"", b"another's"])
async def test_a_grant_is_for_one_certificate(tmp_path: Path, shown: bytes) -> None:
    dark = Dark(tmp_path)
    await dark.begin()
    await dark.run(blind=False)
    grant = structs.replace(GOOD, client=hashlib.sha256(dark.own.certificate).digest())
    asked = wire.OpenStream(run=RUN, port=8080, client=shown, grant=seal(grant, relay_key(SECRET), KEY))
    user = User()
    await dark.relay.open(ME, asked, user, lane=Lane.MUX)
    await until(lambda: user.lost)
    assert user.got == b""
    await dark.close()
