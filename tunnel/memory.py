"""A network in memory, for tests and the simulation: deterministic, with faults on demand."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from tunnel.certificates import Bearer
from tunnel.dialer import DIAL_TIMEOUT_S, Dialer

_HIGH = 256 * 1024
Latency = float | Callable[[], float]


@runtime_checkable
class Mortal(Protocol):
    """A protocol with timers of its own, which must stop when its simulated process dies."""

    def die(self) -> None:
        """Stop; call nobody any more."""


class MemoryTransport(asyncio.Transport):
    """One end of a connection in memory. Bytes arrive in order, `latency` later, while its wire is not cut."""

    def __init__(self, wire: "_Wire", extra: dict[str, Any]) -> None:
        super().__init__(extra)
        self._wire = wire
        self._loop = asyncio.get_running_loop()
        self._protocol: asyncio.Protocol
        self._other: MemoryTransport
        self._flying: deque[bytes | None] = deque()
        self._flying_size = 0
        self._landed = 0
        self._arrives = 0.0
        self._high, self._low = _HIGH, _HIGH // 4
        self._choked = False
        self.paused = False
        self.closing = False
        self.over = False

    def join(self, protocol: asyncio.Protocol, other: "MemoryTransport") -> None:
        """Give this end its protocol and its other end."""
        self._protocol = protocol
        self._other = other

    def begin(self) -> None:
        """Call the protocol's `connection_made`."""
        self._protocol.connection_made(self)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes."""
        if self.closing or not data:
            return
        self._send(bytes(data))
        if not self._choked and self._flying_size > self._high:
            self._choked = True
            self._protocol.pause_writing()

    def pause_reading(self) -> None:
        """Let what comes, the end too, wait with the sender."""
        self.paused = True

    def resume_reading(self) -> None:
        """Take what waits, soon."""
        if self.paused:
            self.paused = False
            self._loop.call_soon(self._other.land)

    def is_reading(self) -> bool:
        """Say whether bytes are delivered as they come."""
        return not (self.paused or self.closing)

    def is_closing(self) -> bool:
        """Say whether it is closed or being closed."""
        return self.closing

    def close(self) -> None:
        """End after the bytes on their way; the other end sees the end when they arrive."""
        if not self.closing:
            self._send(None)
            self.closing = True
            self._loop.call_soon(self._lose, None)

    def abort(self) -> None:
        """End now; bytes on their way are lost, the other end sees a reset."""
        if not self.over:
            self.closing = True
            self._flying.clear()
            self._landed = self._flying_size = 0
            self._send(None)
            self._loop.call_soon(self._lose, None)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the marks, in bytes on their way, at which writing is paused and resumed."""
        self._high = _HIGH if high is None else high
        self._low = self._high // 4 if low is None else low

    def get_write_buffer_size(self) -> int:
        """Return the bytes on their way."""
        return self._flying_size

    def reset(self, error: Exception | None) -> None:
        """The connection breaks: this end hears of it now."""
        self.closing = True
        self._loop.call_soon(self._lose, error)

    def mute(self) -> None:
        """The process at this end is dead: it hears nothing more, the other end sees a reset."""
        if not self.over:
            self.closing = self.over = True
            self._wire.forget(self)
            if isinstance(self._protocol, Mortal):
                self._protocol.die()
            self._flying.clear()
            self._landed = self._flying_size = 0
            self._send(None)

    def land(self) -> None:
        """Deliver everything that has arrived, unless the wire is cut or the other end does not read."""
        if not self._wire.cut:
            self._wire.held.pop(self, None)
        while self._landed and not self._wire.cut and not self._other.paused:
            self._landed -= 1
            item = self._flying.popleft()
            if item is None:
                self._other.ended()
                return
            self._flying_size -= len(item)
            self._other.arrived(item)
        if self._choked and self._flying_size <= self._low and not self.over:
            self._choked = False
            self._protocol.resume_writing()

    def arrived(self, data: bytes) -> None:
        """Bytes for this end's protocol."""
        if self.over:
            return
        try:
            self._protocol.data_received(data)
        except BaseException:
            self.abort()
            raise

    def ended(self) -> None:
        """The other end closed or broke the connection."""
        if not self.over and not self.closing:
            self._protocol.eof_received()
            self.closing = True
            self._loop.call_soon(self._lose, None)

    def _send(self, item: bytes | None) -> None:
        now = self._loop.time()
        # Never before what was sent earlier, even when the latency falls.
        self._arrives = max(self._arrives, now + self._wire.latency())
        self._flying.append(item)
        self._flying_size += len(item or b"")
        if self._arrives <= now:
            self._loop.call_soon(self._arrive)
        else:
            self._loop.call_at(self._arrives, self._arrive)

    def _arrive(self) -> None:
        # Counted, not named: timers of one instant may fire in any order.
        if self._landed < len(self._flying):
            self._landed += 1
            self._wire.held[self] = None
            self.land()

    def _lose(self, error: Exception | None) -> None:
        if not self.over:
            self.over = True
            self._wire.forget(self)
            self._protocol.connection_lost(error)


