"""`atoll ca rotate` and `retire` as the control plane carries them out: who is told, who is behind, who is refused."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from atoll.errors import Conflict, Unauthorized
from atoll.host.pem import blocks, pins
from tests.fakes.agent import ScriptedAgent
from tests.federation.control.ring import CONFIG, Ring, until
from tunnel import certificates, wire
from tunnel.dialer import Dialer
from tunnel.identity import Authority, make_key_and_csr
from tunnel.link import Link

VIRTUAL_TIME = True


class KeepingAgent(ScriptedAgent):
    """Keeps what it is told to trust and the certificates that it gets, as far as its disk works."""

    def __init__(self, dialer: Dialer, csr: str, ca_pem: str, protocol: int = wire.PROTOCOL) -> None:
        super().__init__(dialer, protocol=protocol)
        self.csr = csr
        self.trusts = pins(ca_pem)
        self.disk = True
        self.certificate = ""

    def received(self, link: Link, message: wire.FromAgent | wire.FromControl) -> None:
        super().received(link, message)
        if self.protocol < wire.TRUSTS:
            return
        match message:
            case wire.Welcome():
                self._send(wire.Kept(authorities=self.trusts))
            case wire.Trust(ca=ca, renew_s=renew_s) if self.disk:
                self.trusts = pins(ca)
                self._send(wire.Kept(authorities=self.trusts))
                if renew_s is not None:
                    self._send(wire.Renew(csr=self.csr))
            case wire.Certificate(certificate=certificate, generation=generation) if self.disk:
                self.certificate = certificate
                self._send(wire.Kept(authorities=self.trusts, generation=generation))

    def told(self) -> list[wire.Trust]:
        return [message for message in self.got if isinstance(message, wire.Trust)]


class Hall(Ring):
    """A ring with a real certificate authority."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority.load_or_create(folder / "keys", now=time.time())
        super().__init__(config=replace(CONFIG, authority=self.authority))

    async def join(self, name: str, *, protocol: int = wire.PROTOCOL) -> KeepingAgent:
        _, secret = await self.control.tokens.create_join(site="here", group="hall")
        csr = make_key_and_csr(self.folder / name)
        joined = await self.control.tokens.join(secret, csr, name, {})
        dialer = self.network.dialer(joined.agent.id, generation=1)
        agent = KeepingAgent(dialer, csr, self.authority.ca_pem, protocol)
        self.agents[joined.agent.id] = agent
        await agent.dial()
        await asyncio.sleep(0.1)
        return agent

    async def until_moved(self) -> None:
        async def moved() -> bool:
            return not (await self.control.rotation.standing()).behind

        await until(moved, "everybody moved")


@asynccontextmanager
async def hall(folder: Path) -> AsyncIterator[Hall]:
    made = Hall(folder)
    await made.start()
    try:
        yield made
    finally:
        await made.close()


async def test_connected_agents_move_at_once_and_then_the_old_one_goes(tmp_path: Path) -> None:
    async with hall(tmp_path) as r:
        first, second = await r.join("first"), await r.join("second")
        old = r.authority.pin
        links = [first.link, second.link]
        await r.control.rotation.rotate(by="ada")
        new = r.authority.pin
        await r.until_moved()
        for agent in (first, second):
            assert agent.trusts == [new, old]
            assert certificates.agent_of(agent.certificate, agent.csr, blocks(r.authority.ca_pem)[0])
        standing = await r.control.rotation.retire(by="ada")
        assert [(each.pin, each.signs) for each in standing.authorities] == [(new, True)]
        await asyncio.sleep(0.1)
        assert first.trusts == second.trusts == [new]
        assert [first.link, second.link] == links, "no link was cut"
        assert len(first.told()) == 2, "told once of each change"
        events = await r.store.events(0, 1000, ("ca",))
        assert [(event.state, event.message) for event in events] == [("rotate", "by ada"), ("retire", "by ada")]


