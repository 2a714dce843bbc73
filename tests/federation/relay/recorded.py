"""A whole control plane, relays with users' doors and a real agent, in memory and on a virtual clock."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar, cast

from agent.core import Machine
from agent.direct import Direct
from agent.relays import RelayLinks
from agent.run import AgentShell
from atoll.host.system import SystemChance, SystemClock
from atoll.session import Session
from atoll.slots import GIB, Slots
from atoll.streamrecord import StreamRecord
from federation.control.streamlog import Visit
from federation.relay.visits import Visits
from tests.fakes.journal import MemoryJournal
from tests.fakes.runtime import MemoryRuntime
from tests.federation.control.ring import Ring
from tests.federation.relay.region import MemoryRelay
from tests.sim.clocks import SimClock
from tests.tunnel import virtual
from tests.tunnel.ends import SeededChance
from tunnel import wire
from tunnel.dialer import Dialer
from tunnel.door import Door
from tunnel.grant import relay_key
from tunnel.link import Link, Side
from tunnel.memory import MemoryTransport, _Wire
from tunnel.redial import RedialledTransport
from tunnel.reports import Reports
from tunnel.userstream import _Caller

T = TypeVar("T")
PORT = 80
SOURCE = "198.51.100.7"


class RecordedRelay(MemoryRelay):
    """A relay with a users' door, which tells of them over an uplink; `boot` names the life it is in."""

    def __init__(self, r: Ring, folder: Path, key: str, url: str) -> None:
        self._ring = r
        self._key = key
        self.url = url
        self.boot = 0
        self.link: Link | None = None
        super().__init__(folder)

    def listen(self) -> None:
        super().listen()
        self.boot += 1
        self.reports = Reports(f"b{self.boot}")
        self.visits = Visits(SystemClock(), self.reports)
        self.door = Door(self.relay, relay_key(b"k" * 32), self._ring.control.streams.now, guard=self.visits)

    def connect(self) -> None:
        """Dial the control plane, once."""
        certificate = {"subjectAltName": (("DNS", wire.RELAY_NAME), ("URI", f"atoll://relay/{self._key}"))}
        near, far = joined(Link(self, side=Side.AGENT), self._ring.control.relays.uplinks.accept(), certificate)
        far.begin()
        near.begin()

    def vanish(self) -> None:
        """SIGKILL: nothing says goodbye, users and control plane see their connections end."""
        link, self.link = self.link, None
        for visit in list(self.door._visits):
            visit.end("killed")
        if link is not None:
            link.close("killed")
        self.kill()

    # LinkOwner.

    def linked(self, link: Link) -> None:
        self.link = link
        link.send(wire.Serving(protocol=wire.PROTOCOL, version="1", boot=f"b{self.boot}"))

    def received(self, link: Link, message: wire.FromAgent | wire.FromControl) -> None:
        if link is not self.link:
            return
        match message:
            case wire.RelayTerms():
                self.reports.linked(link.send)
            case wire.Noted(serial=serial):
                self.reports.noted(serial)

    def stream_opened(self, _link: Link, _opening: wire.OpenStream) -> None:
        return None

    def lost(self, link: Link, _reason: str) -> None:
        if link is self.link:
            self.link = None
            self.reports.unlinked()


class MemoryDirect(Direct):
    """A door of the agent's own that does not listen: users are brought to it."""

    async def run(self) -> None:
        await asyncio.get_running_loop().create_future()


