"""Meshes over real agents' gateways, whose interfaces are in memory: who is asked for what, when, and what is told."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import pytest

from agent.mesh import Gateway
from agent.meshpermit import Permit
from atoll.errors import Conflict, Invalid, NotFound
from atoll.mesh import MeshState
from atoll.site import Site
from federation.control.mesh import Standing
from tests.fakes.agent import ScriptedAgent
from tests.fakes.wireguard import FakeDevice, Machine
from tests.federation.control.ring import CONFIG, Ring, ring, until
from tests.sim.clocks import SimClock
from tests.tunnel import virtual
from tunnel import wire
from tunnel.link import Link

VIRTUAL_TIME = True

T = TypeVar("T")
ROTATE_S = 300.0


class Peer:
    """A site's machine: a scripted agent with a real gateway over an interface in memory."""

    def __init__(self, world: "World", agent: ScriptedAgent, folder: Path, permit: Permit) -> None:
        self.world = world
        self.agent = agent
        self.folder = folder
        self.machine = Machine()
        self.device = FakeDevice(self.machine)
        self.permit = permit
        self.got: list[wire.MeshWanted] = []
        self.gateway: Gateway
        self.task: asyncio.Task[None]
        self._received = agent.received
        agent.received = self.received  # type: ignore[method-assign]
        self.begin()

    def begin(self) -> None:
        self.gateway = Gateway(self.device, self.folder, self.permit, self.world.ring.clock)
        self.task = asyncio.create_task(self.gateway.run())
        if self.agent.link:
            self.gateway.linked(self.agent.link.send, "")

    def received(self, link: Link, message: Any) -> None:
        self._received(link, message)
        if isinstance(message, wire.Welcome):
            self.gateway.linked(link.send, "")
        if isinstance(message, wire.MeshWanted):
            self.got.append(message)
            self.gateway.wanted(message)

    def unlink(self) -> None:
        assert self.agent.link
        self.agent.link.close("test")

    @property
    def key(self) -> str:
        return self.machine.shown.key if self.machine.shown else ""

    @property
    def peers(self) -> set[str]:
        return set(self.machine.shown.peers) if self.machine.shown else set()


class World:
    """A control plane, its sites' machines, and UDP between those that know each other's keys, unless it is `cut`."""

    def __init__(self, made: Ring, folder: Path) -> None:
        self.ring = made
        self.folder = folder
        self.peers: dict[str, Peer] = {}
        self.cut = False
        self.shakes = asyncio.create_task(self._shake())

    async def site(self, site: str, name: str = "", *, subnets: tuple[str, ...] = (), endpoint: str = "") -> Peer:
        name = name or f"gw-{site}"
        agent = await self.ring.agent(group=name, site=site)
        permit = Permit(endpoint=endpoint or "192.0.2.1:51820", subnets=list(subnets))
        made = self.peers[name] = Peer(self, agent, self.folder / name, permit)
        return made

    async def until(self, state: MeshState, *words: str, sites: tuple[str, str] = ("a", "b")) -> Standing:
        async def there() -> Standing | None:
            found = await self.ring.control.meshes.get(*sites)
            text = f"{found.mesh.message} {found.mesh.hint}"
            return found if found.mesh.state is state and all(word in text for word in words) else None

        try:
            return await until(there, f"{state} {words}", within=400)
        except AssertionError:
            raise AssertionError(f"{state} {words}: {(await self.ring.control.meshes.get(*sites)).mesh}") from None

    async def when(self, good: Callable[[], bool], story: str) -> None:
        async def there() -> bool:
            return good()

        await until(there, story, within=400)

    async def _shake(self) -> None:
        while True:
            await asyncio.sleep(0.1)
            now = self.ring.clock.now()
            for one in self.peers.values():
                for other in self.peers.values():
                    if one is not other and not self.cut and one.key in other.peers and other.key in one.peers:
                        one.device.shake(other.key, now)

    async def close(self) -> None:
        for task in (self.shakes, *(peer.task for peer in self.peers.values())):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    async def aside(call: Callable[..., T], *args: object) -> T:
        return call(*args)

    clock = SimClock(asyncio.get_running_loop())
    made = Ring(aside=aside, clock=clock, config=replace(CONFIG, mesh_rotate_s=ROTATE_S))
    await made.start()
    with TemporaryDirectory() as folder:
        found = World(made, Path(folder))
        try:
            yield found
        finally:
            await found.close()
            await made.close()


