"""Forwarded ports of a user's machine: each connection to one is a resumable stream to a port of a session."""

import asyncio
import base64
import contextlib
import hashlib
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias
from weakref import WeakSet

from atoll.clock import Chance
from atoll.errors import BLIND, AtollError, Conflict, Unavailable
from tunnel import wire
from tunnel.backoff import Backoff
from tunnel.dataline import BUFFER
from tunnel.door import Way
from tunnel.innertls import OwnKey, towards_agent
from tunnel.splice import Leg
from tunnel.userstream import Permit, UserStream, reach

if TYPE_CHECKING:
    from atoll.client.views import StreamPermitView

WAIT_S = 60.0
"""A new connection waits so long for the control plane, which may be restarting."""
SHUN_S = 60.0
"""An agent's own door that could not be reached is not tried again before this."""
LOOK_S = 20.0
"""How often permits are looked at: whether they are to be renewed."""
_FIRST_S, _LONGEST_S = 0.2, 2.0
_RESET = struct.pack("ii", 1, 0)

AskView: TypeAlias = "Callable[[int, bytes, bytes], Awaitable[StreamPermitView]]"
"""Asks the control plane for a permit: to a port, for the stream of that id again, or (empty) for a new one.

The third is the SHA-256 of the certificate of a blind stream's user, empty for others.
"""


class Forwarding:
    """The forwarded ports of one command; `note` takes lines for people, of every lane where it is `verbose`.

    `own` is where the control plane itself is reached: its door comes after all others. With `blind`, or where the
    session wants it so, the streams are encrypted from here to the agent.
    """

    def __init__(
        self,
        ask: AskView,
        own: tuple[str, int],
        environ: Mapping[str, str],
        chance: Chance,
        note: Callable[[str], None],
        *,
        verbose: bool = False,
        blind: bool = False,
        look_s: float = LOOK_S,
    ) -> None:
        self._key = OwnKey(time.time()) if blind else None
        self._ask = ask
        self._own = Way(*own)
        self._environ = environ
        self._chance = chance
        self._note = note
        self._verbose = verbose
        self._look_s = look_s
        self._waiting = False
        self._shunned: dict[Way, float] = {}
        self._inside: set[Way] = set()
        self._streams: WeakSet[UserStream] = WeakSet()
        self._keeper: asyncio.Task[None] | None = None

    async def reach(self, port: int) -> None:
        """See that there is a door; raise `OSError` where none can be reached, or the control plane's `AtollError`."""
        permit = await self._permit(port, b"")
        way = await reach(permit.ways, permit.ca, self._environ)
        self._note_way(way)
        for missed in permit.ways[: permit.ways.index(way)]:
            self._shun(missed)
        if self._verbose:
            self._note(f"streams that resume, by {way}{', encrypted to the agent' if self._key else ''}")

    def accept(self, port: int) -> asyncio.Protocol:
        """Return the protocol for a connection to the local end of `port`."""
        return _Local(lambda local: self._carry(port, local))

    async def close(self) -> None:
        """End all streams."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        for stream in list(self._streams):
            stream.reset("the forwarded port was closed")
        await asyncio.sleep(0)  # what tells the agents so leaves in this turn

    async def _permit(self, port: int, stream: bytes) -> Permit:
        client = self._key.certificate if self._key is not None else b""
        try:
            view = await self._ask(port, stream, hashlib.sha256(client).digest() if client else b"")
        except Conflict as error:
            if error.reason != BLIND or client or stream:
                raise
            self._key = OwnKey(time.time())
            return await self._permit(port, stream)
        opening = wire.OpenStream(
            run=view.run,
            app=view.app,
            port=view.port,
            resume=bytes.fromhex(view.resume),
            grant=base64.b64decode(view.grant),
            client=client,
        )
        now = asyncio.get_running_loop().time()
        ways = [Way(way.host, way.port, way.server_name) for way in view.ways]
        ways = [way for way in ways if now >= self._shunned.get(way, now)]
        ways = [replace(way, inside=way in self._inside) for way in dict.fromkeys([*ways, self._own])]
        return Permit(view.agent, opening, ways, view.ca, view.valid_s)

    async def _patient(self, port: int) -> Permit:
        """Return a permit for a new stream, waiting for a control plane that is away."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + WAIT_S
        backoff = Backoff(self._chance, first_s=_FIRST_S, longest_s=_LONGEST_S)
        while True:
            try:
                permit = await self._permit(port, b"")
            except Unavailable as error:
                pause = backoff.next()
                if loop.time() + pause > deadline:
                    raise
                if not self._waiting:
                    self._note(f"port {port}: new connections wait: {error.message}")
                self._waiting = True
                await asyncio.sleep(pause)
            else:
                if self._waiting:
                    self._note("new connections go on")
                self._waiting = False
                return permit

    async def _carry(self, port: int, local: "_Local") -> None:
        """Give a local connection its stream."""
        try:
            permit = await self._patient(port)
        except AtollError as error:
            self._note(f"port {port}: {error.message}" + (f" ({error.hint})" if error.hint else ""))
            local.abort()
            return
        stream = UserStream(permit, lambda again: self._permit(port, again), self._environ, chance=self._chance)
        stream.set_write_buffer_limits(BUFFER)
        stream.on_enter = lambda way, answer: self._entered(port, stream, way, answer)
        stream.on_miss = self._shun
        self._streams.add(stream)
        if self._keeper is None:
            self._keeper = asyncio.get_running_loop().create_task(self._keep(), name="permits")
        far: asyncio.Protocol = _Far(local, lambda error: self._note(f"port {port}: {error}"))
        if self._key is not None and permit.opening.client:
            far = towards_agent(self._key.context(permit.ca), permit.agent, far)
        stream.attach(far)
        stream.start()

    def _shun(self, way: Way) -> None:
        if way.direct:
            self._shunned[way] = asyncio.get_running_loop().time() + SHUN_S

    def _note_way(self, way: Way) -> None:
        """Go the same way next time: the other begins with a handshake that fails."""
        if way.inside:
            self._inside.add(way)
        else:
            self._inside.discard(way)

    def _entered(self, port: int, stream: UserStream, way: Way, answer: wire.Answer) -> None:
        self._note_way(way)
        if self._verbose:
            again = f", resumed {stream.resumed}×" if stream.resumed else ""
            self._note(f"port {port}: by {way}, {answer.lane} lane ({answer.why}){again}")

    async def _keep(self) -> None:
        """Renew permits at half of their life: a stream may have to find another way while nobody gives one."""
        while True:
            await asyncio.sleep(self._look_s)
            for stream in [stream for stream in self._streams if stream.age >= 0.5 and not stream.is_closing()]:
                with contextlib.suppress(AtollError):  # it is asked again when it is needed
                    await stream.renew()


