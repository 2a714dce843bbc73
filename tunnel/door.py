"""The users' door of a relay: a connection that shows a good grant is joined to a lane of its agent.

On the wire, inside TLS: the user sends a length (four bytes) and `wire.OpenStream`, the door answers with a length and
`wire.Answer`; after a good one all bytes are the lane's, both ways, and bare where that is a spliced one. What ends one
side ends the other: the stream on it has frames of its own (`tunnel.resume`), and goes on over another connection.
"""

import asyncio
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from atoll.errors import AtollError, Invalid, Unauthorized, Unavailable
from tunnel import wire
from tunnel.dataline import BUFFER, RelayLine
from tunnel.grant import BadGrant, Grant, for_relay, permits
from tunnel.lanes import Lane, Use
from tunnel.passthrough import Passthrough
from tunnel.relay import Opened, Relay
from tunnel.resume import ID_SIZE
from tunnel.splice import Leg
from tunnel.tcp import tune
from tunnel.veil import Veil

LENGTH = struct.Struct("!I")
LIMIT = 4096
"""Most bytes of an opening, and of an answer."""
_CLOSE_S = 2.0
"""Until a connection that was refused is gone, whether its peer agrees or not."""


@dataclass(frozen=True, slots=True)
class Way:
    """An address of a door, and the name in the certificate there; `inside`: it is reached inside a WebSocket."""

    host: str
    port: int
    server_name: str = wire.CONTROL_NAME
    inside: bool = field(default=False, compare=False)

    @property
    def direct(self) -> bool:
        """Whether it is an agent's own door, which may well be out of reach."""
        return self.server_name.endswith(wire.AGENT_NAMES)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}{' inside a WebSocket' if self.inside else ''}"


@dataclass(frozen=True, slots=True)
class Limits:
    """Caps that keep strangers, or one user, from taking a whole door. Counts and seconds."""

    opening: int = 512
    """Connections that have not been answered."""
    opening_per_source: int = 64
    """The same of one source address."""
    visits: int = 8192
    """Connections, those included."""
    visits_per_user: int = 1024
    """Connections that were let in with grants of one user."""
    opening_s: float = 10.0
    """Until a connection must have shown its grant."""


class Guard(Protocol):
    """Who is asked, besides the grant itself, and told of visits."""

    async def admit(self, visit: "Visit", /) -> None:
        """Let someone with a good grant in, or raise `AtollError`."""

    def left(self, visit: "Visit", /) -> None:
        """A visit is over. Called once for each that `admit` was asked about."""


class Visit(Leg):
    """One user's connection. `grant` is there once it was found good, `sealed` is what was shown."""

    def __init__(self, door: "Door") -> None:
        super().__init__()
        self.source = ""
        self.sealed = b""
        self.grant: Grant | None = None
        self.opened: Opened | None = None
        self.error: AtollError | None = None
        self.asked = False
        self._door = door
        self._head = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self._opening: asyncio.Task[None] | None = None
        self._passthrough: Passthrough | None = None
        self._refused = False

    @property
    def veil(self) -> Veil | None:
        """What is on the connection and may be lifted, if anything."""
        return self.transport if isinstance(self.transport, Veil) else None

    def end(self, reason: str) -> None:  # noqa: ARG002 - the connection has no frame for it; who comes again hears why
        """End the connection now."""
        if self.transport is not None:
            self.transport.abort()

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the opening, unless too many do."""
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self.source = str(peer[0]) if peer else ""
        tune(transport.get_extra_info("socket"))
        try:
            self._door.came(self)
        except Unavailable as error:
            self._refuse(error)
            return
        late = Unavailable("no grant was shown in time", hint="try again")
        self._timer = asyncio.get_running_loop().call_later(self._door.limits.opening_s, self._refuse, late)

    def data_received(self, data: bytes) -> None:
        """Bytes of the lane, or before it of the opening."""
        if self.other is not None:
            super().data_received(data)
            return
        if self._refused:
            return
        self._head += data
        try:
            payload = payload_of(self._head)
        except wire.ProtocolError as error:
            self._refuse(Invalid(str(error)))
            return
        if payload is not None and self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._open(payload), name="user's stream")

    def eof_received(self) -> bool:
        """The user ended the connection: so do we."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, perhaps before it was answered."""
        if self._timer is not None:
            self._timer.cancel()
        if self._opening is not None:
            self._opening.cancel()
        if self._passthrough is not None:
            self._passthrough.close()
        super().connection_lost(exc)
        self._door.left(self)

    async def _open(self, payload: bytes) -> None:
        if self._timer is not None:
            self._timer.cancel()
        lane = _Lane()
        try:
            opened = await self._door.open(self, wire.decode_open(payload), lane)
        except wire.ProtocolError as error:
            self._refuse(Invalid(str(error)))
        except AtollError as error:
            self._refuse(error)
        except Exception as error:  # noqa: BLE001 - the task's boundary: nothing else would end the connection
            self.end("internal error")
            context = {"message": "opening a user's stream failed", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)
        else:
            self._door.answered(self)
            choice = opened.choice
            self._send(wire.Answer(lane=choice.lane, why=choice.why, bare=choice.lane is Lane.SPLICE))
            self._join(lane, opened)

    def _join(self, lane: "_Lane", opened: Opened) -> None:
        if self.transport is None or lane.transport is None:
            return
        if lane.lost or self.transport.is_closing():
            self.transport.close()
            lane.transport.abort()
            return
        self.transport.set_write_buffer_limits(high=BUFFER)
        self.other, lane.other = lane, self
        if self.veil is not None and isinstance(opened.transport, RelayLine) and opened.choice.lane is Lane.SPLICE:
            self.veil.lift()
            lane.passthrough = self._passthrough = Passthrough(self.veil, opened.transport, opened.transport.moved)
            self._passthrough.start()

    def _refuse(self, error: AtollError) -> None:
        self._refused = True
        self.error = error
        self._door.refused[error.code] += 1
        if self._opening is not None and self._opening is not asyncio.current_task():
            self._opening.cancel()
        self._send(wire.Answer(code=error.code, message=error.message, hint=error.hint))
        if self.transport is not None:
            self.transport.close()
            if self._timer is not None:
                self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_later(_CLOSE_S, self.end, "it does not hear")

    def _send(self, answer: wire.Answer) -> None:
        if self.transport is not None:
            self.transport.write(framed(wire.encode(answer)))


