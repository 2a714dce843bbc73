"""A scripted control end of an agent's link: welcomes, keeps everything it is told, stores logs."""

import asyncio
from collections.abc import Callable

from atoll.session import Lifetime, SessionSpec
from atoll.slots import Slots
from tunnel import wire
from tunnel.link import Link, Side

ME = "a-0123456789"
RUN = "s-7k2m9q4x1c.1.0"


class Control:
    """The other end: welcomes, stores logs, acknowledges them while `acks` is set."""

    def __init__(self) -> None:
        self.link: Link | None = None
        self.hellos: list[wire.Hello] = []
        self.reports: list[wire.RunReport] = []
        self.others: list[wire.Message] = []
        self.stored: dict[str, bytes] = {"out": b"", "err": b""}
        self.largest_gap = 0
        self.acks = True
        self.welcome: dict[str, object] = {}
        self.refuse: wire.Refuse | None = None
        self.registered = 0
        self.on_linked: Callable[[], None] = lambda: None

    def accept(self, agent: str = ME) -> Link:
        assert agent == ME
        return Link(self, side=Side.CONTROL)

    def linked(self, link: Link, /) -> None:
        self.link = link
        self.on_linked()

    def received(self, link: Link, message: wire.FromAgent | wire.FromControl, /) -> None:
        match message:
            case wire.Hello():
                self.hellos.append(message)
                fields = {"protocol": 1, "kill": [], "forget": [], **self.welcome}
                link.send(self.refuse or wire.Welcome(epoch=1, **fields))  # type: ignore[arg-type]
                self.registered += self.refuse is None
            case wire.Report(report):
                self.reports.append(report)
            case wire.Log():
                self._store(link, message)
            case _:
                self.others.append(message)

    def _store(self, link: Link, log: wire.Log) -> None:
        have = len(self.stored[log.channel])
        self.largest_gap = max(self.largest_gap, log.offset - have)
        self.stored[log.channel] += log.data[max(0, have - log.offset) :]
        if self.acks:
            link.send(wire.LogAck(run=log.run, channel=log.channel, offset=len(self.stored[log.channel])))

    def stream_opened(self, _link: Link, _opening: wire.OpenStream, /) -> asyncio.Protocol | None:
        return None

    def lost(self, link: Link, _reason: str, /) -> None:
        if link is self.link:
            self.link = None

    def send(self, message: wire.Message) -> None:
        assert self.link is not None
        self.link.send(message)

    def start(self, run: str = RUN, **spec: object) -> None:
        spec = {"command": ("true",), "lifetime": Lifetime(grace=0.05), **spec}
        self.send(wire.Start(run=run, epoch=1, spec=SessionSpec(**spec), slots=Slots(), env={}))  # type: ignore[arg-type]

    def states(self, run: str = RUN) -> list[str]:
        found = [report.state for report in self.reports if report.run == run]
        return [state for at, state in enumerate(found) if state not in found[:at]]


async def until(what: Callable[[], object], within: float = 30.0) -> None:
    async with asyncio.timeout(within):
        while not what():
            await asyncio.sleep(0.005)