async def test_the_old_one_does_not_go_while_an_agent_would_be_locked_out(tmp_path: Path) -> None:
    async with hall(tmp_path) as r:
        asleep, old, stuck = await r.join("asleep"), await r.join("old", protocol=2), await r.join("stuck")
        assert asleep.link
        asleep.link.close("sleeps")
        stuck.disk = False
        standing = await r.control.rotation.rotate(by="ada")
        assert set(standing.behind) == {"asleep", "old", "stuck"}
        await asyncio.sleep(0.2)
        assert (await r.control.rotation.standing()).behind == {
            "asleep": "not connected since",
            "old": "too old: update it",
            "stuck": "renews within a minute",
        }
        assert old.told() == []
        with pytest.raises(Conflict, match="3 agents would be locked out: asleep: not connected since; old") as refused:
            await r.control.rotation.retire(by="ada")
        assert "--force" in refused.value.hint
        assert r.authority.rotating
        await r.control.rotation.retire(by="ada", force=True)
        [event] = [event for event in await r.store.events(0, 1000, ("ca",)) if event.state == "retire"]
        assert event.message == "by ada; locked out: asleep, old, stuck"


async def test_who_comes_back_in_the_overlap_moves_then(tmp_path: Path) -> None:
    async with hall(tmp_path) as r:
        agent = await r.join("asleep")
        assert agent.link
        agent.link.close("sleeps")
        await asyncio.sleep(0.1)
        await r.control.rotation.rotate(by="ada")
        assert set((await r.control.rotation.standing()).behind) == {"asleep"}
        await agent.dial()
        await r.until_moved()
        await r.control.rotation.retire(by="ada")


async def test_a_certificate_that_was_lost_on_its_way_is_asked_for_again_on_the_next_link(tmp_path: Path) -> None:
    async with hall(tmp_path) as r:
        agent = await r.join("desk")
        agent.disk = False
        await r.control.rotation.rotate(by="ada")
        agent._send(wire.Renew(csr=agent.csr))
        await asyncio.sleep(0.1)
        assert set((await r.control.rotation.standing()).behind) == {"desk"}, "issued, but not kept"
        assert agent.link
        agent.link.close("crash")
        await asyncio.sleep(0.1)
        agent.disk = True
        await agent.dial()
        await r.until_moved()


async def test_the_rotation_goes_on_after_a_restart(tmp_path: Path) -> None:
    async with hall(tmp_path) as r:
        agent = await r.join("desk")
        agent.disk = False
        await r.control.rotation.rotate(by="ada")
        r.authority = Authority.load_or_create(tmp_path / "keys", now=time.time())
        r.config = replace(CONFIG, authority=r.authority)
        await r.restart()
        agent.disk = True
        await agent.dial()
        await r.until_moved()


async def test_one_at_a_time(tmp_path: Path) -> None:
    async with hall(tmp_path) as r:
        with pytest.raises(Conflict, match="no CA is being rotated"):
            await r.control.rotation.retire(by="ada")
        await r.control.rotation.rotate(by="ada")
        with pytest.raises(Conflict, match="rotated already"):
            await r.control.rotation.rotate(by="bo")
        assert len(await r.store.events(0, 1000, ("ca",))) == 1


async def test_tokens_and_ended_certificates_of_before_are_good_in_the_overlap_only(tmp_path: Path) -> None:
    async with hall(tmp_path) as r:
        _, secret = await r.control.tokens.create_join(site="here", group="hall")
        csr = make_key_and_csr(tmp_path / "late")
        await r.control.rotation.rotate(by="ada")
        joined = await r.control.tokens.join(secret, csr, "late", {})
        key, old = joined.agent.id, joined.certificate
        assert set((await r.control.rotation.standing()).behind) == {"late"}, "what it trusts is not known yet"
        again = await r.control.tokens.renew(old, csr)
        assert certificates.agent_of(again, csr, blocks(r.authority.ca_pem)[0]) == (key, 2)
        await r.control.rotation.retire(by="ada", force=True)
        await r.control.rotation.rotate(by="ada")
        await r.control.rotation.retire(by="ada", force=True)
        with pytest.raises(Unauthorized, match="not one of this installation"):
            await r.control.tokens.renew(again, csr)
