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
class StreamRecord:
    """What an administrator, or the session's owner, can look up afterwards; never what passed through.

    `door` is where the user came in (`forward`, `ssh`, `stream`, `app`), `source` the address it came from. The target
    is an `app`, a `port`, or with `exec` a program. `streams` is how many this sums up, `lanes` those they took,
    `resumed` how often they went on after a lost one, `received` the bytes that came from the session. `reason` is a
    code, empty for a good end. Times are Unix seconds; `ended_at` of a sum is that of its last stream.
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
    version: int = 0
