"""The user's end of a resumable stream: it comes in by the doors of relays, with a grant that is kept good."""

import asyncio
import functools
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, cast

from msgspec import structs

from atoll.clock import Chance
from atoll.errors import BY_CODE, AtollError, Unauthorized, Unavailable
from tunnel import wire
from tunnel.buffered import Buffered
from tunnel.dialer import connect
from tunnel.door import Way, framed, payload_of
from tunnel.envelope import secured, veiled
from tunnel.redial import RedialledTransport
from tunnel.tcp import ease, tune
from tunnel.veil import Veil

WAY_S = 4.0
"""Most seconds for one way: a relay that hangs must leave time for the next."""
DIRECT_S = 1.0
"""The same for an agent's own door: from most places it cannot be reached."""


@dataclass(frozen=True, slots=True)
class Permit:
    """What the control plane permits: one stream, by any of these ways, for `life_s` seconds from when it was asked.

    `ca` (PEM) is who signs the doors' certificates, and `agent`'s.
    """

    agent: str
    opening: wire.OpenStream
    ways: Sequence[Way]
    ca: str
    life_s: float


Ask: TypeAlias = Callable[[bytes], Awaitable[Permit]]
"""Asks for a permit: for the stream of that id again, or (empty) for a new one. Raises `AtollError`."""


class UserStream(RedialledTransport):
    """A user's stream to a session, begun with the `permit` that was given; `ask` gets others for the same stream.

    `entered` is the way it took last; `on_enter` hears of each lane, `on_miss` of each way that led nowhere.
    """

    def __init__(self, permit: Permit, ask: Ask, environ: Mapping[str, str], *, chance: Chance) -> None:
        super().__init__(permit.opening.resume, self._enter, chance=chance, peer=permit.opening.run)
        self.entered: Way | None = None
        self.on_enter: Callable[[Way, wire.Answer], None] = lambda _way, _answer: None
        self.on_miss: Callable[[Way], None] = lambda _way: None
        self._permit = permit
        self._ask = ask
        self._environ = environ
        self._asked_at = self._loop.time()
        self._doubted = False

    @property
    def age(self) -> float:
        """Which part of its permit's life is over: 1 and more when it is of no use any more."""
        return (self._loop.time() - self._asked_at) / self._permit.life_s

    async def renew(self) -> None:
        """Ask for another permit, and use it from the next dial on; raise `AtollError`."""
        asked_at = self._loop.time()
        self._permit = await self._ask(self.core.stream)
        self._asked_at = asked_at
        self._doubted = False

    def detached(self, error: Exception, answered: bool) -> None:
        """The lane was lost: where it was never answered, that may be the permit's fault."""
        self._doubted = self._doubted or not answered
        super().detached(error, answered)

    async def _enter(self, make: Callable[[], asyncio.Protocol]) -> None:
        """Try all ways, the one that was lost last of all; a door that does not take the permit gets another."""
        if self._doubted or self.age >= 1.0:
            await self._renew_if_possible()
        failure: Exception = Unavailable("there is no way to the session's agent")
        for way in sorted(self._permit.ways, key=lambda way: way == self.entered):
            try:
                taken, answer = await enter(way, self._permit, self._environ, make, again=self.resumed > 0)
            except Unauthorized as error:
                if self._doubted:
                    raise
                self._doubted = True
                raise Unavailable(error.message, hint=error.hint) from error
            except (OSError, Unavailable) as error:
                failure = error
                self.on_miss(way)
            else:
                self.entered = taken
                self.on_enter(taken, answer)
                return
        raise failure

    async def _renew_if_possible(self) -> None:
        try:
            await self.renew()
        except Unavailable:
            if self.age >= 1.0:
                raise


async def enter(
    way: Way,
    permit: Permit,
    environ: Mapping[str, str],
    make: Callable[[], asyncio.Protocol],
    *,
    again: bool = False,
) -> tuple[Way, wire.Answer]:
    """Come in by a door and hand the connection to `make()`; return how it is reached, and what it says of the lane.

    With `again` the stream had other lanes before.

    Raises `OSError` where the door cannot be reached, and the door's own `AtollError`.
    """
    async with asyncio.timeout(DIRECT_S if way.direct else WAY_S):
        taken, caller = await _call(way, permit.ca, environ, blind=bool(permit.opening.client))
        try:
            answer = await caller.ask(structs.replace(permit.opening, again=again))
        except BaseException:
            caller.transport.abort()
            raise
    caller.hand_over(make(), answer)
    return taken, answer


