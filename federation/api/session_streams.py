"""Routes of sessions that stream: logs that follow until complete, and ports forwarded over a WebSocket."""

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass

from aiohttp import WSMsgType, web

from atoll.client import views as api
from atoll.errors import Conflict, Invalid
from atoll.ids import run_id
from atoll.session import MemberState, Session
from atoll.states import ENDED, PLACED
from federation.api import observe
from federation.api.auth import check_entry
from federation.api.route import Access, Call, Query, Route
from federation.api.stream import EventStream, Hints, serve
from federation.control.streamlog import Visit
from tunnel.lanes import Use

CHUNK = 64 * 1024
_BASE = "/v1/projects/{project}/sessions/{ref}"


class LogsQuery(Query):
    """`channel` out, err or both; `follow=1` stays until the logs are complete; `out` and `err` are offsets.

    `attempt` 0 means the current one and, when following, all later ones; of a session that was moved, all: each
    goes on where the last one left off.
    """

    channel: str = "both"
    follow: bool = False
    out: int = 0
    err: int = 0
    rank: int = 0
    attempt: int = 0


class ForwardQuery(Query):
    """The port a process of the member `rank` listens on."""

    port: int
    rank: int = 0


@dataclass(slots=True)
class Tail:
    """How far the output of one run has been sent."""

    attempt: int
    offsets: dict[str, int]


async def logs(call: Call) -> web.StreamResponse:
    """Stream `log` events (data in base64), `state` events, and at the end one `end` event with the session."""
    query: LogsQuery = call.query
    if query.channel not in ("out", "err", "both"):
        raise Invalid(f"there is no channel {query.channel!r}", hint="out, err or both")
    row = await call.control.sessions.get(call.path["project"], call.path["ref"])
    if not 0 <= query.rank < row.spec.nodes:
        raise Invalid(f"{row.name} has no member of rank {query.rank}", hint=f"0 to {row.spec.nodes - 1}")
    if min(query.out, query.err, query.attempt) < 0:
        raise Invalid("offsets and attempts are not negative")
    follower = Follower(call, row, query)
    return await serve(call, follower.produce)


class Follower:
    """Sends the output of one member, attempt after attempt, and says when no more will come."""

    def __init__(self, call: Call, row: Session, query: LogsQuery) -> None:
        self._call = call
        self._query = query
        self._row = row
        self._shown: tuple[str, str, str] | None = None
        begin = 1 if row.moves else row.attempt
        self._tail = Tail(query.attempt or begin, {c: getattr(query, c) for c in self._channels(query)})

    @staticmethod
    def _channels(query: LogsQuery) -> list[str]:
        return ["out", "err"] if query.channel == "both" else [query.channel]

    async def produce(self, stream: EventStream, hints: Hints) -> AsyncIterator[None]:
        """Send what there is, then yield; ends once the logs are complete (or sent, when not following)."""
        hints.listen("events")
        hints.listen(self._topic)
        while True:
            # The state first: an end seen here tells the final sizes of what is read after it.
            self._row = await self._call.control.sessions.get(self._row.project, self._row.id)
            await self._send_state(stream)
            owed = self._call.control.links.owes(self._run)
            await self._send_output(stream)
            later = self._tail.attempt < self._row.attempt and not self._query.attempt
            if later and not (owed and self._query.follow):
                hints.forget(self._topic)
                self._tail = Tail(self._next_attempt, dict.fromkeys(self._tail.offsets, 0))
                hints.listen(self._topic)
                continue
            if not self._query.follow or await self._complete():
                await stream.send("end", await observe.session(self._call.services, self._row, self._call.caller))
                return
            yield

    @property
    def _run(self) -> str:
        return run_id(self._row.id, self._tail.attempt, self._query.rank)

    @property
    def _next_attempt(self) -> int:
        """A moved session's output goes on from attempt to attempt; one that had to start anew begins anew."""
        return self._tail.attempt + 1 if self._row.moves else self._row.attempt

    @property
    def _topic(self) -> str:
        return f"log:{self._run}"

    async def _send_state(self, stream: EventStream) -> None:
        now = (str(self._row.state), str(self._row.reason), self._row.message)
        if now != self._shown:
            self._shown = now
            await stream.send("state", dict(zip(("state", "reason", "message"), now, strict=True)))

    async def _send_output(self, stream: EventStream) -> None:
        for channel, offset in self._tail.offsets.items():
            while data := await self._call.control.logs.read(self._run, channel, offset, CHUNK):
                await stream.send(
                    "log",
                    {
                        "channel": channel,
                        "offset": offset,
                        "data": base64.b64encode(data).decode(),
                        "rank": self._query.rank,
                        "attempt": self._tail.attempt,
                    },
                )
                offset += len(data)
                self._tail.offsets[channel] = offset

    async def _complete(self) -> bool:
        over = self._row.state in ENDED or (self._query.attempt and self._tail.attempt < self._row.attempt)
        if not over or self._call.control.links.owes(self._run):
            return False
        member = next((m for m in self._row.members if m.rank == self._query.rank), None)
        if member is None or self._tail.attempt != self._row.attempt or member.state is not MemberState.EXITED:
            return True  # nobody reported sizes: its machine is gone, what is stored is all there is
        sizes = {"out": member.out, "err": member.err}
        if all(offset >= sizes[channel] for channel, offset in self._tail.offsets.items()):
            return True
        kept = {agent.id for agent in await self._call.control.agents.list()}
        return member.agent not in kept


