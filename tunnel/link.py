"""An agent's live connection, the same class at both ends: messages, streams, liveness."""

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

from atoll.errors import Unavailable
from tunnel import mux, tcp, wire
from tunnel.certificates import Bearer
from tunnel.identity import peer_of
from tunnel.mux import Side
from tunnel.stream import StreamReset, StreamTransport

__all__ = ["Link", "LinkOwner", "Side"]

_WRITE_BUFFER = 128 * 1024
"""Bytes handed to the transport beyond what the kernel took: a control message waits behind them at most."""
_TAKE = 64 * 1024
_TURN = 128 * 1024
"""Most bytes sent before other work of the loop gets its turn: larger batches fall out of the CPU's cache
(8 streams over loopback TLS: 860 MB/s with this, 330 MB/s with 1 MiB)."""
_CLOSE_S = 2.0
"""A closing link whose last bytes do not leave within this is aborted."""
_LATE_S = 0.5
"""A check that runs this late was held up by its own process: what the peer sent may still be unread."""
_GRACE_S = 0.9
"""How long such a peer has left to be heard."""


class LinkOwner(Protocol):
    """What the shell at each end does about its links. No method may block; none may raise."""

    def linked(self, link: "Link", /) -> None:
        """The connection is up (TLS and all); messages may be sent from here on."""

    def received(self, link: "Link", message: wire.FromAgent | wire.FromControl, /) -> None:
        """A message came, decoded for this side: an agent gets `FromControl`, control gets `FromAgent`."""

    def stream_opened(self, link: "Link", opening: wire.OpenStream, /) -> asyncio.Protocol | None:
        """Agent side: the control plane opens a stream. None refuses it; else the protocol that serves it.

        That protocol's transport is a `StreamTransport`: its `reset(reason)` tells the other end why.
        """

    def lost(self, link: "Link", reason: str, /) -> None:
        """The link is over, for `reason` (a sentence for people). Called exactly once after `linked`."""


