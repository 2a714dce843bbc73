"""API and gateway over the real control plane and real links: only the store, the network and the agent are fakes."""

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import WSMsgType

from atoll.host.system import SystemChance, SystemClock
from federation.control.config import ControlConfig
from federation.control.control import Control
from federation.control.steps import Steps
from federation.store.bus import LocalBus
from providers.port import Driver
from providers.registry import DriverContext, make
from tests.fakes.authority import FakeAuthority
from tests.fakes.store import MemoryLogs, MemoryStore
from tests.fakes.tunnelled import OUTPUT, TunnelledAgent
from tests.federation.gateway.app import running_app
from tests.federation.served import SESSIONS, Served, served
from tunnel import wire
from tunnel.lanes import Lane
from tunnel.memory import MemoryNetwork
from tunnel.relay import Relay


@dataclass
class Whole:
    """Everything between a user and a run."""

    server: Served
    agent: TunnelledAgent
    network: MemoryNetwork
    relay: Relay

    async def running(self, **spec: object) -> str:
        """Submit a session and return its id once it runs."""
        view = await self.server.submit(name="nb", **spec)
        async with asyncio.timeout(60):
            while (now := await self.server.good("GET", f"{SESSIONS}/{view.id}")).state != "running":
                await asyncio.sleep(0.02)
        assert now.members[0].agent_name == "box"
        return str(view.id)


@pytest.fixture
async def whole(tmp_path: Path) -> AsyncIterator[Whole]:
    def no_cloud(provider: object) -> Driver:
        context = DriverContext(directory=tmp_path, launch=lambda *_: 0, clock=SystemClock())
        return make(provider, context)  # type: ignore[arg-type]

    settings = ControlConfig(authority=FakeAuthority(), agent_url="https://127.0.0.1:1", secret_key=b"k" * 32)
    control = Control(
        MemoryStore(), MemoryLogs(), LocalBus(), SystemClock(), SystemChance(), no_cloud, Steps(), settings
    )
    await control.start()
    _, token = await control.tokens.create_api("ada")
    network = MemoryNetwork()
    network.listen(lambda _: control.links.accept(), control.streams.relay.accept)
    _, secret = await control.tokens.create_join(site="local", group="local")
    async with running_app() as (port, _), served(tmp_path, control, token) as server:
        body = {"secret": secret, "csr": "CSR", "name": "box"}
        async with server.http.post(server.url + "/v1/join", json=body) as answer:
            agent_id = (await answer.json())["agent"]
        agent = TunnelledAgent(agent_id, {"web": port})
        await agent.connect(network)
        try:
            yield Whole(server, agent, network, control.streams.relay)
        finally:
            await control.stop()


async def test_a_session_runs_prints_and_stops(whole: Whole) -> None:
    session = await whole.running()
    agents = (await whole.server.good("GET", "/v1/agents")).items
    assert (agents[0].connected, agents[0].free.cpu, agents[0].runs) == (True, 3.0, [f"{session}.1.0"])
    events = []
    url = f"{whole.server.url}{SESSIONS}/nb/logs?follow=1"
    async with asyncio.timeout(60), whole.server.http.get(url, headers=whole.server.bearer) as answer:
        async for raw in answer.content:
            if raw.startswith(b"data: "):
                events.append(json.loads(raw[6:]))
                if "data" in events[-1]:
                    await whole.server.good("POST", f"{SESSIONS}/nb:stop")
    said = b"".join(base64.b64decode(event["data"]) for event in events if "data" in event)
    assert said == OUTPUT
    assert events[-1]["state"] == "cancelled"
    why = await whole.server.good("GET", f"{SESSIONS}/nb/why")
    assert why.decisions[-1].outcome == "place"


