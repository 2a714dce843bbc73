"""One agent: linked with a relay, it serves streams with connections to the server."""

import asyncio
import secrets
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from agent.datalines import DataLines
from agent.streams import StreamLeg
from atoll.host.system import SystemChance
from atoll.slots import Slots
from bench.ends.common import AGENT, Make, say, until_input_ends
from tunnel import wire
from tunnel.backoff import Backoff
from tunnel.dialer import Dialer, TlsDialer
from tunnel.identity import AgentIdentity
from tunnel.link import Link, Side
from tunnel.resumables import Resumables


async def run(folder: Path, server: tuple[str, int], url: str) -> None:
    """Stay linked with the relay until standard input ends."""
    identity = AgentIdentity(folder / AGENT)
    dialers = TlsDialer(url, identity, {}), TlsDialer(url, identity, {}, data=True)
    await until_input_ends(RelayLink(*dialers, Serving(server).serve).run())


class Serving:
    """Streams to one server."""

    def __init__(self, server: tuple[str, int]) -> None:
        self._server = server
        self._streams = Resumables()

    def serve(self, opening: wire.OpenStream) -> asyncio.Protocol | None:
        """A stream, or a lane of one."""
        leg = partial(StreamLeg, self._connect)
        return self._streams.lane(opening.resume, opening.run, leg) if opening.resume else leg()

    async def _connect(self, make: Make) -> None:
        await asyncio.get_running_loop().create_connection(make, *self._server)


class RelayLink:
    """Stays linked with one relay, as `agent.run.AgentShell` does."""

    def __init__(
        self,
        dialer: Dialer,
        lines: Dialer,
        serve: Callable[[wire.OpenStream], asyncio.Protocol | None],
        *,
        welcomed: Callable[[int], None] | None = None,
    ) -> None:
        self._dialer = dialer
        self._lines = DataLines(lines, serve)
        self._serve = serve
        self._welcomed = welcomed or (lambda change: say(welcomed=change > 0, at=time.monotonic()))
        self._boot = secrets.token_hex(8)
        self._registered = False
        self._lost: asyncio.Future[str]

    async def run(self) -> None:
        """Dial, wait until the link is lost, and again."""
        loop = asyncio.get_running_loop()
        backoff = Backoff(SystemChance())
        while True:
            self._lost = loop.create_future()
            began = loop.time()
            try:
                await self._dialer.dial(lambda: Link(self, side=Side.AGENT))
            except OSError:
                pass
            else:
                await self._lost
                backoff.succeeded_for(loop.time() - began)
            await asyncio.sleep(backoff.next())

    def linked(self, link: Link, /) -> None:
        """Say hello."""
        hello = wire.Hello(protocol=wire.PROTOCOL, version="0", boot=self._boot, capacity=Slots(), facts={}, runs=[])
        link.send(hello)

    def received(self, link: Link, message: wire.FromAgent | wire.FromControl, /) -> None:  # noqa: ARG002
        """Dial when asked."""
        if isinstance(message, wire.Dial):
            self._lines.dial(message.tokens)
        elif isinstance(message, wire.Welcome):
            self._registered = True
            self._welcomed(1)

    def stream_opened(self, link: Link, opening: wire.OpenStream, /) -> asyncio.Protocol | None:  # noqa: ARG002
        """A stream on the link."""
        return self._serve(opening)

    def lost(self, link: Link, reason: str, /) -> None:  # noqa: ARG002
        """The link is over."""
        if self._registered:
            self._registered = False
            self._welcomed(-1)
        if not self._lost.done():
            self._lost.set_result(reason)
