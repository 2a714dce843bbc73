"""What follows from what gateways say: also from what makes no sense, or is meant ill."""

from dataclasses import replace

import pytest

from atoll.mesh import End, Mesh, MeshState
from federation.control.peering import Heard, judged, sane, settled, told
from tunnel import wire

VIRTUAL_TIME = True

A, B, C = (letter * 43 + "=" for letter in "ABC")
MESH = Mesh(
    name="a+b",
    ends=(End(site="a", networks=("fd00:0:0:1::/64",)), End(site="b", networks=("fd00:0:0:2::/64",))),
    state=MeshState.UP,
)


def heard(site: str, key: str, *, came_from: str = "192.0.2.7", **status: object) -> Heard:
    word = wire.MeshStatus(key=key, port=40000, **status)  # type: ignore[arg-type]
    return Heard(agent=f"ag-{site}", name=f"gw-{site}", site=site, connected=True, status=word, came_from=came_from)


def after(*said: Heard, now: float = 1000.0) -> Mesh:
    reports = {each.agent: each for each in said}
    return judged(settled(MESH, reports, set(reports), now), reports, now + 20)


def test_a_gateway_is_looked_for_where_the_control_plane_sees_it() -> None:
    found = after(heard("a", A, endpoint="a.example:51820"), heard("b", B, came_from="2001:db8::7"))
    assert [(end.endpoint, end.given) for end in found.ends] == [
        ("a.example:51820", True),
        ("[2001:db8::7]:40000", False),
    ]
    nowhere = after(heard("a", A, came_from="127.0.0.1"), heard("b", B, came_from=""))
    assert [end.endpoint for end in nowhere.ends] == ["", ""]


def test_two_that_cannot_hear_each_other_are_told_what_they_need() -> None:
    natted = after(heard("a", A), heard("b", B))
    assert natted.state is MeshState.DOWN
    assert "both gateways seem to be behind NAT; tried 192.0.2.7:40000 (a) and 192.0.2.7:40000 (b)" in natted.message
    assert "atoll agent mesh --endpoint HOST:PORT" in natted.hint
    given = after(heard("a", A, endpoint="a.example:51820"), heard("b", B))
    assert "UDP does not pass between a.example:51820 (a)" in given.message
    assert "open that UDP port" in given.hint


def test_a_handshake_of_either_end_is_enough_while_it_is_fresh() -> None:
    peer = wire.MeshPeerStatus(key=B, seen_s=100.0)
    assert after(heard("a", A, peers=[peer]), heard("b", B)).state is MeshState.UP
    old = replace(heard("a", A, peers=[peer]), age=90.0)
    assert after(old, heard("b", B)).state is MeshState.DOWN


def test_one_with_an_endpoint_is_preferred() -> None:
    plain, better = heard("a", A), replace(heard("a", C, endpoint="a.example:1"), agent="ag-x", name="z")
    assert after(plain, better, heard("b", B)).ends[0].agent == "ag-x"


@pytest.mark.parametrize(
    "status",
    [
        wire.MeshStatus(key="-set"),
        wire.MeshStatus(key=A, next="x"),
        wire.MeshStatus(key=A, peers=[wire.MeshPeerStatus(key="\x1b[2J")]),
        wire.MeshStatus(subnets=["0.0.0.0/0"]),
        wire.MeshStatus(subnets=["nonsense"]),
        wire.MeshStatus(endpoint="127.0.0.1:1"),
        wire.MeshStatus(endpoint="x"),
        wire.MeshStatus(key=C),
        wire.MeshStatus(next=C),
        wire.MeshStatus(port=-1),
        wire.MeshStatus(peers=[wire.MeshPeerStatus(key=A)] * 300),
    ],
)
def test_who_makes_no_sense_is_no_gateway(status: wire.MeshStatus) -> None:
    found = sane(status, {C})
    assert found.unable.startswith("what it says makes no sense")
    assert found.unable.isprintable()
    assert (found.key, found.next, found.peers, found.subnets, found.endpoint) == ("", "", [], [], "")


def test_a_sound_word_is_taken_as_it_is_but_for_what_a_terminal_would_do() -> None:
    word = wire.MeshStatus(key=A, error="no\x1b[2J" + "x" * 999, subnets=["10.1.0.0/16"], endpoint="a.example:7")
    found = sane(word, {C})
    assert (found.key, found.subnets, found.endpoint) == (A, ["10.1.0.0/16"], "a.example:7")
    assert found.error.startswith("no?[2Jx")
    assert len(found.error) == 300


def test_no_peer_is_named_before_its_key_is_known() -> None:
    reports = {each.agent: each for each in (heard("a", A), heard("b", ""))}
    mesh = settled(MESH, reports, set(reports), 0.0)
    assert told("ag-a", [mesh], reports, 0.0, 60.0).peers == []
    assert [peer.keys for peer in told("ag-b", [mesh], reports, 0.0, 60.0).peers] == [[A]]
    assert told("ag-x", [mesh], reports, 0.0, 60.0) == wire.MeshWanted()