async def test_an_app_is_reached_through_the_link(whole: Whole) -> None:
    session = await whole.running(apps={"web": 0})
    host = {"Host": f"web--{session}.localhost", **whole.server.bearer}
    async with whole.server.http.get(whole.server.url + "/x?y=1", headers=host) as answer:
        told = await answer.json()
    assert told["path"] == "/x?y=1"
    assert "Authorization" not in dict(told["headers"])
    size = 0
    async with whole.server.http.get(whole.server.url + "/download?mib=8", headers=host) as answer:
        async for part in answer.content.iter_any():
            size += len(part)
    assert size == 8 * 1024 * 1024
    async with whole.server.http.ws_connect(whole.server.url + "/ws", headers=host) as socket:
        assert (await socket.receive()).type is WSMsgType.TEXT
        await socket.send_str("through")
        assert await socket.receive_str() == "THROUGH"


async def test_a_refused_stream_and_a_lost_link_are_said(whole: Whole) -> None:
    session = await whole.running(apps={"web": 0})
    host = {"Host": f"web--{session}.localhost", **whole.server.bearer}
    whole.agent.refused = True
    async with whole.server.http.get(whole.server.url, headers=host) as answer:
        assert answer.status == 503
    whole.network.reset((await whole.server.good("GET", "/v1/agents")).items[0].id)
    async with whole.server.http.get(whole.server.url, headers=host) as answer:
        assert answer.status == 503
        assert "not connected" in (await answer.json(content_type=None))["detail"]


@pytest.mark.parametrize(("protocol", "lane"), [(wire.PROTOCOL, Lane.DATA), (wire.DIALS - 1, Lane.MUX)])
async def test_a_forwarded_port_goes_through_a_data_connection_where_the_agent_makes_one(
    whole: Whole, protocol: int, lane: Lane
) -> None:
    if protocol != wire.PROTOCOL:
        whole.agent = TunnelledAgent(whole.agent._id, whole.agent._apps, protocol=protocol)
        await whole.agent.connect(whole.network)
    session = await whole.running(apps={"web": 0})
    port = whole.agent._apps["web"]
    url = f"{whole.server.url}{SESSIONS}/{session}/forward?port={port}"
    got = b""
    async with asyncio.timeout(60), whole.server.http.ws_connect(url, headers=whole.server.bearer) as socket:
        await socket.send_bytes(b"GET /f HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        async for message in socket:
            if message.type is WSMsgType.BINARY:
                got += message.data
    assert got.startswith(b"HTTP/1.1 200 OK")
    assert b'"path": "/f"' in got
    assert {lane: tally.opens for lane, tally in whole.relay.tallies().items() if tally.opens} == {lane: 1}


async def test_a_large_upload_has_a_connection_of_its_own(whole: Whole) -> None:
    session = await whole.running(apps={"web": 0})
    host = {"Host": f"web--{session}.localhost", **whole.server.bearer}
    async with whole.server.http.post(whole.server.url + "/upload", headers=host, data=bytes(1000)) as answer:
        assert answer.status == 200
    before = whole.relay.tallies()
    assert (before[Lane.MUX].opens, before[Lane.DATA].opens) == (1, 0)
    size = 6 * 1024 * 1024
    async with whole.server.http.post(
        whole.server.url + "/upload", headers=host, data=io.BytesIO(bytes(size))
    ) as answer:
        assert answer.status == 200
    after = whole.relay.tallies()
    assert (after[Lane.MUX].opens, after[Lane.DATA].opens) == (1, 1)
    assert after[Lane.DATA].sent > size


async def test_the_status_and_the_overview_count_what_is_there(whole: Whole) -> None:
    await whole.running()
    status = await whole.server.good("GET", "/v1/status")
    assert (status.sessions, status.agents, status.agents_connected) == ({"running": 1}, 1, 1)
    async with whole.server.http.get(whole.server.url, headers=whole.server.page_cookie()) as answer:
        assert "1 of 4 cores" in await answer.text()
    async with whole.server.http.get(f"{whole.server.url}/sessions/nb", headers=whole.server.page_cookie()) as answer:
        assert answer.status == 200
