"""Which output of which run goes to the control plane next: offsets, acks and bounds. Pure, no I/O.

At most `WINDOW` bytes are unacknowledged on a link, so a flood of output never blocks control messages
(I18). After a reconnect sending begins again at the last acknowledged offset: the control plane ignores
what it has and answers with the offset that it stored.
"""

from collections.abc import Callable
from dataclasses import dataclass

WINDOW = 256 * 1024
"""Most unacknowledged log bytes on a link."""
CHUNK = 32 * 1024
"""Most bytes of one `Log` message."""
SPOOL = 256 * 1024 * 1024
"""Most unacknowledged bytes kept for a channel of a run; the oldest are dropped beyond that."""

CHANNELS = ("out", "err")


@dataclass(slots=True)
class _Channel:
    size: int = 0
    base: int = 0
    acked: int = 0
    sent: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """Read and send up to `limit` bytes of a channel from `offset` on."""

    run: str
    channel: str
    offset: int
    limit: int


class LogPump:
    """The offsets of every channel of every run that is not forgotten."""

    def __init__(self, spool: int = SPOOL, window: int = WINDOW) -> None:
        self._spool = spool
        self._window = window
        self._channels: dict[tuple[str, str], _Channel] = {}

    @property
    def in_flight(self) -> int:
        """Bytes sent and not yet acknowledged."""
        return sum(channel.sent - channel.acked for channel in self._channels.values())

    @property
    def pending(self) -> int:
        """Bytes known and not yet acknowledged."""
        return sum(channel.size - channel.acked for channel in self._channels.values())

    def grown(self, run: str, channel: str, size: int, base: int = 0) -> int:
        """Note that a channel holds bytes up to `size`, readable from `base`; return the offset to drop below.

        That offset is 0 as long as the spool is within its bound.
        """
        state = self._channels.get((run, channel))
        if state is None:
            state = self._channels[run, channel] = _Channel(base=base, acked=base, sent=base)
        state.size = max(state.size, size)
        if state.size - max(state.acked, state.base) <= self._spool:
            return 0
        state.base = state.size - self._spool
        if state.sent < state.base:
            state.sent = state.acked = state.base
        return state.base

    def restart(self) -> None:
        """A link came up: what was not acknowledged is sent again."""
        for state in self._channels.values():
            state.sent = max(state.acked, state.base)

    def acked(self, run: str, channel: str, offset: int) -> int:
        """Note that everything below `offset` is stored; return the offset below which it may be freed."""
        state = self._channels.get((run, channel))
        if state is None:
            return 0
        offset = min(offset, state.size)
        if offset <= state.acked:
            return 0
        state.acked = offset
        state.sent = max(state.sent, offset)
        return offset

    def forget(self, run: str) -> None:
        """Drop a run's channels."""
        for channel in CHANNELS:
            self._channels.pop((run, channel), None)

    def send(self, read: Callable[[Piece], bytes], emit: Callable[[Piece, bytes], None]) -> bool:
        """Read and emit pieces, the channels in turn, while the window allows; say whether bytes are left over."""
        room = self._window - self.in_flight
        waiting = [key for key, state in self._channels.items() if state.sent < state.size]
        while waiting and room > 0:
            for key in list(waiting):
                state = self._channels[key]
                piece = Piece(*key, state.sent, min(CHUNK, room, state.size - state.sent))
                data = read(piece) if room > 0 else b""
                if data:
                    emit(piece, data)
                    state.sent += len(data)
                    room -= len(data)
                    self._channels[key] = self._channels.pop(key)  # the last served waits for all others next time
                if not data or state.sent >= state.size:
                    waiting.remove(key)
        return bool(waiting)
