"""`atoll mesh` against a small server: what it sends, prints and exits with."""

import json
from typing import Any

import pytest

from atoll import AsyncClient
from atoll.cli.main import main
from atoll.client.mesh import MeshEndView, MeshView
from tests.atoll.plane import TOKEN, Plane

Capture = pytest.CaptureFixture[str]


def end_view(site: str, **more: Any) -> MeshEndView:
    facts: dict[str, Any] = {
        "site": site, "networks": [f"fd00:0:0:{len(site)}::/64"], "subnets": [], "agent": f"a-{site}",
        "agent_name": f"gw-{site}", "connected": True, "addresses": [f"fd00:0:0:{len(site)}::1"], "key": "k",
        "next_key": "", "keyed_at": 0.0, "endpoint": "192.0.2.1:51820", "endpoint_given": True, "peer_endpoint": "",
        "handshake_s": 42.0, "received": 1024, "sent": 2048,
    }  # fmt: skip
    return MeshEndView(**{**facts, **more})


def mesh_view(state: str = "up", message: str = "", hint: str = "", **more: Any) -> MeshView:
    ends = [end_view("desk", **more), end_view("hall1")]
    return MeshView(state=state, message=message, hint=hint, ends=ends, since=0.0, created_at=0.0)


def test_two_sites_are_joined_once_it_is_up(logged_in: Plane, capsys: Capture) -> None:
    logged_in.meshes["hall1+desk"] = [mesh_view("pending", "not yet", "wait")]
    logged_in.meshes["desk+hall1"] = [mesh_view("pending", "not yet", "wait"), mesh_view()]
    subnets = ("--subnet", "hall1=10.20.0.0/16", "--subnet", "hall1=10.21.0.0/16")
    assert main(["mesh", "up", "hall1", "desk", *subnets]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "desk and hall1: up", "  gw-desk of desk: fd00:0:0:4::1", "  gw-hall1 of hall1: fd00:0:0:5::1",
    ]  # fmt: skip
    assert logged_in.bodies == [{"subnets": {"hall1": ["10.20.0.0/16", "10.21.0.0/16"]}}]
    assert main(["mesh", "up", "desk", "hall1", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["ends"][0]["handshake_s"] == 42.0


def test_what_is_missing_is_told(logged_in: Plane, capsys: Capture) -> None:
    logged_in.meshes["desk+hall1"] = [mesh_view("pending", "site desk has no gateway", "on one machine: …")]
    assert main(["mesh", "up", "desk", "hall1", "--timeout", "0.4s"]) == 124
    told = capsys.readouterr().err
    assert "desk and hall1 are not joined as wanted: site desk has no gateway" in told
    assert "on one machine" in told
    assert main(["mesh", "up", "desk", "hall1", "--no-wait"]) == 0
    assert "site desk has no gateway" in capsys.readouterr().err


def test_meshes_are_listed_with_what_is_wrong(logged_in: Plane, capsys: Capture) -> None:
    assert main(["mesh", "list"]) == 0
    assert "no meshes" in capsys.readouterr().err
    logged_in.meshes["desk+hall1"] = [mesh_view("degraded", "gw-desk is not connected", "look there")]
    assert main(["mesh", "list"]) == 0
    told = capsys.readouterr()
    words = told.out.splitlines()[1]
    assert "desk - hall1  degraded  gw-desk - gw-hall1" in words
    assert "42s ago" in words
    assert "2KiB - 2KiB" in words
    assert "desk and hall1: gw-desk is not connected" in told.err
    logged_in.meshes["desk+hall1"] = [mesh_view(handshake_s=None)]
    assert main(["mesh", "list", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["ends"][0]["handshake_s"] is None


def test_keys_are_changed_and_sites_parted(logged_in: Plane, capsys: Capture) -> None:
    logged_in.meshes["desk+hall1"] = [mesh_view()]
    assert main(["mesh", "rotate", "desk", "hall1"]) == 0
    assert main(["mesh", "down", "desk", "hall1"]) == 0
    assert "are parted" in capsys.readouterr().out
    assert main(["mesh", "down", "desk", "hall1"]) == 122


@pytest.mark.parametrize("text", ["10.20.0.0/16", "hall1=", "=10.20.0.0/16"])
def test_a_subnet_names_its_site(logged_in: Plane, capsys: Capture, text: str) -> None:
    assert main(["mesh", "up", "desk", "hall1", "--subnet", text]) == 120
    assert "SITE=CIDR" in capsys.readouterr().err


async def test_both_clients_have_it(plane: Plane) -> None:
    plane.meshes["desk+hall1"] = [mesh_view()]
    async with AsyncClient(plane.url, TOKEN) as client:
        assert (await client.mesh_up("desk", "hall1", {"desk": ["10.1.0.0/16"]})).state == "up"
        assert len(await client.meshes()) == 1
        assert (await client.mesh("desk", "hall1")).ends[1].site == "hall1"
        assert (await client.mesh_rotate("desk", "hall1")).state == "up"
        await client.mesh_down("desk", "hall1")
    assert plane.meshes == {}
