"""A resumable stream as an asyncio transport: any protocol can run on it and sees nothing of its lanes."""

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

from tunnel.endpoint import Endpoint
from tunnel.resume import FRAME, Greeting, Pieces, Resume
from tunnel.stream import LINGER_S, StreamReset, ignore
from tunnel.tcp import rouse
from tunnel.wire import ProtocolError

RESUME_S = 60.0
"""A stream without a lane for this long is lost, at both ends."""
QUIET_S = 2.5
"""A lane on which nothing came for this long, while the peer owes an ACK, is asked for a sign of life."""
IDLE_S = 30.0
"""The same where nothing is owed."""
ANSWER_S = 2.5
"""A lane that does not answer a greeting or a ping within this is given up."""
_LATE_S = 0.5
"""A check that runs this late was held up by its own process: what the peer sent may still be unread."""
_ACK_S = 0.2
"""What came is acknowledged after this at the latest, a little of it too."""
_LANE_BUFFER = 512 * 1024
"""Bytes handed to a lane's transport beyond what it could send."""
_TURN = 512 * 1024
"""Most bytes sent before other work of the loop gets its turn."""
_AT_ONCE = 4 * 1024
"""Writes from this size on are sent at once; smaller ones of one turn of the loop leave together."""


class LaneOwner(Protocol):
    """Who is told what happens on a lane."""

    def lane_made(self, lane: "Lane", /) -> None:
        """The lane is connected."""

    def lane_received(self, lane: "Lane", data: bytes, /) -> None:
        """Bytes came."""

    def lane_writable(self, lane: "Lane", /) -> None:
        """The lane takes bytes again."""

    def lane_lost(self, lane: "Lane", error: Exception | None, /) -> None:
        """The lane is gone."""


