"""Which way a stream goes from a relay to an agent: the link it has anyway, or a connection of its own. Pure."""

from dataclasses import dataclass, field, replace
from enum import StrEnum


class Lane(StrEnum):
    """A way of bytes between a relay and an agent."""

    MUX = "mux"
    """A stream of the agent's link: there at once, but it shares the link's TCP connection with all others."""
    DATA = "data"
    """A TLS connection of its own, dialled by the agent when told to."""
    SPLICE = "splice"
    """The same without TLS once it has its stream, which is encrypted already: the kernel passes it on."""


class Use(StrEnum):
    """What is known of a stream's traffic when it is opened."""

    SHORT = "short"
    """Little or unknown: what counts is that it begins at once."""
    BULK = "bulk"
    """Much: what counts is that it is fast and holds nobody else up."""
    BLIND = "blind"
    """The same, encrypted from end to end, from a user's connection that can be bare."""


LANES = {
    Use.SHORT: (Lane.MUX,),
    Use.BULK: (Lane.DATA, Lane.MUX),
    Use.BLIND: (Lane.SPLICE, Lane.DATA, Lane.MUX),
}
"""The lanes for a use, the best first: who cannot have one takes the next."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The lane of one stream, and why (a few words for people)."""

    lane: Lane
    why: str


class Refusal(StrEnum):
    """Why a relay opened no stream, or not on the lane that suits it: the `reason` of its `Unavailable`."""

    OFFLINE = "AGENT_OFFLINE"
    OLD = "AGENT_TOO_OLD"
    STREAMS = "TOO_MANY_STREAMS"
    BUFFERED = "TOO_MUCH_BUFFERED"
    WAITING = "TOO_MANY_WAITING"
    NO_DIAL = "NO_DATA_CONNECTION"
    """The agent made none in time, or not when last asked."""
    BROKE = "DATA_CONNECTION_BROKE"


@dataclass(slots=True)
class Tally:
    """What one lane has carried so far. Bytes are as an agent's side sees them: `received` come from agents.

    `resumes` are the `opens` of streams that had lost a lane; `refused` counts streams that were not opened, by
    reason.
    """

    opens: int = 0
    resumes: int = 0
    received: int = 0
    sent: int = 0
    refused: dict[str, int] = field(default_factory=dict)

    def carried(self, received: int, sent: int) -> None:
        """Add bytes."""
        self.received += received
        self.sent += sent

    def refuse(self, reason: str) -> None:
        """Count a stream that was not opened."""
        self.refused[reason] = self.refused.get(reason, 0) + 1

    def copy(self) -> "Tally":
        """Return one of its own."""
        return replace(self, refused=dict(self.refused))


@dataclass(frozen=True, slots=True)
class Limits:
    """Caps that keep one agent, or strangers, from taking a whole relay. Counts, bytes, seconds."""

    streams: int = 256
    """Streams on data connections of one agent."""
    pending: int = 16
    """Dials of one agent that are awaited."""
    waiting: int = 64
    """Openers that wait for one agent's dials."""
    buffered: int = 64 * 1024 * 1024
    """Bytes held for one agent's data connections."""
    lines: int = 8192
    """Data connections of a relay, those that have not shown a token included."""
    strangers: int = 512
    """Connections that have not shown a token."""
    dial_s: float = 10.0
    """Until a dial that was asked for is given up."""
    token_s: float = 5.0
    """Until a connection must have shown its token."""
    patience_s: float = 1.0
    """How long a bulk stream waits for a data connection before it takes the link."""
    quiet_s: float = 30.0
    """After this long without use an agent's pool halves, until it is empty."""
    grace_s: float = 60.0
    """How long data connections outlive their agent's link, which may come back."""


READY_LIMIT = 8
"""Most data connections that are kept ready for one agent."""


@dataclass(slots=True)
class Pool:
    """How many data connections of one agent should be ready: none while nobody uses it, 1 to 8 while it is used.

    An opener that finds none doubles the number; each quiet time halves it. Times are the caller's clock, in
    seconds.
    """

    limits: Limits = field(default_factory=Limits)
    size: int = 0
    used_at: float = 0.0
    failed_at: float | None = None
    pending: dict[bytes, float] = field(default_factory=dict)
    """Tokens given out and not yet shown, each with the time at which it is void."""

    def used(self, now: float, *, missed: bool) -> None:
        """An opener took a ready connection, or (`missed`) found none."""
        self.used_at = now
        self.size = min(READY_LIMIT, max(1, self.size * 2)) if missed else max(1, self.size)

    def wanted(self, ready: int, waiting: int) -> int:
        """Return how many further dials to ask for, with so many connections ready and openers waiting."""
        lacking = self.size + waiting - ready - len(self.pending)
        return max(0, min(lacking, self.limits.pending - len(self.pending)))

    def promise(self, token: bytes, now: float) -> None:
        """Await a connection that shows this token."""
        self.pending[token] = now + self.limits.dial_s

    def redeem(self, token: bytes, now: float) -> bool:
        """Say whether a connection that shows this token is awaited; from here on it no longer is."""
        good = self.pending.pop(token, now) > now
        if good:
            self.failed_at = None
        return good

    def hopeful(self, now: float) -> bool:
        """Say whether waiting for a dial makes sense: not soon after one that never came."""
        return self.failed_at is None or now >= self.failed_at + self.limits.quiet_s

    def rest(self, now: float) -> list[bytes]:
        """Halve the pool after each quiet time; give up dials that are late and return their tokens."""
        late = [token for token, until in self.pending.items() if until <= now]
        for token in late:
            del self.pending[token]
        if late:  # an agent that cannot dial is asked again for who needs it, not to keep something ready
            self.size, self.failed_at = 0, now
        while self.size and now >= self.used_at + self.limits.quiet_s:
            self.size //= 2
            self.used_at += self.limits.quiet_s
        return late

    def next_rest(self) -> float | None:
        """Return when `rest` next has something to do; None while there is nothing."""
        quiet = [self.used_at + self.limits.quiet_s] if self.size else []
        return min([*self.pending.values(), *quiet], default=None)
