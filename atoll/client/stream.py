"""Reading event streams without I/O: server-sent events from bytes, and the place in a session's output."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from atoll.client.views import EventView, SessionView
from atoll.errors import AtollError
from atoll.states import ENDED

SILENCE_S = 35.0
"""A stream silent for this long is dead: the server sends a comment every 10 seconds."""
PAUSE_S, PAUSE_MAX_S = 0.2, 2.0
"""First and longest pause before a broken stream is opened again."""
MAX_EVENT = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One server-sent event."""

    name: str
    data: bytes
    id: str = ""


class EventDecoder:
    """Cuts a byte stream into server-sent events; comments and unknown fields are skipped."""

    def __init__(self) -> None:
        self._rest = b""
        self._name, self._id, self._data = "message", "", list[bytes]()

    def feed(self, data: bytes) -> list[ServerEvent]:
        """Take bytes and return the events completed by them; raise `AtollError` when one has no end."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_EVENT:
            raise AtollError("the control plane sent an event that is too long")
        events = []
        for line in lines:
            event = self._line(line.removesuffix(b"\r"))
            if event:
                events.append(event)
        return events

    def _line(self, line: bytes) -> ServerEvent | None:
        if not line:
            event = ServerEvent(self._name, b"\n".join(self._data), self._id) if self._data else None
            self._name, self._data = "message", []
            return event
        key, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if key == b"event":
            self._name = value.decode("utf-8", "replace")
        elif key == b"data":
            self._data.append(value)
        elif key == b"id":
            self._id = value.decode("utf-8", "replace")
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogChunk:
    """Bytes that a member wrote to `channel` (`out`, `err`), from `offset` of this attempt on."""

    channel: str
    offset: int
    data: bytes
    rank: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChange:
    """A session entered a state."""

    state: str
    reason: str
    message: str


class _Log(msgspec.Struct):
    channel: str
    offset: int
    data: str
    rank: int = 0
    attempt: int = 0


class _State(msgspec.Struct):
    state: str
    reason: str = ""
    message: str = ""


Followed = LogChunk | StateChange | SessionView


@dataclass(slots=True)
class Follow:
    """Where a reader is in a session's output, so that a broken stream goes on with nothing lost or doubled.

    `query` asks for what is missing; `take` turns events into news, without those seen before. A final
    `SessionView` comes once, when the session has ended and its output is complete; then `done` is true.
    """

    channel: str = "both"
    rank: int = 0
    attempt: int = 0
    stay: bool = True
    only: bool = False
    done: bool = False
    _next: dict[str, int] = field(default_factory=lambda: {"out": 0, "err": 0})
    _state: StateChange | None = None

    def query(self) -> Mapping[str, str]:
        """Return the query that continues from here."""
        return {
            "channel": self.channel,
            "follow": "1" if self.stay else "0",
            "rank": str(self.rank),
            "attempt": str(self.attempt),
            "out": str(self._next["out"]),
            "err": str(self._next["err"]),
        }

    def take(self, event: ServerEvent) -> Followed | None:
        """Return what is new in an event, or None."""
        try:
            if event.name == "log":
                return self._take_log(msgspec.json.decode(event.data, type=_Log))
            if event.name == "state":
                return self._take_state(msgspec.json.decode(event.data, type=_State))
            if event.name == "end":
                return self._take_end(msgspec.json.decode(event.data, type=SessionView))
        except (msgspec.MsgspecError, ValueError) as error:
            raise AtollError("the control plane sent a log event that cannot be read") from error
        return None

    def _take_log(self, log: _Log) -> LogChunk | None:
        if log.attempt < self.attempt:
            return None
        if log.attempt > self.attempt:
            self._enter(log.attempt)
        data = base64.b64decode(log.data)
        known = self._next.get(log.channel, 0)
        fresh = data[max(0, known - log.offset) :]
        if not fresh:
            return None
        end = log.offset + len(data)
        self._next[log.channel] = end
        return LogChunk(channel=log.channel, offset=end - len(fresh), data=fresh, rank=log.rank, attempt=log.attempt)

    def _take_state(self, state: _State) -> StateChange | None:
        change = StateChange(state=state.state, reason=state.reason, message=state.message)
        if change == self._state:
            return None
        self._state = change
        return change

    def _take_end(self, session: SessionView) -> SessionView | None:
        ended = session.state in ENDED
        if self.stay and not self.only and (not ended or 0 < self.attempt < session.attempt):
            # The stream was opened for one attempt, and there is a newer one; a moved session's are read in turn.
            newest = max(session.attempt, self.attempt)
            self._enter(min(self.attempt + 1, newest) if session.moves else newest)
            return None
        self.done = True
        return session

    def _enter(self, attempt: int) -> None:
        if attempt != self.attempt:
            self.attempt = attempt
            self._next = dict.fromkeys(self._next, 0)


@dataclass(slots=True)
class Watch:
    """Where a reader is in the stream of changes."""

    kinds: tuple[str, ...] = ()
    since: int | None = None

    def query(self) -> Mapping[str, str]:
        """Return the query that continues from here."""
        query = {"kinds": ",".join(self.kinds)} if self.kinds else {}
        return query if self.since is None else query | {"since": str(self.since)}

    def take(self, event: ServerEvent) -> EventView | None:
        """Return a change not seen before, or None."""
        try:
            change = msgspec.json.decode(event.data, type=EventView)
        except msgspec.MsgspecError:
            return None
        if self.since is not None and change.rev <= self.since:
            return None
        self.since = change.rev
        return change
