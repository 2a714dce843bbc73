"""Links and pings over the API, with the real control plane, links and relay."""

import asyncio
import re
import socket

import pytest

from atoll.cli.links import LINKS, _from_here, report
from atoll.cli.output import show
from atoll.client.linkviews import PingView
from atoll.client.synchronous import Client
from federation.control.linkfacts import Pings
from tests.fakes.tunnelled import TunnelledAgent
from tests.federation.api.test_through import Whole, whole
from tunnel import wire
from tunnel.lanes import Lane

__all__ = ["whole"]


async def test_a_ping_goes_over_the_link_and_a_stream_on_each_lane(whole: Whole) -> None:
    found: PingView = await whole.server.good("POST", "/v1/links/box:ping", {"count": 3})
    assert {each.use: each.lane for each in found.choices} == {"short": "mux", "bulk": "data"}
    assert [(each.way, each.sent, each.lost, each.error) for each in found.pings] == [
        ("link", 3, 0, ""),
        ("mux", 3, 0, ""),
        ("data", 3, 0, ""),
    ]
    for each in found.pings:
        assert each.min_ms is not None
        assert each.median_ms is not None
        assert each.max_ms is not None
        assert 0 <= each.min_ms <= each.median_ms <= each.max_ms
    link = found.link
    assert (link.name, link.connected, link.protocol, link.connects, link.drops) == ("box", True, wire.PROTOCOL, 1, 0)
    lanes = {each.lane: each for each in link.lanes}
    assert (lanes["mux"].opens, lanes["data"].opens) == (1, 1)
    assert lanes["data"].sent == lanes["data"].received == lanes["mux"].sent == 3 * 16
    async with asyncio.timeout(60):  # the streams of the ping end with it
        while any(whole.relay.carried(link.agent).streams.values()):
            await asyncio.sleep(0.01)


async def test_an_agent_that_makes_no_data_connection_is_pinged_over_its_link(whole: Whole) -> None:
    assert whole.agent._lines is not None
    whole.agent._lines.dial = lambda tokens, *, splice=False: None  # type: ignore[method-assign]
    found: PingView = await whole.server.good("POST", "/v1/links/box:ping", {"count": 1})
    bulk = next(each for each in found.choices if each.use == "bulk")
    assert (bulk.lane, bulk.why) == ("mux", "bulk, but the agent made no data connection in time")
    data = next(each for each in found.pings if each.way == "data")
    assert (data.sent, data.error) == (0, bulk.why)
    assert whole.relay.carried(found.link.agent).lanes[Lane.DATA].refused == {"NO_DATA_CONNECTION": 1}


async def test_an_agent_of_an_older_protocol_has_link_pings_only(whole: Whole) -> None:
    old = TunnelledAgent(whole.agent._id, whole.agent._apps, protocol=wire.ECHOES - 1)
    await old.connect(whole.network)
    found: PingView = await whole.server.good("POST", "/v1/links/box:ping", {"count": 2})
    assert [(each.way, each.sent) for each in found.pings] == [("link", 2), ("mux", 0), ("data", 0)]
    assert found.choices == []
    assert "too old" in found.pings[1].error


async def test_unknown_and_disconnected_agents_are_said_clearly(whole: Whole) -> None:
    status, problem = await whole.server.ask("POST", "/v1/links/nobody:ping", {"count": 1})
    assert (status, problem.code) == (404, "NOT_FOUND")
    whole.network.reset(whole.agent._id)
    async with asyncio.timeout(60):
        while (link := (await whole.server.good("GET", "/v1/links")).items[0]).connected:
            await asyncio.sleep(0.01)
    assert (link.drops, link.since, link.rtt_ms) == (1, None, None)
    assert link.drop_reason
    status, problem = await whole.server.ask("POST", "/v1/links/box:ping", {"count": 1})
    assert (status, problem.code) == (503, "UNAVAILABLE")
    assert problem.detail.startswith("agent box is not connected: last seen ")
    assert link.drop_reason in problem.detail
    assert "atoll why box" in problem.hint


@pytest.mark.parametrize("count", [0, -1, 101])
async def test_the_number_of_pings_is_limited(whole: Whole, count: int) -> None:
    status, problem = await whole.server.ask("POST", "/v1/links/box:ping", {"count": count})
    assert (status, problem.hint) == (400, "1 to 100")


async def test_the_command_line_tells_what_a_ping_found(whole: Whole, capsys: pytest.CaptureFixture[str]) -> None:
    client = Client(whole.server.url, token=whole.server.bearer["Authorization"].partition(" ")[2])
    found = await asyncio.to_thread(lambda: client.ping("box", count=2))
    lines = report(found).splitlines()
    assert lines[0].startswith("box is connected for ")
    assert lines[0].endswith("; protocol 3, no proxy; never lost since the control plane began")
    assert lines[1:3] == [
        "  short streams   mux   short or unknown traffic",
        "  bulk streams    data  bulk, a connection was dialled",
    ]
    assert lines[3] == "  users' streams come in at 127.0.0.1:1"
    assert [line.split()[-5:-3] for line in lines[6:9]] == [["2", "0"]] * 3
    show(await asyncio.to_thread(client.links), "table", LINKS)
    head, row = capsys.readouterr().out.splitlines()
    assert head.split()[:5] == ["NAME", "LINK", "RTT", "UP", "DROPS"]
    assert row.split()[:2] == ["box", "up"]


def test_the_way_from_here_to_an_agents_own_door_is_measured() -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        there = door.getsockname()[1]
        assert re.fullmatch(r"\d+\.\d+ms from here, without a relay", _from_here(f"127.0.0.1:{there}"))
    assert _from_here(f"127.0.0.1:{there}") == "not from here (connection refused), so by a relay"
    assert "not from here" in _from_here("nonsense")


@pytest.mark.parametrize(("values", "median"), [([3.0], 3.0), ([4.0, 1.0], 2.5), ([9.0, 1.0, 2.0], 2.0)])
def test_the_median_is_in_the_middle(values: list[float], median: float) -> None:
    assert Pings(sent=4, times=values).spread == (min(values), median, max(values))
