"""The record of a user's stream, or of many alike: who reached what, from where, how much passed, how it ended."""

from dataclasses import dataclass
from enum import StrEnum


class StreamState(StrEnum):
    """How a recorded stream stands."""

    PERMITTED = "permitted"  # somebody was given the permission for one, through a relay's door
    OPEN = "open"
    ENDED = "ended"
    REFUSED = "refused"
    SUMMED = "summed"  # many streams of one kind within one window: their number, bytes, first and last time


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """What one process told of a stream: a door of one connection of it, or its agent of the `whole`.

    `by` is the process and its own number for this, `via` the relay's name, `direct` for the agent's own door, empty
    for the control plane's. A door counts what passes with its frames, an agent the user's bytes alone. Of several
    connections in one sighting, `resumed` are those after the first. `reason` is as in `StreamRecord`.
    """

    by: str
    whole: bool = False
    via: str = ""
    lane: str = ""
    source: str = ""
    resumed: int = 0
    received: int = 0
    sent: int = 0
    reason: str = ""
    message: str = ""
    began_at: float = 0.0
    ended_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRecord:
    """What an administrator, or the session's owner, can look up afterwards; never what passed through.

    `door` is where the user came in (`forward`, `ssh`, `stream`, `app`), `source` the address it came from. The target
    is an `app`, a `port`, or with `exec` a program. `streams` is how many this sums up, `lanes` those they took,
    `resumed` how often they went on after a lost one, `received` the bytes that came from the session. `reason` is a
    code, empty for a good end. Times are Unix seconds; `ended_at` of a sum is that of its last stream. `seen` is what
    each process told of a stream that has several ways; the rest follows from it.
    """

    id: str
    state: StreamState
    project: str = ""
    session: str = ""
    run: str = ""
    user: str = ""
    door: str = ""
    app: str = ""
    port: int = 0
    exec: bool = False
    source: str = ""
    lanes: tuple[str, ...] = ()
    streams: int = 1
    resumed: int = 0
    received: int = 0
    sent: int = 0
    reason: str = ""
    message: str = ""
    began_at: float = 0.0
    ended_at: float | None = None
    seen: tuple[Sighting, ...] = ()
    version: int = 0