async def forward(call: Call) -> web.StreamResponse:
    """Carry a TCP connection to a port of a session: binary messages are bytes, the text `eof` a half-close."""
    query: ForwardQuery = call.query
    if not 0 < query.port < 65536:
        raise Invalid(f"{query.port} is not a port", hint="1 to 65535")
    row = await call.control.sessions.get(call.path["project"], call.path["ref"])
    source = call.request.remote or ""
    visit = Visit(
        door="forward", user=call.caller.owner, project=row.project, session=row.id, port=query.port, source=source
    )
    with call.control.streams.log.refusals(visit):
        check_entry(call.caller, row)
        if row.state not in PLACED:
            raise Conflict(f"{row.name} is {row.state}, so it has no ports", hint="see `atoll ps`")
    reader = asyncio.StreamReader(limit=4 * CHUNK)
    protocol = asyncio.StreamReaderProtocol(reader)
    run = run_id(row.id, row.attempt, query.rank)
    owner = call.caller.owner
    transport = await call.control.streams.open(
        run, "", query.port, protocol, use=Use.BULK, user=owner, door="forward", source=source
    )
    writer = asyncio.StreamWriter(transport, protocol, reader, asyncio.get_running_loop())
    socket = web.WebSocketResponse(heartbeat=20.0, compress=False, max_msg_size=4 * 1024 * 1024)
    try:
        await socket.prepare(call.request)
        down = asyncio.create_task(_down(reader, socket))
        stop = asyncio.create_task(call.services.closing.wait())
        up = asyncio.create_task(_up(socket, writer))
        try:
            await asyncio.wait([up, down, stop], return_when="FIRST_COMPLETED")
            if up.done() and not up.exception() and not socket.closed:
                await asyncio.wait([down, stop], return_when="FIRST_COMPLETED")
        finally:
            for task in (up, down, stop):
                task.cancel()
            await asyncio.gather(up, down, stop, return_exceptions=True)
    finally:
        transport.abort()
    await socket.close()
    return socket


async def _down(reader: asyncio.StreamReader, socket: web.WebSocketResponse) -> None:
    while data := await reader.read(CHUNK):
        await socket.send_bytes(data)
    await socket.send_str("eof")
    await socket.close()


async def _up(socket: web.WebSocketResponse, writer: asyncio.StreamWriter) -> None:
    async for message in socket:
        if message.type is WSMsgType.BINARY:
            writer.write(message.data)
            await writer.drain()
        elif message.data == "eof" and writer.can_write_eof():
            writer.write_eof()


ROUTES = (
    Route(
        method="GET", path=_BASE + "/logs", handle=logs, access=Access.OWNER, query=LogsQuery,
        answer=api.SessionView, content="text/event-stream", summary="Stream a session's output and states",
    ),
    Route(
        method="GET", path=_BASE + "/forward", handle=forward, access=Access.USER, query=ForwardQuery,
        status=101, content="websocket", summary="Forward a TCP port of a session over a WebSocket",
    ),
)  # fmt: skip
