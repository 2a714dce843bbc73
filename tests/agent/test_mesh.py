"""A gateway over an interface in memory: it does what is wanted within what its owner permits, and no more."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from agent.mesh import Gateway, interface_of
from agent.meshpermit import Permit
from agent.peering import changes, resolve
from atoll.errors import Invalid
from tests.agent.control import until
from tests.fakes.plane import FakeClock
from tests.fakes.wireguard import FakeDevice, Machine, public
from tunnel import wire
from tunnel.wireguard import PeerChange, PeerState, not_forwarding

A, B, C = (letter * 43 + "=" for letter in "ABC")
OWN = "fd00:0:0:1::1"


def peer(*keys: str, **more: object) -> wire.MeshPeer:
    given = {"site": "far", "endpoint": "192.0.2.1:51820", "allowed": ["fd00:0:0:2::/64"], **more}
    return wire.MeshPeer(keys=list(keys), **given)  # type: ignore[arg-type]


def wanted(*peers: wire.MeshPeer, **more: object) -> wire.MeshWanted:
    return wire.MeshWanted(addresses=[OWN], peers=list(peers), **more)  # type: ignore[arg-type]


class House:
    """A machine, the lives of its gateway, and what it says."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.machine = Machine()
        self.clock = FakeClock()
        self.said: list[wire.MeshStatus] = []
        self.gateway: Gateway
        self.task: asyncio.Task[None]

    def begin(self, permit: Permit | None = Permit(endpoint="a.example:51820"), unable: str = "") -> None:  # noqa: B008
        self.device = FakeDevice(self.machine)
        self.gateway = Gateway(self.device, self.directory, permit, self.clock, unable)
        self.task = asyncio.create_task(self.gateway.run())
        self.gateway.linked(self.said.append, "198.51.100.1")  # type: ignore[arg-type]

    async def tell(self, message: wire.MeshWanted) -> wire.MeshStatus:
        """Have something wanted; return what the gateway says after it."""
        await asyncio.sleep(0)
        self.said.clear()
        self.gateway.wanted(message)
        await until(lambda: bool(self.said))
        return self.said[-1]

    async def until_said(self, good: Callable[[wire.MeshStatus], bool]) -> None:
        await until(lambda: bool(self.said) and good(self.said[-1]))

    async def end(self, *, keep: bool) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.gateway.close(keep=keep)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = House(tmp_path / "mesh")
    house.begin()
    yield house
    await house.end(keep=True)


async def test_it_says_what_its_owner_permits_before_anything_is_wanted(house: House) -> None:
    await house.until_said(lambda status: status.endpoint == "a.example:51820")
    assert house.said[-1] == wire.MeshStatus(endpoint="a.example:51820")
    assert house.machine.shown is None


async def test_an_interface_is_made_as_it_is_wanted(house: House) -> None:
    status = await house.tell(wanted(peer(A)))
    assert (status.error, status.port) == ("", 51820)
    assert status.key == public((house.directory / "key").read_text())
    assert (house.directory / "key").stat().st_mode & 0o777 == 0o600
    assert status.peers == [wire.MeshPeerStatus(key=A, endpoint="192.0.2.1:51820")]
    shown = house.machine.shown
    assert shown is not None
    assert shown.peers[A].allowed == ("fd00:0:0:2::/64",)
    assert (house.machine.addresses, house.machine.reached) == ([OWN], ["fd00:0:0:2::/64"])
    house.device.shake(A, house.clock.now() - 3)
    status = await house.tell(wanted(peer(A)))
    assert status.peers[0].seen_s == pytest.approx(3)


async def test_nothing_wanted_leaves_nothing_behind(house: House) -> None:
    await house.tell(wanted(peer(A)))
    status = await house.tell(wire.MeshWanted())
    assert (status.key, house.machine.shown, house.machine.reached) == ("", None, [])
    assert not (house.directory / "key").exists()


async def test_the_next_process_adopts_it(house: House) -> None:
    first = await house.tell(wanted(peer(A)))
    house.device.shake(A, house.clock.now())
    await house.end(keep=True)
    house.said.clear()
    house.begin()
    await house.until_said(lambda status: status.key == first.key)  # before it is told anything
    assert (await house.tell(wanted(peer(A)))).key == first.key
    assert house.machine.keys == 1


async def test_the_end_of_the_agent_is_the_end_of_the_interface(house: House) -> None:
    await house.tell(wanted(peer(A)))
    await house.end(keep=False)
    assert house.machine.shown is None
    assert not house.directory.exists()


async def test_what_was_permitted_once_is_removed_when_it_is_not_any_more(house: House) -> None:
    await house.tell(wanted(peer(A)))
    await house.end(keep=True)
    house.said.clear()
    house.begin(permit=None)
    await until(lambda: house.machine.shown is None)
    house.gateway.wanted(wanted(peer(A)))
    await asyncio.sleep(0.05)
    assert (house.machine.shown, house.said) == (None, [])


