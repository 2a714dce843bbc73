"""Event streams: nothing is missed, logs end when they are complete, forwarded bytes arrive both ways."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import ClientResponse, WSMsgType

from atoll.event import Event
from atoll.ids import run_id
from atoll.session import Member, MemberState, Session
from atoll.slots import Slots
from atoll.states import SessionState
from tests.fakes.plane import NOW
from tests.federation.served import BEARER, SESSIONS, Served


async def frames(answer: ClientResponse) -> AsyncIterator[tuple[str, Any, str]]:
    """Yield (event, data, id) of each frame."""
    event, data, number = "", "", ""
    async for raw in answer.content:
        line = raw.decode().rstrip("\n")
        if line.startswith("event: "):
            event = line[7:]
        elif line.startswith("data: "):
            data = line[6:]
        elif line.startswith("id: "):
            number = line[4:]
        elif not line and event:
            yield event, json.loads(data), number
            event = data = number = ""


async def publish(server: Served, count: int, *, hint: bool = True) -> None:
    for _ in range(count):
        async with server.plane.store.transaction() as tx:
            await tx.append(Event(kind="site", key="x", state="created", at=NOW))
        if hint:
            server.plane.bus.publish("events")


async def test_watch_misses_nothing(server: Served) -> None:
    await publish(server, 5)
    seen = []
    async with asyncio.timeout(60), server.http.get(server.url + "/v1/watch?since=2", headers=BEARER) as answer:
        assert answer.content_type == "text/event-stream"
        writer = asyncio.create_task(publish(server, 700))
        async for event, data, number in frames(answer):
            assert event == "event"
            assert str(data["rev"]) == number
            seen.append(data["rev"])
            if len(seen) == 703:
                break
        await writer
    assert seen == list(range(3, 706))


async def test_watch_goes_on_where_it_was_cut(server: Served) -> None:
    await publish(server, 4)
    headers = {**BEARER, "Last-Event-ID": "3"}
    async with asyncio.timeout(60), server.http.get(server.url + "/v1/watch?since=0", headers=headers) as answer:
        async for _, data, _ in frames(answer):
            assert data["rev"] == 4
            break


async def test_watch_without_since_begins_now(server: Served) -> None:
    await publish(server, 4)
    async with asyncio.timeout(60), server.http.get(server.url + "/v1/watch?kinds=site", headers=BEARER) as answer:
        await answer.content.readline()
        await publish(server, 1)
        async for _, data, _ in frames(answer):
            assert data["rev"] == 5
            break


async def placed(server: Served, **member: Any) -> Session:
    view = await server.submit(name="job")
    row = await server.plane.sessions.get("default", view.id)
    return await server.plane.change(
        row,
        state=SessionState.RUNNING,
        attempt=1,
        started_at=NOW,
        members=(Member(rank=0, agent="a-1", slots=Slots(1000), state=MemberState.RUNNING, started_at=NOW),),
    )


async def write(server: Served, run: str, channel: str, offset: int, data: bytes) -> None:
    await server.plane.logs.write(run, channel, offset, data)
    server.plane.bus.publish(f"log:{run}")


def text(events: list[tuple[str, Any]], channel: str) -> bytes:
    parts = [data for event, data in events if event == "log" and data["channel"] == channel]
    joined = b""
    for part in parts:
        assert part["offset"] == len(joined)
        joined += base64.b64decode(part["data"])
    return joined


async def test_logs_follow_until_they_are_complete(server: Served) -> None:
    row = await placed(server)
    run = run_id(row.id, 1, 0)
    await write(server, run, "out", 0, b"one\n")
    events: list[tuple[str, Any]] = []
    async with asyncio.timeout(60), server.http.get(f"{server.url}{SESSIONS}/job/logs?follow=1", headers=BEARER) as a:
        async for event, data, _ in frames(a):
            events.append((event, data))
            if event == "log" and data["offset"] == 0 and data["channel"] == "out":
                # The end is reported before the last bytes have come: the stream must wait for them.
                member = Member(
                    rank=0, agent="a-1", slots=Slots(1000), state=MemberState.EXITED, exit_code=0, out=8, err=4
                )
                await server.plane.change(row, state=SessionState.SUCCEEDED, exit_code=0, members=(member,))
                await server.plane.furnish()
                await write(server, run, "err", 0, b"bad\n")
            if event == "log" and data["channel"] == "err":
                assert events[-1][0] != "end"
                await write(server, run, "out", 4, b"two\n")
    assert text(events, "out") == b"one\ntwo\n"
    assert text(events, "err") == b"bad\n"
    assert [data["state"] for event, data in events if event == "state"] == ["running", "succeeded"]
    assert (events[-1][0], events[-1][1]["state"], events[-1][1]["exit_code"]) == ("end", "succeeded", 0)


async def test_logs_go_on_with_the_next_attempt(server: Served) -> None:
    row = await placed(server)
    await write(server, run_id(row.id, 1, 0), "out", 0, b"first ")
    got: list[tuple[int, bytes]] = []
    async with asyncio.timeout(60), server.http.get(f"{server.url}{SESSIONS}/job/logs?follow=1", headers=BEARER) as a:
        async for event, data, _ in frames(a):
            if event == "log":
                got.append((data["attempt"], base64.b64decode(data["data"])))
                if data["attempt"] == 1:
                    await write(server, run_id(row.id, 2, 0), "out", 0, b"second")
                    await server.plane.change(row, state=SessionState.SUCCEEDED, attempt=2, members=())
    assert got == [(1, b"first "), (2, b"second")]


async def test_the_output_of_a_moved_session_is_that_of_all_its_attempts(server: Served) -> None:
    row = await placed(server)
    first, second = run_id(row.id, 1, 0), run_id(row.id, 2, 0)
    await write(server, first, "out", 0, b"one ")
    url = f"{server.url}{SESSIONS}/job/logs?channel=out"
    got: list[tuple[int, bytes]] = []
    async with asyncio.timeout(60), server.http.get(url + "&follow=1", headers=BEARER) as answer:
        async for event, data, _ in frames(answer):
            if event != "log":
                continue
            got.append((data["attempt"], base64.b64decode(data["data"])))
            if len(got) == 1:
                # It has moved, and its first agent still owes the rest of what it printed there.
                server.plane.links.owing.add(first)
                await write(server, second, "out", 0, b"three")
                row = await server.plane.change(row, attempt=2, moves=1, members=())
                await asyncio.sleep(0.2)
                server.plane.links.owing.clear()
                await write(server, first, "out", 4, b"two ")
            if data["attempt"] == 2:
                await server.plane.change(row, state=SessionState.SUCCEEDED)
    assert got == [(1, b"one "), (1, b"two "), (2, b"three")]
    async with asyncio.timeout(60), server.http.get(url, headers=BEARER) as answer:
        events = [(event, data) async for event, data, _ in frames(answer)]
    texts = [base64.b64decode(data["data"]) for event, data in events if event == "log"]
    assert texts == [b"one two ", b"three"]


async def test_logs_without_follow_end_at_once(server: Served) -> None:
    row = await placed(server)
    await write(server, run_id(row.id, 1, 0), "out", 0, b"0123456789" * 20_000)
    url = f"{server.url}{SESSIONS}/job/logs?channel=out&out=5"
    async with asyncio.timeout(60), server.http.get(url, headers=BEARER) as answer:
        events = [(event, data) async for event, data, _ in frames(answer)]
    size = sum(len(base64.b64decode(data["data"])) for event, data in events if event == "log")
    assert size == 199_995
    assert events[-1][0] == "end"


async def test_a_stream_ends_when_the_server_stops(server: Served) -> None:
    async with asyncio.timeout(60), server.http.get(server.url + "/v1/watch", headers=BEARER) as answer:
        await answer.content.readline()
        server.services.closing.set()
        assert await answer.content.read() == b"\n"


async def echo_port(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    total = 0
    while data := await reader.read(65536):
        total += len(data)
        writer.write(data)
        await writer.drain()
    writer.write(b"|%d" % total)
    await writer.drain()
    writer.close()


async def test_a_forwarded_port_carries_bytes_both_ways_and_half_closes(server: Served) -> None:
    row = await placed(server)
    echo = await asyncio.start_server(echo_port, "127.0.0.1", 0)
    server.plane.streams.apps[5432] = echo.sockets[0].getsockname()[1]
    payload = bytes(range(256)) * 4096
    got = b""
    async with asyncio.timeout(60), echo:
        url = f"{server.url}{SESSIONS}/{row.id}/forward?port=5432"
        async with server.http.ws_connect(url, headers=BEARER, max_msg_size=0) as socket:

            async def send() -> None:
                for at in range(0, len(payload), 65536):
                    await socket.send_bytes(payload[at : at + 65536])
                await socket.send_str("eof")

            sender = asyncio.create_task(send())
            async for message in socket:
                if message.type is WSMsgType.BINARY:
                    got += message.data
            await sender
    assert got == payload + b"|%d" % len(payload)
    assert server.plane.streams.opened == [(run_id(row.id, 1, 0), "", 5432)]


async def test_a_port_of_a_waiting_session_is_refused(server: Served) -> None:
    await server.submit(name="waits")
    status, problem = await server.ask("GET", f"{SESSIONS}/waits/forward?port=80")
    assert (status, problem.code) == (409, "CONFLICT")
    status, problem = await server.ask("GET", f"{SESSIONS}/waits/forward")
    assert status == 400