def played(story: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with world() as found:
            await story(found)

    virtual.run(main())


async def joined(w: World) -> tuple[Peer, Peer]:
    one, other = await w.site("a"), await w.site("b")
    await w.ring.control.meshes.up("b", "a", {}, by="ada")
    await w.until(MeshState.UP)
    return one, other


def test_two_sites_are_joined_and_parted() -> None:
    async def story(w: World) -> None:
        one, other = await joined(w)
        standing = await w.until(MeshState.UP)
        first, second = standing.ends
        assert (first.end.site, first.agent_name, second.agent_name) == ("a", "gw-a", "gw-b")
        assert (first.end.key, second.end.key) == (one.key, other.key)
        assert one.peers == {other.key}
        assert set(one.machine.addresses) == set(first.end.addresses)
        assert one.machine.reached == list(second.end.networks)
        assert first.handshake_s is not None
        assert one.got[-1].peers[0].endpoint == "192.0.2.1:51820"
        events = [event.state for event in await w.ring.store.events(0, 1000, ("mesh",))]
        assert events[0] == "created"
        assert events[-1] == "up"
        await w.ring.control.meshes.down("a", "b", by="ada")
        await w.when(lambda: one.machine.shown is None and other.machine.shown is None, "both gone")
        assert await w.ring.control.meshes.list() == []
        with pytest.raises(NotFound, match="no mesh between a and b"):
            await w.ring.control.meshes.down("a", "b", by="ada")

    played(story)


def test_a_gateway_that_was_away_removes_it_when_it_is_back() -> None:
    async def story(w: World) -> None:
        one, other = await joined(w)
        one.unlink()
        await w.when(lambda: one.agent.link is None, "unlinked")
        await w.ring.control.meshes.down("a", "b", by="ada")
        await w.when(lambda: other.machine.shown is None, "the other's gone")
        assert one.machine.shown is not None
        await one.agent.dial()
        await w.when(lambda: one.machine.shown is None, "gone")

    played(story)


def test_what_is_missing_is_told() -> None:
    async def story(w: World) -> None:
        await w.ring.agent(group="plain", site="a")
        await w.ring.agent(group="plain-b", site="b")
        await w.ring.control.meshes.up("a", "b", {"b": ["10.2.0.0/16"]}, by="ada")
        await w.until(MeshState.PENDING, "site a has no gateway", "atoll agent mesh")
        await w.site("a", endpoint="192.0.2.1:51820")
        await w.until(MeshState.PENDING, "site b has no gateway")
        await w.site("b", "small")
        await w.until(MeshState.PENDING, "no agent of b is permitted to let others reach 10.2.0.0/16")
        w.cut = True
        await w.site("b", "large", subnets=("10.2.0.0/15",))
        standing = await w.until(MeshState.DOWN, "no handshake", "UDP does not pass")
        assert standing.ends[1].agent_name == "large"
        w.cut = False
        await w.until(MeshState.UP)
        assert w.peers["large"].machine.admitted == ["10.2.0.0/16"]
        assert w.peers["gw-a"].machine.reached == [*standing.ends[1].end.networks, "10.2.0.0/16"]

    played(story)


def test_an_error_at_a_gateway_is_told() -> None:
    async def story(w: World) -> None:
        one, _ = await joined(w)
        one.machine.taken = [("eth0", "10.2.1.0/24")]
        other = await w.site("b", "wide", subnets=("10.2.0.0/16",))
        await w.ring.control.meshes.up("a", "b", {"b": ["10.2.0.0/16"]}, by="ada")
        await w.until(MeshState.PENDING, "overlaps", "gw-a")
        one.machine.taken = []
        await w.until(MeshState.UP)
        assert other.key in one.peers

    played(story)


def test_keys_change_one_after_the_other_and_old_ones_go() -> None:
    async def story(w: World) -> None:
        one, other = await joined(w)
        before = (one.key, other.key)
        await w.ring.control.meshes.rotate("a", "b", by="ada")
        await w.when(lambda: one.key != before[0] and other.key != before[1], "both new")
        await w.when(lambda: one.peers == {other.key} and other.peers == {one.key}, "the old ones gone")
        used = [message.switch for peer in (one, other) for message in peer.got if message.switch]
        assert set(used) == {one.key, other.key}
        standing = await w.until(MeshState.UP)
        assert [(end.end.key, end.end.next) for end in standing.ends] == [(one.key, ""), (other.key, "")]

    played(story)


def test_keys_change_by_themselves_and_wait_for_a_peer_that_is_away() -> None:
    async def story(w: World) -> None:
        one, other = await joined(w)
        before = one.key
        other.unlink()
        await w.when(lambda: other.agent.link is None, "unlinked")
        await w.ring.control.meshes.rotate("a", "b", by="ada")
        await asyncio.sleep(60)
        assert one.key == before, "the other does not know the new one yet"
        assert (await w.until(MeshState.DEGRADED, "is not connected")).ends[0].end.next
        await other.agent.dial()
        await w.when(lambda: one.key != before, "changed")
        await w.until(MeshState.UP)
        again = one.key
        await asyncio.sleep(ROTATE_S / 2)
        assert one.key == again
        await asyncio.sleep(ROTATE_S)
        assert one.key != again

    played(story)


def test_a_restart_of_the_control_plane_changes_nothing() -> None:
    async def story(w: World) -> None:
        one, other = await joined(w)
        await w.site("a", "a-better-name")
        shown = (one.machine.shown, other.machine.shown)
        told = len(one.got)
        await w.ring.restart()
        await w.peers["a-better-name"].agent.dial()
        await one.agent.dial()
        await asyncio.sleep(5)
        assert len(one.got) == told + 1, "told once on its new link"
        assert one.got[-1].peers == one.got[-2].peers
        await other.agent.dial()
        standing = await w.until(MeshState.UP)
        assert standing.ends[0].agent_name == "gw-a"
        assert one.machine.shown is not None
        assert shown[0] is not None
        assert one.machine.shown.key == shown[0].key

    played(story)


def test_another_agent_takes_over_when_bytes_stop() -> None:
    async def story(w: World) -> None:
        one, other = await joined(w)
        spare = await w.site("a", "spare")
        one.unlink()
        await asyncio.sleep(100)
        assert other.peers == {one.key}, "bytes pass: its own link is no reason"
        one.task.cancel()
        one.machine.shown = None  # the machine is gone
        await w.when(lambda: other.peers == {spare.key}, "the spare one's key")
        standing = await w.until(MeshState.UP)
        assert standing.ends[0].agent_name == "spare"

    played(story)


def test_a_revoked_gateway_is_no_peer_any_more_at_once() -> None:
    async def story(w: World) -> None:
        one, other = await joined(w)
        assert other.peers == {one.key}
        await w.ring.control.agents.revoke("gw-a", by="ada")
        await asyncio.sleep(1.0)
        assert other.peers == set()
        await w.until(MeshState.DOWN, "site a has no gateway")

    played(story)


def test_a_gateway_may_serve_several_meshes() -> None:
    async def story(w: World) -> None:
        one, other = await joined(w)
        third = await w.site("c")
        await w.ring.control.meshes.up("a", "c", {}, by="ada")
        standing = await w.until(MeshState.UP, sites=("a", "c"))
        assert one.peers == {other.key, third.key}
        assert len(one.machine.addresses) == 2, "a site has the same prefixes in all its meshes"
        await w.ring.control.meshes.rotate("a", "c", by="ada")
        keys = {one.key, third.key}
        await w.when(lambda: not keys & {one.key, third.key}, "both new")
        await w.when(lambda: other.peers == third.peers == {one.key}, "known to all")
        await w.ring.control.meshes.down("a", "c", by="ada")
        await w.when(lambda: one.peers == {other.key} and third.machine.shown is None, "one left")
        assert standing.mesh.name == "a+c"

    played(story)


async def test_mistakes_are_told() -> None:
    async with ring() as r:
        for site in ("hall", "desk", "attic"):
            await r.control.sites.create(Site(name=site))
        up = r.control.meshes.up
        with pytest.raises(NotFound, match="no site 'hal'") as missing:
            await up("hal", "desk", {}, by="ada")
        assert "hall" in missing.value.hint
        with pytest.raises(Invalid, match="with itself"):
            await up("desk", "desk", {}, by="ada")
        with pytest.raises(Invalid, match="not of this mesh"):
            await up("hall", "desk", {"attic": ["10.1.0.0/16"]}, by="ada")
        with pytest.raises(Invalid, match="private networks only"):
            await up("hall", "desk", {"hall": ["0.0.0.0/0"]}, by="ada")
        with pytest.raises(Invalid, match="too many"):
            await up("hall", "desk", {"hall": [f"10.{n}.0.0/16" for n in range(40)]}, by="ada")
        await up("hall", "desk", {"hall": ["10.1.0.0/16"]}, by="ada")
        with pytest.raises(Invalid, match="of hall overlaps"):
            await up("attic", "desk", {"attic": ["10.1.2.0/24"]}, by="ada")
        assert [each.mesh.name for each in await r.control.meshes.list()] == ["desk+hall"]
        assert (await r.control.meshes.get("hall", "desk")).mesh.name == "desk+hall"
        with pytest.raises(Conflict, match="in use by the mesh of desk and hall"):
            await r.control.sites.delete("hall")
        await up("desk", "hall", {}, by="ada")  # again, without the network
        assert (await r.control.meshes.get("hall", "desk")).mesh.ends[1].subnets == ()