class _Local(Leg):
    """A local connection: read from once its stream is there."""

    def __init__(self, carry: "Callable[[_Local], Awaitable[None]]") -> None:
        super().__init__()
        self._carry = carry
        self._early = bytearray()
        self._going = False
        self._task: asyncio.Task[None] | None = None

    def go_on(self) -> None:
        """Hand over what came before the stream was there."""
        stream = self.other.transport if self.other is not None else None
        if stream is None or self.transport is None:
            return
        self._going = True
        if self._early:
            stream.write(bytes(self._early))
            self._early.clear()
        if self.ended:
            stream.write_eof()
        self.transport.set_write_buffer_limits(high=BUFFER)
        self.transport.resume_reading()

    def abort(self) -> None:
        """Reset the connection: what came of it must not be taken for the whole."""
        if self.transport is not None:
            connection = self.transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hold the connection's bytes back and get its stream."""
        super().connection_made(transport)
        self._task = asyncio.get_running_loop().create_task(self._begin())

    def data_received(self, data: bytes) -> None:
        """Pass bytes on once the stream is there; what came before it was told to pause is kept."""
        if self._going:
            super().data_received(data)
        else:
            self._early += data

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, perhaps before its stream was there."""
        if self._task is not None:
            self._task.cancel()
        super().connection_lost(exc)

    async def _begin(self) -> None:
        if self.transport is not None:
            self.transport.pause_reading()  # not in `connection_made`: uvloop begins to read after that
        await self._carry(self)


class _Far(Leg):
    """The stream's side."""

    def __init__(self, local: _Local, failed: Callable[[Exception], None]) -> None:
        super().__init__()
        self.other, local.other = local, self
        self._local = local
        self._failed = failed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The stream takes bytes: it is there or, where it is encrypted, the agent has proved who it is."""
        super().connection_made(transport)
        self._local.go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        """The stream is over; where it was lost, people are told."""
        if exc is not None and self.other is not None:
            self._failed(exc)
            self._local.abort()
        super().connection_lost(exc)
