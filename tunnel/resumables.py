"""The agent's ends of resumable streams, by id: a lane that comes finds the stream it belongs to."""

import asyncio
from collections.abc import Callable

from tunnel.dialer import DIAL_TIMEOUT_S
from tunnel.resumable import RESUME_S, Lane, ResumableTransport
from tunnel.resume import GREETING_SIZE, WINDOW, Greeting, Resume, Side, read_greeting, refusal
from tunnel.stream import StreamReset
from tunnel.wire import ProtocolError

STREAMS_LIMIT = 1024
"""Most live streams of one agent."""
SMALL_WINDOW = 256 * 1024
WINDOWS_LIMIT = 256 * 1024 * 1024
"""Most bytes of full windows given to all streams; those that come then get a `SMALL_WINDOW`."""
DETACHED_LIMIT = 64 * 1024 * 1024
"""Most bytes kept for streams without a lane; where there are more, those that lost theirs first are reset."""
_REMEMBERED = 256
"""Most streams remembered after their end, so that a late lane hears how it ended."""

Make = Callable[[], asyncio.Protocol | None]
Made = Callable[["ServedTransport"], None]


class ServedTransport(ResumableTransport):
    """The agent's end of a stream: waits `RESUME_S` for another lane when it loses one."""

    def __init__(self, core: Resume, run: str, window: int, table: "Resumables") -> None:
        super().__init__(core, run)
        self.run = run
        self.window = window
        self.resumed = -1
        """Lanes after the first one."""
        self._table = table
        self._expiry: asyncio.TimerHandle | None = None

    def take_lane(self, lane: Lane, greeting: Greeting) -> bool:
        """Go on on a lane that begins with this greeting; False: a newer one is there already."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        self._table.returned(self)
        taken = super().take_lane(lane, greeting)
        self.resumed += taken
        if not taken and not self.attached:
            self._wait(ConnectionError("only an old lane came back"))
        return taken

    def detached(self, error: Exception, answered: bool) -> None:  # noqa: ARG002
        """The lane was lost: wait for the client to come back."""
        if not self.core.over:
            self._wait(error)

    def parted(self) -> None:
        """No lane is needed any more."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        self._table.ended(self)

    def fail(self, why: str) -> None:
        """End it: its protocol hears why, and so does a lane that comes too late."""
        self.core.reset(why)
        self.lose(StreamReset(why))

    def _wait(self, error: Exception) -> None:
        why = f"the stream was not resumed within {RESUME_S:g} s: {error}"
        self._expiry = self._loop.call_later(RESUME_S, self.fail, why)
        self._table.waits(self)


class Resumables:
    """All streams one agent serves, and those it lately served."""

    def __init__(self) -> None:
        self._live: dict[bytes, ServedTransport] = {}
        self._detached: dict[bytes, ServedTransport] = {}
        self._past: dict[bytes, ServedTransport] = {}
        self._windows = 0
        self.awaited = asyncio.Event()
        """Set while a stream that lost its lane has no other: its user waits for this agent to be reached again."""

    def __len__(self) -> int:
        """How many streams live, with a lane or waiting for one."""
        return len(self._live)

    def lane(self, stream: bytes, run: str, make: Make, made: Made | None = None) -> asyncio.Protocol:
        """Return the protocol for a lane that may carry that stream of that run, and no other.

        Its transport may have been connected long ago: `connection_made` and bytes already read
        (`data_received`) are then called by whoever had it. For a new stream `make` gives the protocol that
        serves it, None or a `StreamReset` that says why refuses it; `made` is told of the stream.
        """
        return Lane(_Arrival(self, stream, run, make, made))

    def end(self, run: str, reason: str) -> None:
        """Reset the streams of a run that is over."""
        for stream in [stream for stream in self._live.values() if stream.run == run]:
            stream.fail(reason)

    def close(self, reason: str) -> None:
        """Reset all streams: the agent ends."""
        for stream in list(self._live.values()):
            stream.fail(reason)

    def take(self, lane: Lane, greeting: Greeting, run: str, make: Make, made: Made | None = None) -> bool:
        """Bring a lane to its stream; False where it has a newer one. Raises `StreamReset` where there is none."""
        stream = self._live.get(greeting.stream) or self._past.get(greeting.stream)
        if stream is not None:
            if stream.run != run:
                raise StreamReset("the stream belongs to another run")
            return stream.take_lane(lane, greeting)
        if not greeting.fresh:
            raise StreamReset("the agent does not know the stream (any more)")
        if len(self._live) >= STREAMS_LIMIT:
            raise StreamReset("the agent serves too many streams")
        protocol = make()
        if protocol is None:
            raise StreamReset("refused by the agent")
        window = WINDOW if self._windows + WINDOW <= WINDOWS_LIMIT else SMALL_WINDOW
        self._windows += window
        stream = ServedTransport(Resume(greeting.stream, Side.AGENT, window), run, window, self)
        self._live[greeting.stream] = stream
        if made is not None:
            made(stream)
        stream.take_lane(lane, greeting)
        stream.attach(protocol)
        return True

    # What its streams call.

    def waits(self, stream: ServedTransport) -> None:
        """A stream lost its lane; where too much is kept for such, the oldest go."""
        self._detached[stream.core.stream] = stream
        self.awaited.set()
        while sum(waiting.core.held for waiting in self._detached.values()) > DETACHED_LIMIT:
            next(iter(self._detached.values())).fail("too much was kept for streams without a lane")

    def returned(self, stream: ServedTransport) -> None:
        """A stream has a lane again."""
        self._attached(stream.core.stream)

    def ended(self, stream: ServedTransport) -> None:
        """A stream needs no lane any more: its end is remembered for a while."""
        key = stream.core.stream
        self._attached(key)
        if self._live.pop(key, None) is None:
            return
        self._windows -= stream.window
        self._past[key] = stream
        if len(self._past) > _REMEMBERED:
            del self._past[next(iter(self._past))]

    def _attached(self, key: bytes) -> None:
        self._detached.pop(key, None)
        if not self._detached:
            self.awaited.clear()


class _Arrival:
    """A lane that has not greeted yet."""

    def __init__(self, table: Resumables, stream: bytes, run: str, make: Make, made: Made | None) -> None:
        self._table = table
        self._stream = stream
        self._run = run
        self._make = make
        self._made = made
        self._bytes = b""
        self._timer: asyncio.TimerHandle | None = None

    def lane_made(self, lane: Lane) -> None:
        """It has so long to greet."""
        self._timer = asyncio.get_running_loop().call_later(DIAL_TIMEOUT_S, lane.leave_now)

    def lane_received(self, lane: Lane, data: bytes) -> None:
        """Read the greeting and hand the lane over."""
        self._bytes += data
        try:
            greeting = read_greeting(self._bytes)
            if greeting is None:
                return
            self._over()
            if greeting.stream != self._stream:
                raise StreamReset("the lane may not carry that stream")
            taken = self._table.take(lane, greeting, self._run, self._make, self._made)
        except StreamReset as error:
            lane.transport.write(refusal(str(error)))
            lane.leave(abort=False)
            return
        except ProtocolError:
            taken = False
        if not taken:
            lane.leave(abort=True)
        elif rest := self._bytes[GREETING_SIZE:]:
            lane.data_received(rest)

    def lane_writable(self, lane: Lane) -> None:
        """Nothing waits."""

    def lane_lost(self, lane: Lane, error: Exception | None) -> None:  # noqa: ARG002
        """It went before it greeted."""
        self._over()

    def _over(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
