"""Users' streams that go to servers on loopback."""

import asyncio

from atoll.clock import Chance, Clock
from atoll.errors import Unavailable
from federation.control.streamlog import StreamLog
from federation.control.streams import Permitted
from tunnel import wire
from tunnel.door import Way
from tunnel.grant import USER_LIFE_S
from tunnel.lanes import Use

_NOW = 1_800_000_000.0


class FakeStreams:
    """Streams go to servers on loopback: `apps` maps (app name or port) to a port here."""

    def __init__(self, clock: Clock, chance: Chance) -> None:
        self.apps: dict[str | int, int] = {}
        self.opened: list[tuple[str, str, int]] = []
        self.log = StreamLog(clock, chance)

    async def open(
        self,
        run: str,
        app: str,
        port: int,
        protocol: asyncio.Protocol,
        *,
        use: Use = Use.SHORT,
        exec: bool = False,  # noqa: A002
        user: str = "",
        door: str = "",
        source: str = "",
    ) -> asyncio.Transport:
        self.opened.append((run, app, port))
        where = self.apps.get(app or port)
        if where is None:
            raise Unavailable("the session's agent is not connected", hint="it reconnects by itself")
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(lambda: protocol, "127.0.0.1", where)
        return transport

    async def permit(
        self, run: str, app: str, port: int, *, user: str, token: str, resume: bytes = b"", client: bytes = b""
    ) -> Permitted:
        self.opened.append((run, app, port))
        opening = wire.OpenStream(run=run, app=app, port=port, resume=resume or bytes(16), grant=b"sealed")
        return Permitted("a-1", opening, _NOW + USER_LIFE_S)

    def ways(self, agent: str) -> list[Way]:
        return [Way("relay.example", 443, "relay.internal"), Way("127.0.0.1", 8700)]
