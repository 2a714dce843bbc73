"""Server-sent events: the frame writer, hints to wait on, and the watch that misses no event."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec
from aiohttp import web

from federation.api import views
from federation.api.auth import may_see
from federation.api.route import Call
from federation.ports import Bus

HEARTBEAT_S = 10.0
"""A comment is sent on a silent stream this often, so that a dead peer is noticed."""


class Hints:
    """Waits for any of several topics, or for the server to stop."""

    def __init__(self, bus: Bus, closing: asyncio.Event) -> None:
        self._bus = bus
        self._closing = closing
        self._topics: dict[str, AsyncIterator[None]] = {}
        self._waits: dict[str, asyncio.Future[Any]] = {}
        self._stop: asyncio.Future[Any] = asyncio.ensure_future(closing.wait())

    def listen(self, topic: str) -> None:
        """Wait for `topic` too, from this call on."""
        if topic not in self._topics:
            self._topics[topic] = self._bus.subscribe(topic)
            self._rearm(topic)

    def forget(self, topic: str) -> None:
        """Wait for `topic` no more."""
        wait = self._waits.pop(topic, None)
        if wait is not None:
            wait.cancel()
        self._topics.pop(topic, None)

    async def wait(self, seconds: float) -> bool:
        """Return True as soon as there was a hint since the last call, False after `seconds` without one."""
        await asyncio.wait([self._stop, *self._waits.values()], timeout=seconds, return_when="FIRST_COMPLETED")
        heard = [topic for topic, wait in self._waits.items() if wait.done()]
        for topic in heard:
            self._rearm(topic)
        return bool(heard)

    @property
    def stopping(self) -> bool:
        """Whether the server is about to stop."""
        return self._closing.is_set()

    def close(self) -> None:
        """Stop waiting."""
        for wait in (self._stop, *self._waits.values()):
            wait.cancel()
        self._waits.clear()
        self._topics.clear()

    def _rearm(self, topic: str) -> None:
        self._waits[topic] = asyncio.ensure_future(_next(self._topics[topic]))


async def _next(hints: AsyncIterator[None]) -> None:
    await anext(hints)


class EventStream:
    """One `text/event-stream` response."""

    def __init__(self) -> None:
        self.response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream",
                "Cache-Control": "no-store",
                "X-Accel-Buffering": "no",
                "X-Content-Type-Options": "nosniff",
            }
        )

    async def open(self, request: web.Request) -> None:
        """Send the headers."""
        await self.response.prepare(request)

    async def send(self, event: str, data: object, *, number: int | None = None) -> None:
        """Send one event; waits while the peer reads slowly. Raises `ConnectionError` once it has gone."""
        head = f"id: {number}\n" if number is not None else ""
        body = msgspec.json.encode(data)
        await self.response.write(f"{head}event: {event}\ndata: ".encode() + body + b"\n\n")

    async def beat(self) -> None:
        """Send a comment."""
        await self.response.write(b": alive\n\n")


async def serve(call: Call, produce: Callable[[EventStream, Hints], AsyncIterator[None]]) -> web.StreamResponse:
    """Run `produce` until it ends, the peer goes or the server stops; it yields whenever it has nothing to send."""
    stream = EventStream()
    hints = Hints(call.control.bus, call.services.closing)
    try:
        await stream.open(call.request)
        async for _ in produce(stream, hints):
            if hints.stopping:
                break
            if not await hints.wait(HEARTBEAT_S) and not hints.stopping:
                await stream.beat()
    except ConnectionError:
        pass  # the reader went away: nobody is left to tell
    finally:
        hints.close()
    return stream.response


async def watch(call: Call, since: int, kinds: Sequence[str]) -> web.StreamResponse:
    """Stream every event of `kinds` (empty: all) that the caller may see after rev `since`, in order, for ever.

    Events come from the store by rev; the bus only says when to look, so a lost hint delays, never loses.
    """

    caller = await call.services.door.with_roles(call.caller)

    async def produce(stream: EventStream, hints: Hints) -> AsyncIterator[None]:
        hints.listen("events")
        rev = since
        await stream.beat()  # the reader knows that it is heard before the first event
        while True:
            while found := await call.control.store.events(rev, kinds=kinds):
                for row in found:
                    rev = row.rev
                    if may_see(caller, row):
                        await stream.send("event", views.event(row), number=row.rev)
            yield

    return await serve(call, produce)