async def reach(ways: Sequence[Way], ca: str, environ: Mapping[str, str]) -> Way:
    """Return the first way at whose end there is a door, as it is reached; raise `OSError` where there is none."""
    failure = OSError("there is no way to a door")
    for way in ways:
        try:
            async with asyncio.timeout(DIRECT_S if way.direct else WAY_S):
                taken, caller = await _call(way, ca, environ)
                caller.transport.abort()
        except OSError as error:
            failure = OSError(f"{way}: {error or 'no answer in time'}")
        else:
            return taken
    raise failure


async def _call(way: Way, ca: str, environ: Mapping[str, str], *, blind: bool = False) -> "tuple[Way, _Caller]":
    """Call at a door: where another server answers there, inside a WebSocket."""
    try:
        return way, await _dial(way, ca, environ, blind)
    except (ssl.SSLError, ConnectionError) as error:
        if way.direct or way.inside or isinstance(error, ConnectionRefusedError):
            raise
        inside = replace(way, inside=True)
        try:
            return inside, await _dial(inside, ca, environ, blind)
        except OSError as second:
            raise OSError(f"{error}; inside a WebSocket: {second}") from second


async def _dial(way: Way, ca: str, environ: Mapping[str, str], blind: bool) -> "_Caller":
    """Connect; of `blind` streams a door may take the TLS off."""
    protocols = (wire.ALPN_USER_SPLICE, wire.ALPN_USER) if blind else (wire.ALPN_USER,)
    context, caller = user_context(ca, protocols), _Caller()
    connection = await connect(way.host, way.port, {} if way.direct else environ)  # no proxy leads into the LAN
    inside = (way.host, way.port) if way.inside else None
    if blind:
        await veiled(connection, caller, context, way.server_name, inside=inside)
    else:
        await secured(connection, lambda: Buffered(caller), context, way.server_name, inside=inside)
    tls = caller.transport.get_extra_info("ssl_object")
    if tls.selected_alpn_protocol() not in protocols:
        caller.transport.abort()
        raise ConnectionError(f"{way} has no door for users")
    return caller


@functools.lru_cache(maxsize=16)
def user_context(ca: str, protocols: tuple[str, ...] = (wire.ALPN_USER,)) -> ssl.SSLContext:
    """Return the context for doors whose certificates `ca` (PEM) signs, made once. Raises `OSError` for a bad one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=ca)
    context.set_alpn_protocols(list(protocols))
    return context


class _Caller(asyncio.Protocol):
    """A connection to a door until it is answered."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._head = bytearray()
        self._answer: asyncio.Future[wire.Answer] = asyncio.get_running_loop().create_future()

    @property
    def transport(self) -> asyncio.Transport:
        """The connection."""
        assert self._transport is not None  # noqa: S101 - nobody has a caller that is not connected
        return self._transport

    async def ask(self, opening: wire.OpenStream) -> wire.Answer:
        """Show the opening and return the door's answer; raise what it refuses with, or `OSError`."""
        self.transport.write(framed(wire.encode(opening)))
        answer = await self._answer
        if answer.code:
            raise BY_CODE.get(answer.code, AtollError)(answer.message, hint=answer.hint)
        return answer

    def hand_over(self, protocol: asyncio.Protocol, answer: wire.Answer) -> None:
        """Let the stream have the connection."""
        ease(self.transport.get_extra_info("socket"))
        if not isinstance(self.transport, Veil):
            self.transport.set_protocol(Buffered(protocol))
        else:
            self.transport.set_protocol(protocol)
            if answer.bare:
                self.transport.lift()
        protocol.connection_made(self.transport)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are, but do not inherit from it
        tune(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        """Take the answer."""
        self._head += data
        try:
            payload = payload_of(self._head)
            if payload is not None and not self._answer.done():
                self._answer.set_result(wire.decode_answer(payload))
        except wire.ProtocolError as error:
            self._fail(ConnectionError(f"the door's answer makes no sense: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._fail(exc if isinstance(exc, OSError) else ConnectionResetError("the door closed the connection"))

    def _fail(self, error: Exception) -> None:
        if not self._answer.done():
            self._answer.set_exception(error)
            self._answer.exception()  # nobody may be waiting any more