class _Wire:
    """What lies between one agent and the listener: its faults and its connections' ends."""

    def __init__(self, latency: Callable[[], float]) -> None:
        self.latency = latency
        self.cut = False
        self.refused = False
        self.agent_ends: dict[MemoryTransport, None] = {}
        self.control_ends: dict[MemoryTransport, None] = {}
        self.held: dict[MemoryTransport, None] = {}
        self.uncut = asyncio.Event()
        self.uncut.set()

    def forget(self, end: MemoryTransport) -> None:
        """An end is over. Bytes it sent may still be on their way."""
        self.agent_ends.pop(end, None)
        self.control_ends.pop(end, None)

    @property
    def ends(self) -> list[MemoryTransport]:
        return [*self.agent_ends, *self.control_ends]


class MemoryNetwork:
    """All connections between agents and one listener.

    `latency` is one-way seconds, or a callable asked for each write. Create it inside the running loop or
    before; nothing but the running loop's `call_soon`, `call_at` and `time` is used.
    """

    def __init__(self, *, latency: Latency = 0.0) -> None:
        self.latency = latency
        self._make: Callable[[str], asyncio.Protocol] | None = None
        self._make_data: Callable[[], asyncio.Protocol] | None = None
        self._wires: dict[str, _Wire] = {}

    def listen(
        self, make: Callable[[str], asyncio.Protocol] | None, data: Callable[[], asyncio.Protocol] | None = None
    ) -> None:
        """Serve dials with `make(agent id)`, data connections with `data()`; None: dials are refused."""
        self._make = make
        self._make_data = data

    def dialer(self, agent_id: str, *, generation: int = 0, data: bool = False) -> Dialer:
        """Return how the agent of that id dials the listener, for its link or (`data`) for data connections.

        `generation` is that of the certificate which it has, as it were.
        """
        return _MemoryDialer(self, Bearer(agent_id, generation), data=data)

    def cut(self, agent_id: str) -> None:
        """Let nothing through, silently (half-open); dials hang until healed or timed out."""
        wire = self._wire(agent_id)
        wire.cut = True
        wire.uncut.clear()

    def heal(self, agent_id: str) -> None:
        """End a cut. Bytes held meanwhile arrive, as TCP would send them again; an end whose other died is reset."""
        wire = self._wire(agent_id)
        wire.cut = False
        wire.uncut.set()
        for end in list(wire.held):
            end.land()

    def reset(self, agent_id: str) -> None:
        """Both ends of its connections are lost now."""
        for end in self._wire(agent_id).ends:
            end.reset(ConnectionResetError("connection reset by peer"))

    def refuse(self, agent_id: str, refused: bool) -> None:
        """Refuse its dials from now on (True) or no longer (False)."""
        self._wire(agent_id).refused = refused

    def crash_control(self) -> None:
        """The listening process dies: its protocols hear nothing more, agents see a reset, nobody listens."""
        self._make = self._make_data = None
        for wire in self._wires.values():
            for end in list(wire.control_ends):
                end.mute()

    def crash_agent(self, agent_id: str) -> None:
        """The agent's process dies: its protocols hear nothing more, the control side sees a reset."""
        for end in list(self._wire(agent_id).agent_ends):
            end.mute()

    async def connect(self, bearer: Bearer, make: Callable[[], asyncio.Protocol], *, data: bool = False) -> None:
        """Connect an agent's protocol to the listener's; raise as a `Dialer` does."""
        wire = self._wire(bearer.agent)
        async with asyncio.timeout(DIAL_TIMEOUT_S):
            await wire.uncut.wait()
            await asyncio.sleep(2 * wire.latency())
            await wire.uncut.wait()
        make_control, make_data = self._make, self._make_data
        if wire.refused or make_control is None or (data and make_data is None):
            raise ConnectionRefusedError("connection refused")
        agent_end = MemoryTransport(wire, {})
        control_end = MemoryTransport(wire, {} if data else {"atoll_agent": bearer})
        agent_end.join(make(), control_end)
        control_end.join(make_data() if data and make_data else make_control(bearer.agent), agent_end)
        wire.agent_ends[agent_end] = None
        wire.control_ends[control_end] = None
        control_end.begin()
        agent_end.begin()

    def _wire(self, agent_id: str) -> _Wire:
        return self._wires.setdefault(agent_id, _Wire(self._latency))

    def _latency(self) -> float:
        return self.latency() if callable(self.latency) else self.latency


class _MemoryDialer:
    def __init__(self, network: MemoryNetwork, bearer: Bearer, *, data: bool) -> None:
        self._network = network
        self._bearer = bearer
        self._data = data

    async def dial(self, make: Callable[[], asyncio.Protocol], *, splice: bool = False) -> None:
        if splice:
            raise OSError("there is no kernel here to splice in")
        await self._network.connect(self._bearer, make, data=self._data)
