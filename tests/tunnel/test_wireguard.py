"""WireGuard interfaces: one suite for the real one, in a network namespace, and for the one in memory."""

import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.wireguard import FakeDevice
from tunnel import wireguard
from tunnel.wireguard import Device, DeviceError, PeerChange, PeerState, WgDevice, parse

SPACE = f"atoll-wg-{os.getpid()}"
NAME = f"atollt{os.getpid() % 10**8}"  # its own: wireguard-go keeps sockets by name, whatever the namespace


@pytest.fixture(params=["memory", "wg"])
async def device(request: Any) -> AsyncIterator[Device]:
    if request.param == "memory":
        yield FakeDevice()
        return
    if why := wireguard.unable():
        pytest.skip(f"no WireGuard here: {why}")
    try:
        subprocess.run(["ip", "netns", "add", SPACE], check=True, capture_output=True)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespace here: {error.stderr!r}")
    made = WgDevice(NAME, prefix=("ip", "netns", "exec", SPACE))
    try:
        yield made
    finally:
        await made.remove()
        subprocess.run(["ip", "netns", "delete", SPACE], check=True)


async def key(device: Device, path: Path) -> str:
    await device.make_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    return await device.public_key(path)


async def test_an_interface_is_made_once_and_removed_for_good(device: Device, tmp_path: Path) -> None:
    assert await device.show() is None
    mine = await key(device, tmp_path / "key")
    for port in (0, 4711):  # the second finds it there, and leaves it as it is
        await device.up(port)
    await device.use_key(tmp_path / "key")
    shown = await device.show()
    assert shown is not None
    assert (shown.key, shown.peers) == (mine, {})
    assert shown.port not in (0, 4711)
    for _ in range(2):
        await device.remove()
        assert await device.show() is None


async def test_it_listens_where_it_is_told(device: Device, tmp_path: Path) -> None:
    await device.up(47110)
    shown = await device.show()
    assert shown is not None
    assert shown.port == 47110
    assert await key(device, tmp_path / "a") != await key(device, tmp_path / "b")


async def test_peers_are_added_changed_and_removed(device: Device, tmp_path: Path) -> None:
    one, two = await key(device, tmp_path / "a"), await key(device, tmp_path / "b")
    await device.up(0)
    nets = ("fd00::/64", "10.8.0.0/16")
    await device.change([PeerChange(key=one, endpoint="192.0.2.1:99", allowed=nets, keepalive=20), PeerChange(key=two)])
    peers = (await device.show()).peers  # type: ignore[union-attr]
    assert peers[one] == PeerState(key=one, endpoint="192.0.2.1:99", allowed=nets, keepalive=20)
    assert peers[two] == PeerState(key=two)
    await device.change([PeerChange(key=two, allowed=nets), PeerChange(key=one, keepalive=0)])
    peers = (await device.show()).peers  # type: ignore[union-attr]
    assert (peers[one].allowed, set(peers[two].allowed)) == ((), set(nets))  # a network has one peer
    assert (peers[one].endpoint, peers[one].keepalive) == ("192.0.2.1:99", 0)
    await device.change([PeerChange(key=one, remove=True)])
    assert set((await device.show()).peers) == {two}  # type: ignore[union-attr]
    await device.change([])


async def test_a_change_without_an_interface_is_refused(device: Device, tmp_path: Path) -> None:
    one = await key(device, tmp_path / "a")
    with pytest.raises(DeviceError):
        await device.change([PeerChange(key=one)])
    with pytest.raises(DeviceError):
        await device.use_key(tmp_path / "a")


def inside(*words: str) -> list[str]:
    done = subprocess.run(["ip", "-n", SPACE, *words], capture_output=True, text=True, check=True)
    return [line.strip() for line in done.stdout.splitlines() if NAME in line]


async def test_routes_and_rules_are_just_those_that_are_wanted(device: Device) -> None:
    if not isinstance(device, WgDevice):
        pytest.skip("memory has no routes")
    await device.up(0)
    for _ in range(2):
        await device.route(["fd00::1", "100.64.0.1"], ["fd01::/64", "10.8.0.0/16"], ["10.1.0.0/16", "10.2.2.2/32"])
    assert [line.split()[0] for line in inside("-4", "route")] == ["10.8.0.0/16"]
    assert [line.split()[0] for line in inside("-6", "route") if "kernel" not in line] == ["fd01::/64"]
    assert sorted(inside("-4", "rule")) == [
        f"5209:\tfrom all to 10.1.0.0/16 iif {NAME} lookup main",
        f"5209:\tfrom all to 10.2.2.2 iif {NAME} lookup main",
        f"5210:\tfrom all iif {NAME} prohibit",
    ]
    assert inside("-6", "rule") == [f"5210:\tfrom all iif {NAME} prohibit"]
    await device.route(["100.64.0.1"], ["fd02::/64"], [])
    assert inside("-4", "route") == []
    assert [line.split()[0] for line in inside("-6", "route") if "kernel" not in line] == ["fd02::/64"]
    assert inside("-4", "rule") == [f"5210:\tfrom all iif {NAME} prohibit"]
    assert NAME not in {name for name, _ in await device.taken()}
    await device.remove()
    for family in ("-4", "-6"):
        assert inside(family, "rule") == inside(family, "route") == []


async def test_a_failed_command_says_what_and_why() -> None:
    device = WgDevice("atollnot", prefix=("sh", "-c", "echo no such luck >&2; exit 3"))
    with pytest.raises(DeviceError, match="`ip -j addr show` failed: no such luck"):
        await device.show()
    with pytest.raises(DeviceError, match="could not be started"):
        await WgDevice("atollnot", prefix=("/nonexistent",)).show()


def test_a_dump_is_read() -> None:
    dump = (
        "private=\tpublic=\t51820\toff\n"
        "one=\t(none)\t192.0.2.1:99\tfd00::/64,10.8.0.0/16\t1700000000\t180\t272\t20\n"
        "two=\t(none)\t(none)\t(none)\t0\t0\t0\toff\n"
    )
    shown = parse(dump)
    assert (shown.key, shown.port) == ("public=", 51820)
    assert shown.peers["one="].allowed == ("fd00::/64", "10.8.0.0/16")
    assert (shown.peers["one="].seen_at, shown.peers["one="].received, shown.peers["one="].sent) == (1.7e9, 180, 272)
    assert shown.peers["two="] == PeerState(key="two=")
    assert parse("(none)\t(none)\t0\toff\n").key == ""
