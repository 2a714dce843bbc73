"""Traffic to an app as it really goes: client, gateway, link, agent, session; large, slow, and in both directions."""

import asyncio
import hashlib
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import ClientSession, DummyCookieJar, WSMsgType

from tests.e2e.installation import BIN, ROOT, Installation

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
MIB = 1024 * 1024


@dataclass
class Reached:
    """The app of a running session, and a client that talks to it through the gateway."""

    installation: Installation
    http: ClientSession
    host: str
    headers: dict[str, str]

    @property
    def url(self) -> str:
        return self.installation.url


@pytest.fixture(scope="module")
def session(running: Installation) -> Iterator[str]:
    command = [str(BIN / "python"), "-m", "tests.federation.gateway.app"]
    running.atoll("run", "--detach", "--name", "web", "--app", "web", "--env", f"PYTHONPATH={ROOT}", "--", *command)
    (view,) = running.wait(["web"], ["running"])
    yield f"web--{view['id']}.localhost:{running.port}"
    running.atoll("stop", "--wait", "web")


@pytest.fixture
async def web(running: Installation, session: str) -> AsyncIterator[Reached]:
    token = json.loads((running.home / "client.json").read_text())["token"]
    headers = {"Host": session, "Authorization": f"Bearer {token}"}
    async with ClientSession(cookie_jar=DummyCookieJar(), read_bufsize=MIB) as http, asyncio.timeout(240):
        for _ in range(100):
            async with http.get(running.url + "/", headers=headers) as answer:
                if answer.status == 200:
                    break
            await asyncio.sleep(0.2)
        else:
            raise AssertionError(running.call("logs", "web").stderr)
        yield Reached(running, http, session, headers)


def resident(installation: Installation) -> float:
    """Return the control plane's resident memory in MiB."""
    status = Path(f"/proc/{installation.pid('control')}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


class Watched:
    """The most memory that the control plane had while this was entered, over what it had before, in MiB."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self.grown = 0.0

    async def __aenter__(self) -> "Watched":
        self._before = resident(self._installation)
        self._task = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _look(self) -> None:
        while True:
            self.grown = max(self.grown, resident(self._installation) - self._before)
            await asyncio.sleep(0.02)


async def test_an_upload_of_256_mib_costs_no_memory(web: Reached) -> None:
    part, count = os.urandom(MIB), 256
    digest = hashlib.sha256()

    async def body() -> AsyncIterator[bytes]:
        for _ in range(count):
            digest.update(part)
            yield part

    headers = {**web.headers, "Content-Length": str(count * MIB)}
    async with Watched(web.installation) as memory:
        began = time.monotonic()
        async with web.http.post(web.url + "/upload", headers=headers, data=body()) as answer:
            got = await answer.json()
        took = time.monotonic() - began
    print(f"upload: {count / took:.0f} MiB/s, control plane grew by {memory.grown:.1f} MiB")
    assert got == {"size": count * MIB, "sha256": digest.hexdigest()}
    assert memory.grown < 64


async def test_a_download_to_a_slow_reader_costs_no_memory(web: Reached) -> None:
    size = 0
    async with (
        Watched(web.installation) as memory,
        web.http.get(web.url + "/download?mib=128", headers=web.headers) as answer,
    ):
        await asyncio.sleep(2)
        async for data in answer.content.iter_any():
            size += len(data)
    print(f"download: control plane grew by {memory.grown:.1f} MiB")
    assert size == 128 * MIB
    assert memory.grown < 64


async def test_an_upload_to_a_slow_app_waits_for_it(web: Reached) -> None:
    headers = {**web.headers, "Content-Length": str(128 * MIB)}

    async def body() -> AsyncIterator[bytes]:
        for _ in range(128):
            yield bytes(MIB)

    async with (
        Watched(web.installation) as memory,
        web.http.post(web.url + "/slow", headers=headers, data=body()) as answer,
    ):
        assert await answer.json() == {"size": 128 * MIB}
    print(f"slow upload: control plane grew by {memory.grown:.1f} MiB")
    assert memory.grown < 64


async def test_a_flood_of_messages_to_a_slow_browser_waits_for_it(web: Reached) -> None:
    async with (
        Watched(web.installation) as memory,
        web.http.ws_connect(web.url + "/flood", headers=web.headers, max_msg_size=0) as socket,
    ):
        await asyncio.sleep(3)
        for number in range(96):
            assert await socket.receive_bytes() == bytes([number]) * MIB
    print(f"flood: control plane grew by {memory.grown:.1f} MiB")
    assert memory.grown < 64


async def test_events_come_one_by_one(web: Reached) -> None:
    async with web.http.get(web.url + "/ticks", headers=web.headers) as answer:
        for number in range(10):
            assert await answer.content.readuntil(b"\n\n") == b"data: %d\n\n" % number
            async with web.http.post(web.url + "/tick", headers=web.headers) as next_one:  # not made before
                assert next_one.status == 200
        assert await answer.content.read() == b""


async def test_a_websocket_with_a_subprotocol_and_large_messages(web: Reached) -> None:
    data = os.urandom(10 * MIB)
    async with web.http.ws_connect(
        web.url + "/ws", headers=web.headers, protocols=("other", "chat"), max_msg_size=0
    ) as socket:
        assert socket.protocol == "chat"
        await socket.receive()
        await socket.send_bytes(data)
        assert await socket.receive_bytes() == data
        await socket.send_str("ä" * MIB)
        assert await socket.receive_str() == "Ä" * MIB
        await socket.ping(b"there?")
        await socket.send_str("bye")
        last = await socket.receive()
        assert (last.type, last.data, last.extra) == (WSMsgType.CLOSE, 4001, "so long")


def test_sharing_an_app_from_the_command_line(running: Installation, session: str) -> None:
    told = running.atoll("share", "web", "web", "--project")
    assert told.strip() == f"http://{session}/"
    assert "web:project" in running.atoll("ps")
    assert running.session("web")["spec"]["apps"]["web"] == {"port": 0, "access": "project"}
    refused = running.call("share", "web", "web", "--public")
    assert refused.returncode == 121
    assert "no public apps" in refused.stderr
    assert "public = true below [apps]" in refused.stderr
    assert running.call("run", "--detach", "--app", "web=8080:public", "--", "true").returncode == 121
    assert running.call("share", "web", "web").returncode == 120
    running.atoll("share", "web", "web", "--off")
    assert "web:project" not in running.atoll("ps")
    assert "open to its project" in running.atoll("why", "web")


async def test_a_member_is_let_in_and_sent_out_again(web: Reached) -> None:
    made = web.installation.atoll("token", "create", "--api", "--owner", "bo", "--role", "member-default", "-o", "json")
    headers = {**web.headers, "Authorization": f"Bearer {json.loads(made)['secret']}"}

    async def status() -> int:
        async with web.http.get(web.url + "/", headers=headers) as answer:
            return answer.status

    assert await status() == 403
    await asyncio.to_thread(web.installation.atoll, "share", "web", "web", "--project")
    assert await status() == 200
    async with web.http.ws_connect(web.url + "/ws", headers=headers) as socket:
        await socket.receive()
        await asyncio.to_thread(web.installation.atoll, "share", "web", "web", "--off")
        began = time.monotonic()
        assert (await socket.receive()).type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.ERROR)
        print(f"sent out {time.monotonic() - began:.3f} s after the command ended")
        assert time.monotonic() - began < 15
    assert await status() == 403