class Lane(asyncio.Protocol):
    """One lane of a stream: the protocol of whatever transport carries it (TLS, a stream of a link, memory).

    It never pauses reading: what the stream's reader cannot take is bounded by the stream's window, and
    acknowledgements and signs of life come behind it.
    """

    def __init__(self, owner: LaneOwner) -> None:
        self.owner: LaneOwner | None = owner
        self.epoch = 0
        self.paused = False
        self._transport: asyncio.Transport | None = None

    @property
    def transport(self) -> asyncio.Transport:
        """What carries it."""
        assert self._transport is not None  # noqa: S101 - its owner hears of it when it is connected
        return self._transport

    def leave(self, *, abort: bool) -> None:
        """Close or abort it and tell the owner nothing more."""
        self.owner = None
        if self._transport is None:
            return
        if abort:
            self._transport.abort()
        else:
            self._transport.close()

    def leave_now(self) -> None:
        """Abort it."""
        self.leave(abort=True)

    # What its transport calls.

    def connection_made(self, base: asyncio.BaseTransport) -> None:
        """Begin; a lane whose stream went meanwhile is closed."""
        self._transport = transport = cast("asyncio.Transport", base)  # uvloop's are, but do not inherit from it
        if self.owner is None:
            transport.abort()
            return
        transport.set_write_buffer_limits(high=_LANE_BUFFER)
        self.owner.lane_made(self)

    def data_received(self, data: bytes) -> None:
        """Bytes from the other end."""
        if self.owner is not None:
            self.owner.lane_received(self, data)

    def eof_received(self) -> bool:
        """The other end or something on the way closed it: so do we. A stream's own end is a frame."""
        return False

    def pause_writing(self) -> None:
        """The transport is full."""
        self.paused = True

    def resume_writing(self) -> None:
        """The transport takes bytes again."""
        self.paused = False
        if self.owner is not None:
            self.owner.lane_writable(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The lane is gone."""
        if self.owner is not None:
            self.owner.lane_lost(self, exc)


class ResumableTransport(Endpoint):
    """One stream, as its protocol sees it. Without a lane, what is written waits.

    Reading and writing follow asyncio's rules: `pause_writing` is called when more than the high-water mark is
    not yet sent; while reading is paused the stream's window is held at most. `close` flushes: it is over,
    with `connection_lost(None)`, when the peer's reader has consumed everything or takes nothing for
    `LINGER_S`; what the peer still sends then is answered by a reset. A stream lost for good ends with
    `connection_lost(StreamReset)`, which says why.

    `get_extra_info("peername")` is `(peer, stream id in hex)`.
    """

    def __init__(self, core: Resume, peer: str) -> None:
        """Make a stream with no lane and no protocol yet."""
        super().__init__({"peername": (peer, core.stream.hex())})
        self.core = core
        self.on_over: Callable[[Exception | None], None] = ignore
        """Called once when the stream is over, with the error that ended it."""
        self._lane: Lane | None = None
        self._inbox = Pieces()
        self._flushing = False
        self._acking: asyncio.TimerHandle | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._heard = 0.0
        self._asked: float | None = None

    def get_write_buffer_size(self) -> int:
        """Return the bytes not sent yet: they wait for a lane or for the peer's reader."""
        return self.core.pending

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Queue data. Nothing happens after close or once the stream is lost."""
        if self._finished:
            if self.is_closing():
                return
            raise RuntimeError("cannot write after write_eof()")
        if self.is_closing() or not data:
            return
        self.core.write(data if type(data) is bytes else bytes(data))
        if self.core.pending >= _AT_ONCE:
            self._send()
        else:
            self._wake()
        if not self._choked and self.core.pending > self._high:
            self._choked = True
            self.get_protocol().pause_writing()

    def write_eof(self) -> None:
        """Send what is queued and then the end of this direction; the other one stays open."""
        if not self._finished and not self.is_closing():
            self._finished = True
            self.core.finish()
            self._wake()

    def close(self) -> None:
        """Read no more, flush, end; `connection_lost(None)` follows."""
        if self.is_closing():
            return
        self._closing = self._finished = True
        self.core.finish()
        self._discard()
        self._linger = self._loop.call_later(LINGER_S, self._lingered, self.core.acked)
        self._settle()

    def reset(self, reason: str) -> None:
        """End both directions at once and tell the peer why, where there is a lane."""
        if not self.core.over:
            self.core.reset(reason)
        self.lose(None)

    def lose(self, error: Exception | None) -> None:
        """The stream is over for its protocol; tell it soon, once."""
        if not self._over:
            self._over = self._closing = True
            self._inbox.clear()
            if self._protocol is not None:
                self._loop.call_soon(self._protocol.connection_lost, error)
            self.on_over(error)
        self._settle()

    # Lanes.

    @property
    def carried(self) -> tuple[int, int]:
        """Bytes that came and that were sent, each byte once."""
        return self.core.carried

    @property
    def attached(self) -> bool:
        """Whether there is a lane, answered or not."""
        return self._lane is not None

    def take_lane(self, lane: Lane, greeting: Greeting) -> bool:
        """Agent: go on on a lane that begins with this greeting; False: a newer one is there already."""
        epoch = self.core.answer(greeting, rouse(lane.transport.get_extra_info("socket")))
        if epoch is None:
            return False
        self._change(lane, epoch)
        return True

    def lane_made(self, lane: Lane) -> None:
        """Client: greet on a new lane; the one before is over."""
        self._change(lane, self.core.greet(rouse(lane.transport.get_extra_info("socket"))))

    def lane_received(self, lane: Lane, data: bytes) -> None:
        """Bytes came on a lane."""
        if lane is not self._lane:
            return
        self._heard = self._loop.time()
        self._asked = None
        core = self.core
        try:
            views = core.receive(lane.epoch, data)
        except ProtocolError as error:
            self._violated(error)
            return
        for view in views:
            self._hand_over(data if len(view) == len(data) else bytes(view))
        if self._acking is None and self._lane is lane:
            self._acking = self._loop.call_later(_ACK_S, self._acknowledge)
        if core.news:
            core.news = False
            self._settle()

    def lane_writable(self, lane: Lane) -> None:
        """A lane takes bytes again."""
        if lane is self._lane:
            self._send()

    def lane_lost(self, lane: Lane, error: Exception | None) -> None:
        """A lane is gone."""
        if lane is self._lane:
            self._drop(error or ConnectionResetError("closed on the way"))

    def detached(self, error: Exception, answered: bool) -> None:
        """The lane was lost, which the peer had `answered` or not: an end finds or awaits another."""

    def parted(self) -> None:
        """Everything was said and heard, or the stream was reset: no lane is needed any more."""

    def _change(self, lane: Lane, epoch: int) -> None:
        if self._lane is not None:
            self._lane.leave(abort=True)
        self._lane = lane
        lane.epoch = epoch
        lane.owner = self
        self._heard = self._asked = self._loop.time()
        self._look()
        self._send()

    def _drop(self, error: Exception) -> None:
        answered = self.core.answered
        self._leave(abort=True)
        self.detached(error, answered)

    def _leave(self, *, abort: bool) -> None:
        lane, self._lane = self._lane, None
        if lane is None:
            return
        self.core.lost(lane.epoch)
        lane.leave(abort=abort)
        for timer in (self._watch, self._acking):
            if timer is not None:
                timer.cancel()
        self._watch = self._acking = None

    def _violated(self, error: ProtocolError) -> None:
        if not self.core.answered:  # not our peer at all: a login page, a relay's error
            self._drop(ConnectionError(f"no answer but nonsense: {error}"))
            return
        self.core.reset(f"protocol error: {error}")
        self.lose(StreamReset(f"protocol error: {error}"))

    # Liveness.

    def _look(self) -> None:
        now = self._loop.time()
        quiet = QUIET_S if self.core.outstanding or self.core.pending else IDLE_S
        if self._asked is not None and now >= self._asked + ANSWER_S:
            if now - self._due < _LATE_S:
                self._drop(TimeoutError(f"nothing heard for {now - self._heard:.1f} s"))
                return
            self._asked = now - ANSWER_S + _LATE_S
        elif self._asked is None and now >= self._heard + quiet:
            self._asked = now
            self.core.ping()
            self._wake()
        if self._asked is not None:
            self._due = self._asked + ANSWER_S
        else:
            self._due = (self._heard if now < self._heard + QUIET_S else now) + QUIET_S
        if self._watch is not None:
            self._watch.cancel()
        self._watch = self._loop.call_at(self._due, self._look)

    def _acknowledge(self) -> None:
        self._acking = None
        self.core.acknowledge()
        self._wake()

    # Going out.

    def _wake(self) -> None:
        # Once per turn of the loop: what several callers queue in one turn leaves as one write.
        lane = self._lane
        if lane is not None and not self._flushing and not lane.paused and self.core.ready(lane.epoch):
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        self._send()

    def _send(self) -> None:
        lane, core = self._lane, self.core
        if lane is None:
            return
        sent = 0
        while not lane.paused and sent < _TURN and core.ready(lane.epoch):
            parts = core.take(lane.epoch)
            sent += FRAME
            lane.transport.writelines(parts)
            if self._lane is not lane:
                return
        if self._choked and core.pending <= self._low and not self.is_closing():
            self._choked = False
            self.get_protocol().resume_writing()
        if core.over:
            self._part()
        else:
            self._wake()

    # Coming in.

    def _hand_over(self, data: bytes) -> None:
        if self._closing:
            if self._over:
                self.core.reset("closed")
                self._settle()
            else:
                self.core.consumed(len(data))
        elif self._paused or self._inbox.size:
            self._inbox.append(data)
        else:
            self._give(data)

    def _give(self, data: bytes) -> None:
        try:
            self._protocol.data_received(data)  # type: ignore[union-attr] # attached before it has a lane's data
        except BaseException:
            self.reset("the protocol of the other end failed")
            raise
        self.core.consumed(len(data))

    def _deliver(self) -> None:
        while self._inbox.size and not self._paused and not self.is_closing():
            self._give(b"".join(self._inbox.take(FRAME)))
        self._settle()

    def _discard(self) -> None:
        count = self._inbox.size
        self._inbox.clear()
        self.core.consumed(count)

    def _settle(self) -> None:
        """Draw the conclusions from what the core knows by now."""
        core = self.core
        if core.ended and not (self._inbox.size or self._paused):
            self._tell_end()
        if core.reason is not None and not self._over:
            self._was_reset(StreamReset(core.reason))
        if self._closing and core.flushed and not self._over:
            self.lose(None)
            return
        if core.over:
            self._part()
        else:
            self._wake()

    def _tell_end(self) -> None:
        if self._end_told or self.is_closing():
            return
        self._end_told = True
        stays = self.get_protocol().eof_received()
        if not stays and self._late_error is None:
            self.close()

    def _was_reset(self, error: Exception) -> None:
        """What had ended before a reset may still be read; else the stream is lost."""
        if self.core.ended and not self._end_told and not self.is_closing():
            self._late_error = error
        else:
            self.lose(error)

    def _part(self) -> None:
        """Nothing more is to be said: say the last and leave the lane."""
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        lane = self._lane
        if lane is not None:
            while self.core.ready(lane.epoch):
                lane.transport.writelines(self.core.take(lane.epoch))
            self._leave(abort=False)
        self.parted()

    def _lingered(self, acked: int) -> None:
        self._linger = None
        if self.core.over:
            return
        if self._lane is None or self.core.acked != acked:
            self._linger = self._loop.call_later(LINGER_S, self._lingered, self.core.acked)
            return
        self.core.reset("closed")
        self.lose(None)