class Link(asyncio.Protocol):
    """A protocol for any stream transport: a TLS socket or the memory network.

    Pings every `PING_EVERY_S`; silence of `DEAD_AFTER_S` ends it. The link itself never stops reading
    (streams are held back by credit), so liveness does not depend on how fast users read.
    """

    def __init__(self, owner: LinkOwner, *, side: Side) -> None:
        self._owner = owner
        self._side = side
        self._mux = mux.Mux(side)
        self._streams: dict[int, StreamTransport] = {}
        self._waiting: dict[int, StreamTransport] = {}
        self._transport: asyncio.Transport | None = None
        self._peer = Bearer("")
        self._paused = False
        self._flushing = False
        self._reason = ""
        self._over = False
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._heard = 0.0
        self._ping_at = 0.0
        self._pinged: dict[int, float] = {}
        self._awaited: dict[int, tuple[asyncio.Future[float], Callable[[], float]]] = {}
        self._token = 0
        self._rtt: float | None = None
        self._answered_at: float | None = None
        self._handed = 0
        self.alive = False
        """Whether the link is up and not being closed."""
        self.message_size = 0
        """Bytes of the message that the owner is just given."""

    @property
    def peer(self) -> str:
        """The agent's id, from its client certificate or the memory transport; "" where there is none."""
        return self._peer.agent

    @property
    def address(self) -> str:
        """The address at the other end of the connection, "" where there is none."""
        name = self._transport.get_extra_info("peername") if self._transport is not None else None
        return str(name[0]) if isinstance(name, tuple) else ""

    @property
    def generation(self) -> int:
        """Which of the agent's certificates the connection was made with."""
        return self._peer.generation

    @property
    def rtt(self) -> float | None:
        """Smoothed round-trip time in seconds; None before the first answer."""
        return self._rtt

    @property
    def answered_at(self) -> float | None:
        """Loop time at which the newest answered ping was sent: the peer surely heard this end then (I8)."""
        return self._answered_at

    @property
    def queued(self) -> int:
        """Bytes of control messages not yet handed to the kernel: a shell slows its logs by this."""
        held = self._transport.get_write_buffer_size() if self._transport and not self._over else 0
        return self._mux.queued + min(self._handed, held)

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return self._mux.streams

    @property
    def buffered(self) -> int:
        """Bytes that wait to be sent: of streams, of control messages and in the connection's own buffer."""
        held = self._transport.get_write_buffer_size() if self._transport and not self._over else 0
        return held + self._mux.queued + sum(self._mux.pending(stream) for stream in self._streams)

    @property
    def carried(self) -> tuple[int, int]:
        """Bytes of streams that came and went."""
        return self._mux.received, self._mux.sent

    async def ping(self, now: Callable[[], float] | None = None) -> float:
        """Return the seconds that a ping of its own and its answer take. Raises `Unavailable` when the link ends.

        `now` is a finer clock than the loop's. It never times out by itself; a link that stays silent ends.
        """
        if not self.alive:
            raise Unavailable("the agent's link is down", hint="it reconnects by itself; try again in a moment")
        now = now or self._loop.time
        token = self._ping()
        answer: asyncio.Future[float] = self._loop.create_future()
        self._awaited[token] = answer, now
        sent = now()
        self._wake()
        try:
            return await answer - sent
        finally:
            self._awaited.pop(token, None)

    def send(self, message: wire.Message) -> None:
        """Queue a message. Never blocks; on a link that is closing or lost it does nothing.

        Raises `Invalid` when the message is longer than `mux.MESSAGE_LIMIT`.
        """
        if self.alive:
            self._mux.send(wire.encode(message))
            self._wake()

    def open_stream(self, opening: wire.OpenStream, protocol: asyncio.Protocol) -> StreamTransport:
        """Control side: open a stream and attach `protocol` (its `connection_made` is called before this returns).

        Data may be written at once. A refusal by the agent arrives as `connection_lost(StreamReset)`.
        Raises `Unavailable` when the link is down or has too many streams.
        """
        if not self.alive:
            raise Unavailable("the agent's link is down", hint="it reconnects by itself; try again in a moment")
        stream = self._mux.open(wire.encode(opening))
        transport = self._new_stream(stream)
        self._wake()
        transport.attach(protocol)
        return transport

    def close(self, reason: str) -> None:
        """Send what is queued of control, tell the peer why, and close. `lost` follows."""
        if not self.alive or self._transport is None:
            return
        self._mux.close(reason)
        self.alive = False
        self._reason = reason
        self._lose_streams(reason)
        while self._mux.queued:
            self._transport.write(self._mux.take(_TAKE, streams=False)[0])
        self._transport.close()
        self._schedule(_CLOSE_S, self._give_up)

    def die(self) -> None:
        """A simulated process ends here and now: no callback comes any more, not even `lost`."""
        self._over = True
        self.alive = False
        if self._timer is not None:
            self._timer.cancel()

    # What the loop calls.

    def connection_made(self, base: asyncio.BaseTransport) -> None:
        """Begin: the transport is connected and, where it is TLS, authenticated."""
        transport = cast("asyncio.Transport", base)  # uvloop's are, but do not inherit from it
        self._transport = transport
        self.alive = not self._over
        self._loop = asyncio.get_running_loop()
        self._peer = peer_of(transport)
        transport.set_write_buffer_limits(high=_WRITE_BUFFER)
        tcp.tune_link(transport.get_extra_info("socket"), _WRITE_BUFFER)
        self._heard = self._ping_at = self._loop.time()
        self._tick()
        self._owner.linked(self)

    def data_received(self, data: bytes) -> None:
        """Bytes from the peer."""
        self._heard = self._loop.time()
        if not self.alive:
            return
        try:
            for event in self._mux.receive(data):
                if not self.alive:
                    return
                self._handle(event)
        except wire.ProtocolError as error:
            self.close(f"protocol error: {error}")
            return
        if self._mux.ready:
            self._wake()

    def eof_received(self) -> bool:
        """The peer ended the connection: so do we."""
        return False

    def pause_writing(self) -> None:
        """The transport's buffer is full: hold everything in the mux, where control goes first."""
        self._paused = True

    def resume_writing(self) -> None:
        """The transport takes bytes again."""
        self._paused = False
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._end(self._reason or (f"connection lost: {exc}" if exc else "connection closed by the peer"))

    # Liveness.

    def _tick(self) -> None:
        now = self._loop.time()
        if now >= self._heard + wire.DEAD_AFTER_S:
            if now - self._due < _LATE_S:
                self._abort(f"nothing heard for {wire.DEAD_AFTER_S:g} s")
                return
            self._heard = now - wire.DEAD_AFTER_S + _GRACE_S
        if now >= self._ping_at:
            self._ping_at = now + wire.PING_EVERY_S
            self._pinged = {token: at for token, at in self._pinged.items() if now - at < wire.DEAD_AFTER_S}
            self._ping()
            self._wake()
        for stream in list(self._streams.values()) if self._streams else ():
            stream.aged(now)
        self._due = min(self._ping_at, self._heard + wire.DEAD_AFTER_S)
        self._schedule(self._due - now, self._tick)

    def _ping(self) -> int:
        self._token += 1
        self._pinged[self._token] = self._loop.time()
        self._mux.ping(self._token)
        return self._token

    def _schedule(self, delay: float, call: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(delay, call)

    def _give_up(self) -> None:
        self._abort(self._reason)

    def _abort(self, reason: str) -> None:
        transport = self._transport
        self._end(reason)
        if transport is not None:
            transport.abort()

    def _end(self, reason: str) -> None:
        if self._over:
            return
        self._over = True
        self.alive = False
        self._reason = reason
        if self._timer is not None:
            self._timer.cancel()
        self._lose_streams(reason)
        awaited, self._awaited = self._awaited, {}
        for answer, _ in awaited.values():
            if not answer.done():
                answer.set_exception(Unavailable(f"the agent's link was lost: {reason}"))
        self._owner.lost(self, reason)

    def _lose_streams(self, reason: str) -> None:
        streams, self._streams = self._streams, {}
        self._waiting.clear()
        for stream in streams.values():
            stream.lose(StreamReset(f"the agent's link was lost: {reason}"))

    # Coming in.

    def _handle(self, event: mux.Event) -> None:
        match event:
            case mux.GotData(stream, data):
                if transport := self._streams.get(stream):
                    transport.data_received(data)
            case mux.GotEnd(stream):
                if transport := self._streams.get(stream):
                    transport.end_received()
            case mux.GotOpen(stream, payload):
                self._serve(stream, wire.decode_open(payload))
            case mux.GotReset(stream, reason):
                if transport := self._streams.get(stream):
                    transport.lose_when_read(StreamReset(reason))
            case mux.GotMessage(data):
                self.message_size = len(data)
                decode = wire.decode_from_agent if self._side is Side.CONTROL else wire.decode_from_control
                self._owner.received(self, decode(data))
            case mux.GotPong(token):
                self._answered(token)
            case mux.GotClose(reason):
                self._reason = self._reason or f"closed by the peer: {reason}"

    def _answered(self, token: int) -> None:
        sent = self._pinged.pop(token, None)
        if sent is not None:
            self._answered_at = sent if self._answered_at is None else max(self._answered_at, sent)
            # Of pings that arrive together only the newest is answered: it answers for those before it.
            for earlier in [each for each in self._awaited if each <= token]:
                answer, now = self._awaited.pop(earlier)
                if not answer.done():
                    answer.set_result(now())
            sample = self._loop.time() - sent
            self._rtt = sample if self._rtt is None else 0.75 * self._rtt + 0.25 * sample

    def _serve(self, stream: int, opening: wire.OpenStream) -> None:
        protocol = self._owner.stream_opened(self, opening)
        if protocol is None:
            self._mux.reset(stream, "refused by the agent")
        else:
            self._new_stream(stream).attach(protocol)

    def _new_stream(self, stream: int) -> StreamTransport:
        transport = StreamTransport(
            stream, self._mux, self._wake, self._stream_changed, lambda: self._rtt, self._peer.agent
        )
        self._streams[stream] = transport
        return transport

    # Going out.

    def _stream_changed(self, stream: StreamTransport) -> None:
        if stream.gone:
            self._streams.pop(stream.stream, None)
        if stream.waiting:
            self._waiting[stream.stream] = stream
        else:
            self._waiting.pop(stream.stream, None)
        self._wake()

    def _wake(self) -> None:
        # Once per turn of the loop: what several callers queue in one turn leaves as one write.
        if not self._flushing and not self._paused and self.alive:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        transport = self._transport
        sent, more = 0, self._mux.ready
        while more and transport is not None and self.alive and not self._paused and sent < _TURN:
            if not transport.get_write_buffer_size():
                self._handed = 0
            data, control = self._mux.take(_TAKE)
            self._handed += control
            sent += len(data)
            transport.write(data)
            more = self._mux.ready
        for stream in list(self._waiting.values()) if self._waiting else ():
            stream.progressed()
            if not stream.waiting:
                self._waiting.pop(stream.stream, None)
        if more:
            self._wake()
