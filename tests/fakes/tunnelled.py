"""An agent of a few lines at the end of a real link: it pretends to run things and lets streams reach loopback."""

import asyncio

from agent.datalines import DataLines
from atoll.slots import GIB, Slots
from tunnel import wire
from tunnel.echo import echo
from tunnel.link import Link, Side
from tunnel.memory import MemoryNetwork
from tunnel.resumables import Resumables

OUTPUT = b"hello from the run\n"


class Bridge(asyncio.Protocol):
    """Carries a stream to a port of loopback, both ways."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stream: asyncio.Transport | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._early = bytearray()
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._stream = transport
        self._task = asyncio.get_running_loop().create_task(self._carry(transport))

    def data_received(self, data: bytes) -> None:
        if self._writer is None:
            self._early += data
        else:
            self._writer.write(data)

    def eof_received(self) -> bool:
        if self._writer is not None:
            self._writer.write_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _carry(self, stream: asyncio.Transport) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(bytes(self._early))
            self._writer = writer
            while data := await reader.read(65536):
                stream.write(data)
            stream.close()
        finally:
            writer.close()


class TunnelledAgent:
    """Says hello, starts every run at once, prints a line, and ends a run when it is told to stop."""

    def __init__(self, agent_id: str, apps: dict[str, int], *, protocol: int = wire.PROTOCOL) -> None:
        self._id = agent_id
        self._apps = apps
        self._protocol = protocol
        self._streams = Resumables()
        self._lines: DataLines | None = None
        self.link: Link | None = None
        self.welcome = asyncio.Event()
        self.refused = False

    async def connect(self, network: MemoryNetwork) -> None:
        """Dial in and wait for the welcome."""
        self._lines = DataLines(network.dialer(self._id, data=True), self._serve)
        await network.dialer(self._id).dial(lambda: Link(self, side=Side.AGENT))
        async with asyncio.timeout(30):
            await self.welcome.wait()

    def linked(self, link: Link, /) -> None:
        self.link = link
        capacity = Slots(4000, 8 * GIB)
        link.send(
            wire.Hello(protocol=self._protocol, version="0", boot="b", capacity=capacity, facts={"os": "none"}, runs=[])
        )

    def received(self, link: Link, message: wire.FromAgent | wire.FromControl, /) -> None:
        if isinstance(message, wire.Welcome):
            self.welcome.set()
        elif isinstance(message, wire.Dial) and self._lines is not None:
            self._lines.dial(message.tokens)
        elif isinstance(message, wire.Start):
            self._report(message.run, "running")
            link.send(wire.Log(run=message.run, channel="out", offset=0, data=OUTPUT))
        elif isinstance(message, wire.Stop):
            self._report(message.run, "exited", 143)

    def stream_opened(self, link: Link, opening: wire.OpenStream, /) -> asyncio.Protocol | None:
        return self._serve(opening)

    def _serve(self, opening: wire.OpenStream) -> asyncio.Protocol | None:
        if opening.echo:
            return echo()
        if opening.resume:
            return self._streams.lane(opening.resume, opening.run, lambda: self._bridge(opening))
        return self._bridge(opening)

    def _bridge(self, opening: wire.OpenStream) -> asyncio.Protocol | None:
        port = self._apps.get(opening.app) or opening.port
        return None if self.refused or not port else Bridge(port)

    def lost(self, link: Link, reason: str, /) -> None:
        self.link = None

    def _report(self, run: str, state: str, code: int | None = None) -> None:
        assert self.link is not None
        self.link.send(
            wire.Report(report=wire.RunReport(run=run, state=state, exit_code=code, apps=self._apps, out=len(OUTPUT)))
        )