async def test_a_machine_that_cannot_says_why(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.begin(unable="no `wg` there")
    await house.until_said(lambda status: status.unable == "no `wg` there")
    assert (await house.tell(wanted(peer(A)))).error == "no `wg` there"
    await house.end(keep=True)


async def test_keys_change_with_overlap(house: House) -> None:
    first = await house.tell(wanted(peer(A)))
    renewed = await house.tell(wanted(peer(A), renew=True))
    assert renewed.key == first.key
    assert renewed.next not in ("", first.key)
    again = await house.tell(wanted(peer(A), renew=True))
    assert again.next == renewed.next  # one at a time
    switched = await house.tell(wanted(peer(A), switch=renewed.next))
    assert (switched.key, switched.next) == (renewed.next, "")
    other = await house.tell(wanted(peer(A), switch=B))  # nobody's key: nothing happens
    assert other.key == switched.key


async def test_a_peers_next_key_takes_over_when_it_shakes_hands(house: House) -> None:
    await house.tell(wanted(peer(A)))
    house.device.shake(A, house.clock.now() - 50)
    await house.tell(wanted(peer(A, B)))
    shown = house.machine.shown
    assert shown is not None
    assert (shown.peers[A].allowed, shown.peers[B].allowed) == (("fd00:0:0:2::/64",), ())
    assert (shown.peers[B].keepalive, shown.peers[B].endpoint) == (0, "192.0.2.1:51820")
    house.device.shake(B, house.clock.now())
    await house.tell(wanted(peer(A, B)))
    shown = house.machine.shown
    assert shown is not None
    assert (shown.peers[A].allowed, shown.peers[B].allowed) == ((), ("fd00:0:0:2::/64",))
    status = await house.tell(wanted(peer(B)))
    assert {each.key for each in status.peers} == {B}


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (wanted(peer(A, allowed=["0.0.0.0/0"], endpoint="")), "private networks only"),
        (wanted(peer(A, allowed=["127.0.0.0/8"])), "private networks only"),
        (wanted(peer(A, allowed=["169.254.169.254/32"])), "private networks only"),
        (wanted(peer(A, allowed=["fd00:0:0:1::/64"])), "overlaps"),
        (wanted(peer(A, allowed=["10.7.0.0/16"])), "eth0"),
        (wanted(peer(A, allowed=["10.3.0.0/16"], endpoint="10.3.0.1:9")), "lies in its own"),
        (wanted(peer(A, endpoint="127.0.0.1:22")), "no gateway can be at"),
        (wanted(peer("-set")), "no WireGuard key"),
        (wanted(peer(A), peer(B, site="third")), "overlaps"),
        (wanted(peer(A), subnets=["10.1.0.0/16"]), "owner does not permit"),
    ],
)
async def test_what_may_not_be_is_refused_whoever_asks(house: House, message: wire.MeshWanted, why: str) -> None:
    house.machine.taken = [("eth0", "10.7.1.0/24")]
    await house.tell(wanted(peer(C)))
    status = await house.tell(message)
    assert why in status.error
    assert house.machine.reached == ["fd00:0:0:2::/64"]
    assert house.machine.shown is not None
    assert set(house.machine.shown.peers) == set()  # who is not wanted any more goes all the same
    assert (await house.tell(wanted(peer(A)))).error == ""


async def test_the_way_to_the_control_plane_is_not_taken(house: House) -> None:
    house.gateway.linked(house.said.append, "10.3.0.1")  # type: ignore[arg-type]
    assert "control plane" in (await house.tell(wanted(peer(A, allowed=["10.3.0.0/16"])))).error


async def test_a_failing_machine_is_told_and_tried_again(house: House) -> None:
    house.machine.broken = "`ip link` failed: no such luck"
    assert "no such luck" in (await house.tell(wanted(peer(A)))).error
    house.machine.broken = ""
    house.said.clear()
    house.gateway.linked(house.said.append, "")  # type: ignore[arg-type]
    await house.until_said(lambda status: not status.error and bool(status.key))


def test_of_peers_only_what_differs_is_changed() -> None:
    there = {A: PeerState(key=A, endpoint="192.0.2.9:1", allowed=("fd00:0:0:2::/64",), seen_at=5.0, keepalive=20)}
    assert changes([peer(A)], there, {}) == []  # it roamed: that is left alone
    assert changes([peer(A)], there, {"far": "192.0.2.1:51820"}) == [PeerChange(key=A, endpoint="192.0.2.1:51820")]
    assert changes([], there, {}) == [PeerChange(key=A, remove=True)]
    assert changes([peer(B, endpoint="")], {}, {}) == [PeerChange(key=B, allowed=("fd00:0:0:2::/64",), keepalive=20)]


async def test_endpoints_are_resolved_to_where_a_gateway_can_be() -> None:
    assert await resolve("192.0.2.1:7") == "192.0.2.1:7"
    assert await resolve("[2001:db8::1]:7") == "[2001:db8::1]:7"
    with pytest.raises(Invalid, match="no gateway can be at"):
        await resolve("localhost:7")


def test_a_machine_that_forwards_nothing_says_so(tmp_path: Path) -> None:
    (tmp_path / "ipv4").mkdir()
    (tmp_path / "ipv4" / "ip_forward").write_text("0\n")
    assert "net.ipv4.ip_forward is 0" in not_forwarding(["10.1.0.0/16"], tmp_path)
    assert not_forwarding([], tmp_path) == ""
    (tmp_path / "ipv4" / "ip_forward").write_text("1\n")
    assert not_forwarding(["10.1.0.0/16", "fd00::/64"], tmp_path) == ""


def test_a_permit_is_kept_and_checked(tmp_path: Path) -> None:
    assert Permit.load(tmp_path) is None
    permit = Permit(endpoint="a.example:51820", subnets=["10.1.0.0/16"])
    permit.save(tmp_path / "mesh")
    assert Permit.load(tmp_path / "mesh") == permit
    assert (permit.listens, Permit(port=7).listens, Permit().listens) == (51820, 7, 0)
    for bad in (Permit(endpoint="x"), Permit(port=70000), Permit(subnets=["0.0.0.0/0"])):
        with pytest.raises(Invalid):
            bad.save(tmp_path)
    (tmp_path / "permit.json").write_text("{")
    with pytest.raises(Invalid, match="damaged"):
        Permit.load(tmp_path)


def test_an_interface_has_a_name_that_linux_takes() -> None:
    assert len(interface_of("a-1")) <= 15
    assert interface_of("a-1") != interface_of("a-2")