class Installation:
    """The control plane, relays by name, one agent with a session on it, and users' streams to that."""

    def __init__(self, r: Ring, folder: Path) -> None:
        self.ring = r
        self.folder = folder
        self.relays: dict[str, RecordedRelay] = {}
        self.streams: list[RedialledTransport] = []
        self.tokens: dict[str, str] = {}
        self.session: Session

    async def begin(self) -> None:
        for name in ("east", "west"):
            control = self.ring.control
            relay, secret = await control.relays.create(name, f"https://{name}", ttl_s=60.0, owner="ada")
            await control.relays.enrol(secret, f"key of {name}")
            self.relays[name] = RecordedRelay(self.ring, self.folder / name, relay.id, relay.url)
            self.relays[name].connect()
        _, secret = await self.ring.control.tokens.create_join(site="here", group="hall")
        self.agent_id = (await self.ring.control.tokens.join(secret, "key", "box", {})).agent.id
        self.boot_agent("a1")
        [row] = await self.ring.submit()
        self.session = await self.ring.until_state(row.id, "running")
        await self.until(lambda: all(self.agent_id in each.agents.agents() for each in self.relays.values()))

    def boot_agent(self, boot: str) -> None:
        """Start a process of the agent."""
        self.runtime = MemoryRuntime()
        self.runtime.apps[PORT] = Answering
        machine = Machine("1", boot, Slots(cpu=2000, memory=4 * GIB, disk=10 * GIB))
        self.direct = MemoryDirect("192.0.2.7:7443", lambda _: None)  # type: ignore[arg-type,return-value]
        self.shell = AgentShell(
            self.ring.network.dialer(self.agent_id),
            self.runtime,
            MemoryJournal(),
            self.ring.clock,
            SystemChance(),
            machine,
            relays=RelayLinks(self.agent_id, boot, self.dialers, SeededChance()),
            direct=self.direct,
        )
        self.running = asyncio.create_task(self.shell.run())

    def dialers(self, url: str) -> tuple[Dialer, Dialer]:
        network = next(each.network for each in self.relays.values() if each.url == url)
        return network.dialer(self.agent_id), network.dialer(self.agent_id, data=True)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(600):
            while not condition():
                await asyncio.sleep(0.1)

    async def permit(self, user: str = "ada", resume: bytes = b"") -> wire.OpenStream:
        """Permit a user a stream, and record that as the API does."""
        streams, run = self.ring.control.streams, f"{self.session.id}.1.0"
        if user not in self.tokens:  # a real one: who is inside by another is sent home
            self.tokens[user] = (await self.ring.control.tokens.create_api(user))[0].id
        made = await streams.permit(run, "", PORT, user=user, token=self.tokens[user], resume=resume)
        visit = Visit(
            door="stream", user=user, project="default", session=self.session.id, run=run, port=PORT, source=SOURCE
        )
        streams.log.permitted(visit, made.opening.resume)
        return made.opening

    async def stream(self, ways: list[str], opening: wire.OpenStream | None = None) -> RedialledTransport:
        """Begin a stream that goes by the first way (a relay's name, or `direct`) that lets it in."""
        opening = opening or await self.permit()

        async def dial(make: Callable[[], asyncio.Protocol]) -> None:
            for way in [way for way in ways if way == "direct" or self.agent_id in self.relays[way].agents.agents()]:
                door = self.direct._door if way == "direct" else self.relays[way].door
                assert door is not None
                caller = _Caller()
                near, far = joined(caller, door.accept(), {}, Caller)
                far.begin()
                near.begin()
                if not (await caller.ask(opening)).code:
                    protocol = make()
                    near._protocol = protocol
                    protocol.connection_made(near)
                    return
            raise ConnectionRefusedError("no door")

        made = RedialledTransport(opening.resume, dial, chance=SeededChance(), peer="run")
        self.streams.append(made)
        made.attach(User())
        made.start()
        return made

    async def records(self) -> list[StreamRecord]:
        """Return all records, the oldest first."""
        return list(reversed(await self.ring.control.records.list()))

    async def record(self, good: Callable[[StreamRecord], object]) -> StreamRecord:
        """Return the only record once it is as it should be."""
        async with asyncio.timeout(3600):
            while len(rows := await self.records()) != 1 or not good(rows[0]):
                await asyncio.sleep(0.5)
        return rows[0]

    async def close(self) -> None:
        for stream in self.streams:
            stream.abort()
        await self.shell.stop()
        await asyncio.gather(self.running, return_exceptions=True)
        for relay in self.relays.values():
            relay.vanish()
        await asyncio.sleep(0.1)


class Caller(MemoryTransport):
    """A user's connection, from elsewhere."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """As large as they are."""


class Answering(asyncio.Protocol):
    """An echo in a session."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class User(asyncio.Protocol):
    """The user's end: counts what comes back."""

    def __init__(self) -> None:
        self.size = 0

    def data_received(self, data: bytes) -> None:
        self.size += len(data)


def joined(
    near: asyncio.Protocol, far: asyncio.Protocol, certificate: object, kind: type[MemoryTransport] = MemoryTransport
) -> tuple[MemoryTransport, MemoryTransport]:
    """Return the two ends of a connection that has yet to begin."""
    between = _Wire(lambda: 0.001)
    ends = kind(between, {}), MemoryTransport(between, {"peercert": certificate, "peername": (SOURCE, 50000)})
    ends[0].join(near, ends[1])
    ends[1].join(far, ends[0])
    return ends


@asynccontextmanager
async def installed(folder: Path) -> AsyncIterator[Installation]:
    async def aside(call: Callable[..., T], *args: object) -> T:
        return call(*args)

    r = Ring(aside=aside, clock=SimClock(asyncio.get_running_loop()))
    await r.start()
    made = Installation(r, folder)
    try:
        await made.begin()
        yield made
    finally:
        await made.close()
        await r.close()


def play(folder: Path, story: Callable[[Installation], object]) -> None:
    """Tell a story on a virtual clock."""

    async def main() -> None:
        async with installed(folder) as made:
            await story(made)  # type: ignore[misc]

    virtual.run(main())