class _Lane(Leg):
    """The agent's side."""

    lost = False
    passthrough: Passthrough | None = None

    def eof_received(self) -> bool:
        """The agent ended the lane: so do we."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The lane is gone, perhaps before it was joined."""
        self.lost = True
        if self.passthrough is not None:
            self.passthrough.close()
        super().connection_lost(exc)


class Door:
    """`accept` is the protocol factory for connections under `wire.ALPN_USER`, and veiled `wire.ALPN_USER_SPLICE`.

    `key` is the relays' key, `now` the control plane's time. `guard` (None: nobody) is asked besides.
    """

    def __init__(
        self,
        relay: Relay,
        key: bytes,
        now: Callable[[], float],
        limits: Limits | None = None,
        guard: Guard | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self._relay = relay
        self._key = key
        self._now = now
        self._guard = guard
        self._visits: set[Visit] = set()
        self._opening: set[Visit] = set()
        self._sources: Counter[str] = Counter()
        self._users: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        """Connections that were not let in, by the code of their error."""

    def __len__(self) -> int:
        """How many connections there are."""
        return len(self._visits)

    def accept(self) -> Visit:
        """Return the protocol for a new connection."""
        return Visit(self)

    def end(self, wanted: Callable[[Grant], bool], reason: str) -> None:
        """End the connections whose grants are `wanted`."""
        for visit in [visit for visit in self._visits if visit.grant is not None and wanted(visit.grant)]:
            visit.end(reason)

    def close(self, reason: str) -> None:
        """End all connections."""
        for visit in list(self._visits):
            visit.end(reason)

    # What visits call.

    def came(self, visit: Visit) -> None:
        """Count a connection; raise `Unavailable` where there are too many."""
        limits = self.limits
        if (
            len(self._visits) >= limits.visits
            or len(self._opening) >= limits.opening
            or self._sources[visit.source] >= limits.opening_per_source
        ):
            raise Unavailable("too many connections are being opened", hint="try again in a moment")
        self._visits.add(visit)
        self._opening.add(visit)
        self._sources[visit.source] += 1

    async def open(self, visit: Visit, opening: wire.OpenStream, lane: asyncio.Protocol) -> Opened:
        """Check a visit's grant and open a lane to its agent; raise `AtollError`."""
        grant = self._checked(opening)
        if self._users[grant.user] >= self.limits.visits_per_user:
            raise Unavailable(f"{grant.user} has {self.limits.visits_per_user} streams here", hint="close some")
        visit.grant, visit.sealed = grant, opening.grant
        self._users[grant.user] += 1
        if self._guard is not None:
            visit.asked = True
            await self._guard.admit(visit)
        use = Use.BLIND if visit.veil is not None and opening.client else Use.BULK
        visit.opened = await self._relay.open(grant.agent, opening, lane, use=use, again=opening.again)
        return visit.opened

    def answered(self, visit: Visit) -> None:
        """A visit is not being opened any more."""
        if visit in self._opening:
            self._opening.remove(visit)
            _less(self._sources, visit.source)

    def left(self, visit: Visit) -> None:
        """A connection is gone."""
        if visit not in self._visits:
            return
        self._visits.remove(visit)
        self.answered(visit)
        if visit.grant is not None:
            _less(self._users, visit.grant.user)
        if self._guard is not None and visit.asked:
            self._guard.left(visit)

    def _checked(self, opening: wire.OpenStream) -> Grant:
        try:
            grant = for_relay(opening.grant, self._key, self._now())
        except BadGrant as error:
            raise Unauthorized(str(error), hint="ask the control plane for a new one") from None
        if not permits(grant, opening):
            raise Unauthorized("the grant is for another stream")
        if len(opening.resume) != ID_SIZE:
            raise Invalid("only streams that can be resumed pass here")
        return grant


def framed(payload: bytes) -> bytes:
    """Return an opening or an answer as it is sent."""
    return LENGTH.pack(len(payload)) + payload


def payload_of(data: bytes | bytearray) -> bytes | None:
    """Return what `framed` made these bytes of, None while some are missing; raise `ProtocolError` for others."""
    if len(data) < LENGTH.size:
        return None
    size = LENGTH.unpack_from(data)[0]
    if size > LIMIT or len(data) > LENGTH.size + size:
        raise wire.ProtocolError("too many bytes before the stream")
    return bytes(data[LENGTH.size :]) if len(data) == LENGTH.size + size else None


def _less(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]
